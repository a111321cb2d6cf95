package image

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// active stands for an image's active state where a snapshot's number could stand.
const active = -1

// machine is a machine and its states, oldest first.
type machine struct {
	key    backup.MachineKey
	name   string
	states []state
	// location is where the machine was found, for information.
	location string
	// beside are its configuration files.
	beside []source.Entry
	// described is true if a ferry.yaml describes it.
	described bool
}

// state is one point of a machine in the making.
type state struct {
	disks []diskState
	// given is the time that a ferry.yaml states; zero if it states none.
	given time.Time
	zone  string
	// snapshot is the internal snapshot's name and time; both empty for active states.
	snapshot string
	date     time.Time
	created  time.Time
	trouble  trouble
}

// diskState is one disk of a state: the top of a chain, in its active state or in an internal snapshot.
type diskState struct {
	name     string
	top      *file
	snapshot int
}

// machines groups all images into machines, sorted by id.
func (s *scan) machines() []*machine {
	var all []*machine
	for _, folderPath := range s.listing.Paths() {
		f := s.folders[folderPath]
		if f.described != nil {
			all = append(all, s.describedMachines(f)...)
		}
		if folderPath != "." && f.described == nil {
			if m := s.folderMachine(f); m != nil {
				all = append(all, m)
			}
		}
	}
	if f := s.folders["."]; f != nil {
		all = append(all, s.rootMachines(f)...)
	}
	refuseTaken(all)
	for _, m := range all {
		m.addSnapshots()
		m.setTimes()
	}
	slices.SortStableFunc(all, func(a, b *machine) int { return cmp.Compare(a.key.String(), b.key.String()) })
	return all
}

// refuseTaken breaks the machines whose id a ferry.yaml gives to another one: ids there are free words, and points of two
// machines must not become one machine's.
func refuseTaken(all []*machine) {
	given := map[backup.MachineKey]bool{}
	for _, m := range all {
		given[m.key] = given[m.key] || m.described
	}
	for _, m := range all {
		if m.described || !given[m.key] {
			continue
		}
		for k := range m.states {
			m.states[k].trouble = trouble{backup.StateBroken, "a " + descriptionName + " gives this machine's id to another one; choose another id there"}
		}
	}
}

// own returns the part of a chain that belongs to the machine of its top, top first: down to a template, to another
// folder, or to a file that a ferry.yaml or another format has.
func own(top *file) []*file {
	var chain []*file
	for f := top; f != nil && f.folder == top.folder && f.listed && !f.described && !f.template(); f = f.below {
		chain = append(chain, f)
	}
	return chain
}

// chains returns the chains in a folder, each top first, sorted by the name of their first file.
func (s *scan) chains(folderPath string) [][]*file {
	var chains [][]*file
	for _, entry := range s.listing.Folders[folderPath] {
		f := s.files[entry.Path]
		if f == nil || f.overlaysHere > 0 || f.gone {
			continue
		}
		if chain := own(f); len(chain) > 0 {
			chains = append(chains, chain)
		}
	}
	slices.SortFunc(chains, func(a, b []*file) int { return compareText(first(a).name, first(b).name) })
	return chains
}

// first is the oldest file of a chain: it gives the name.
func first(chain []*file) *file { return chain[len(chain)-1] }

// rootMachines makes a machine of every chain in the source's own folder. The whole file name is the id, so that it does
// not depend on what else is there: vm.raw stays itself when vm.qcow2 or a folder vm comes. People see the base name.
func (s *scan) rootMachines(f *folder) []*machine {
	chains := s.chains(".")
	var machines []*machine
	for _, chain := range chains {
		name := baseName(first(chain).name)
		m := &machine{
			key:  s.root.MachineKey(backup.PlatformImage, first(chain).name, ""),
			name: name, location: first(chain).Path,
		}
		for k := len(chain) - 1; k >= 0; k-- {
			m.states = append(m.states, state{trouble: f.trouble, disks: []diskState{{name: name, top: chain[k], snapshot: active}}})
		}
		machines = append(machines, m)
	}
	return machines
}

