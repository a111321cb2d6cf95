package image

import (
	"fmt"
	"maps"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// describe reads a folder's ferry.yaml.
func (s *scan) describe(f *folder, entry source.Entry) {
	content, _, err := s.root.ReadFile(entry.Path, descriptionLimit)
	if err == nil {
		f.described, err = parseDescription(content)
	}
	if err != nil {
		f.trouble = trouble{backup.StateBroken, descriptionName + ": " + reason(err)}
	}
}

// applyDescriptions looks up the files that ferry.yaml files name and puts chains in the order they state, which wins
// over what headers say.
func (s *scan) applyDescriptions() {
	for _, folderPath := range s.listing.Paths() {
		f := s.folders[folderPath]
		if f == nil || f.described == nil {
			continue
		}
		for k := range f.described.Machines {
			m := &f.described.Machines[k]
			for _, disk := range slices.Sorted(maps.Keys(m.Chains)) {
				s.order(f, m.Chains[disk])
			}
			for p := range m.Points {
				for _, disk := range slices.Sorted(maps.Keys(m.Points[p].Disks)) {
					s.order(f, m.Points[p].Disks[disk])
				}
			}
		}
	}
}

// order makes each file of a list stand on the one before it. The first stands on what its header says.
func (s *scan) order(f *folder, list fileList) {
	var below *file
	for k, name := range list.files {
		current, err := s.named(f, name)
		if err != nil {
			// The point that needs the file reports it.
			return
		}
		current.described = true
		// What stands on another file is qcow2. The first of a list is only said to be an image.
		current.stated = current.stated || k > 0
		if k > 0 && current.below != below {
			switch {
			case current.linked:
				current.trouble = trouble{backup.StateBroken, fmt.Sprintf("%s, line %d: the image stands on two different files", descriptionName, name.line)}
			case current.format != formatQcow2:
				current.trouble = worse(current.trouble, trouble{backup.StateBroken,
					fmt.Sprintf("%s, line %d: a %s image cannot stand on another", descriptionName, name.line, current.format)})
			default:
				s.stand(current, below)
			}
		}
		below = current
	}
}

// named returns the file that a ferry.yaml names.
func (s *scan) named(f *folder, name word) (*file, error) {
	where, err := s.within(f.path, name.text)
	if err != nil {
		return nil, fmt.Errorf("%s, line %d: %s: %w", descriptionName, name.line, backup.EncodeName(name.text), err)
	}
	found, err := s.file(where, wantDescribed)
	if err != nil {
		return nil, fmt.Errorf("%s, line %d: %s: %w", descriptionName, name.line, backup.EncodeName(name.text), err)
	}
	return found, nil
}

// describedMachines returns the machines of a folder's ferry.yaml.
func (s *scan) describedMachines(f *folder) []*machine {
	var machines []*machine
	for k := range f.described.Machines {
		d := &f.described.Machines[k]
		id := d.ID.text
		switch {
		case id != "":
		case f.path == ".":
			id = d.Name.text
		default:
			// The name takes part even if it is the only one: another machine may be described beside it, or instead.
			id = f.path + "/" + d.Name.text
		}
		m := &machine{
			key:  s.root.MachineKey(backup.PlatformImage, id, d.UUID.text),
			name: d.Name.text, location: f.path, described: true,
		}
		if f.path != "." {
			m.beside = f.beside
		}
		for _, p := range d.points() {
			st := state{given: p.created, zone: p.zone}
			for _, disk := range slices.Sorted(maps.Keys(p.Disks)) {
				list := p.Disks[disk].files
				top, err := s.named(f, list[len(list)-1])
				if err != nil {
					st.trouble = trouble{backup.StateBroken, reason(err)}
					continue
				}
				for _, name := range list {
					if _, err := s.named(f, name); err != nil {
						st.trouble = trouble{backup.StateBroken, reason(err)}
					}
				}
				st.disks = append(st.disks, diskState{name: disk, top: top, snapshot: active})
			}
			m.states = append(m.states, st)
		}
		machines = append(machines, m)
	}
	return machines
}

// points writes chains as points: the k-th file of every chain is the k-th point.
func (m *describedMachine) points() []describedPoint {
	if len(m.Chains) == 0 {
		return m.Points
	}
	var points []describedPoint
	for disk, chain := range m.Chains {
		if points == nil {
			points = make([]describedPoint, len(chain.files))
		}
		for k := range chain.files {
			if points[k].Disks == nil {
				points[k].Disks = map[string]fileList{}
			}
			points[k].Disks[disk] = fileList{files: chain.files[:k+1], line: chain.line}
		}
	}
	return points
}