// folderMachine makes one machine of a subfolder, each chain a disk; nil if the folder has none. The slash at the end of
// its id keeps it apart from a file that had, or will have, the folder's name.
func (s *scan) folderMachine(f *folder) *machine {
	chains := s.chains(f.path)
	if len(chains) == 0 {
		return nil
	}
	m := &machine{
		key:  s.root.MachineKey(backup.PlatformImage, f.path+"/", ""),
		name: path.Base(f.path), location: f.path, beside: f.beside,
	}
	bad := worse(f.trouble, s.incomplete(f))
	// A disk goes by its whole name where another one has the short name, as its short or as its whole one.
	taken := map[string]int{}
	count := len(chains[0])
	for _, chain := range chains {
		name := first(chain).name
		taken[name]++
		if short := baseName(name); short != name {
			taken[short]++
		}
		if len(chain) != count {
			// Which states belong together cannot be told; the newest ones do.
			count = 1
		}
	}
	for position := count - 1; position >= 0; position-- {
		st := state{trouble: bad}
		for _, chain := range chains {
			name := baseName(first(chain).name)
			if taken[name] > 1 {
				name = first(chain).name
			}
			st.disks = append(st.disks, diskState{name: name, top: chain[position], snapshot: active})
		}
		m.states = append(m.states, st)
	}
	return m
}

// incomplete says why the images of a subfolder may not be all of its machine.
func (s *scan) incomplete(f *folder) trouble {
	if f.vanished != "" {
		return trouble{backup.StateLocked, backup.EncodeName(f.vanished) + " vanished"}
	}
	unreachable := s.listing.Unreachable[f.path]
	for _, name := range slices.Sorted(maps.Keys(unreachable)) {
		err := unreachable[name]
		if place := (*fs.PathError)(nil); errors.As(err, &place) && !errors.Is(err, backup.ErrVanished) {
			err = place.Err // the path is that of the name
		}
		switch {
		case name == "":
			return trouble{backup.StateBroken, "the folder could not be listed: " + reason(err)}
		case baseName(name) == name || skipped(name):
		case errors.Is(err, backup.ErrVanished):
			return trouble{backup.StateLocked, backup.EncodeName(name) + " vanished"}
		default:
			return trouble{backup.StateBroken, backup.EncodeName(name) + " cannot be looked at: " + reason(err)}
		}
	}
	return trouble{}
}

// addSnapshots puts internal snapshots that all disks of a state have, by name, before the state. Points that a
// ferry.yaml describes are left as they are described.
func (m *machine) addSnapshots() {
	var states []state
	for _, st := range m.states {
		if len(st.disks) > 0 && !st.disks[0].top.described {
			states = append(states, st.snapshots()...)
		}
		states = append(states, st)
	}
	m.states = states
}

// snapshots returns the snapshots of a state as states, oldest first.
func (st *state) snapshots() []state {
	var found []state
	top := st.disks[0].top
	for k, snapshot := range top.snapshots {
		// With one disk every snapshot counts. With several, equal names are what says that they belong together, and a name
		// that a disk has twice says nothing.
		if _, ok := top.snapshotNamed(snapshot.Name); !ok && len(st.disks) > 1 {
			continue
		}
		older := state{trouble: st.trouble, snapshot: snapshot.Name, date: snapshot.Created,
			disks: []diskState{{name: st.disks[0].name, top: top, snapshot: k}}}
		for _, disk := range st.disks[1:] {
			if n, ok := disk.top.snapshotNamed(snapshot.Name); ok {
				older.disks = append(older.disks, diskState{name: disk.name, top: disk.top, snapshot: n})
				older.date = later(older.date, disk.top.snapshots[n].Created)
			}
		}
		if len(older.disks) == len(st.disks) {
			found = append(found, older)
		}
	}
	slices.SortStableFunc(found, func(a, b state) int { return a.date.Compare(b.date) })
	return found
}

// snapshotNamed returns the number of the only snapshot with that name.
func (f *file) snapshotNamed(name string) (int, bool) {
	found, count := 0, 0
	for n, snapshot := range f.snapshots {
		if snapshot.Name == name {
			found, count = n, count+1
		}
	}
	return found, count == 1
}

// setTimes gives every state its time: that of its newest file, later than the state before it and than the files it
// stands on. Snapshots lie between the state before and the active state of their file.
func (m *machine) setTimes() {
	var before time.Time
	for k := 0; k < len(m.states); {
		end := k
		for !m.states[end].date.IsZero() {
			end++
		}
		current := &m.states[end]
		lower, created := before, current.given
		if created.IsZero() {
			for _, disk := range current.disks {
				created = later(created, disk.top.created)
				if disk.top.below != nil {
					lower = later(lower, disk.top.below.created)
				}
			}
			created = later(created, lower.Add(time.Duration(end-k+1)))
			current.zone = "UTC"
		}
		for n := k; n < end; n++ {
			latest := created.Add(-time.Duration(end - n))
			at := later(m.states[n].date, lower.Add(1))
			if at.After(latest) {
				at = latest
			}
			m.states[n].created, m.states[n].zone, lower = at, "UTC", at
		}
		current.created, before = created, created
		k = end + 1
	}
}
