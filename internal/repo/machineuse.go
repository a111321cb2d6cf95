package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/spill"
)

// MachineUse says what a machine's points need. All sizes are in bytes.
type MachineUse struct {
	// Machine is its pseudonym.
	Machine format.Name
	Points  int
	// Logical is the size of all its points, zeros included, as if each were stored whole.
	Logical int64
	BlockUse
	// Newest is its newest point and Before the one before that, zero if there is none. Changed is what differs between
	// them: see machineMarking.changed.
	Newest, Before backup.PointID
	Changed        int64
	// Lost counts blocks and nodes that no good place is known of. Incomplete: a point or a tree could not be read, so the figures are
	// too small.
	Lost       int
	Incomplete bool
}

// BlockUse is what different blocks hold (Distinct) and what they take in packs with their headers (Stored), in bytes.
type BlockUse struct {
	Distinct, Stored int64
}

func (u *BlockUse) add(place index.Place) {
	u.Distinct += int64(place.Plain)
	u.Stored += frameSize(place)
}

// MachinesUse says what each machine's points need, by pseudonym. A block that several of them need counts for each of
// them, and once in All. What is in two domains is stored twice and counts twice.
type MachinesUse struct {
	Machines []MachineUse
	All      BlockUse
}

// machineMarking finds what each machine's points need, in one pass:
//
//  1. Machine by machine, and in that domain by domain, the trees are walked as for a mark (mark.go). The ids go to one
//     sorter, each with the number of its group: a machine in a domain.
//  2. The sorted ids are merged with the index. A block counts for every group that needs it, and for each domain once.
//
// Its memory is that of a mark of one domain, and some bytes for each point.
type machineMarking struct {
	repo   *Repository
	state  *commitlog.State
	temp   string
	nodes  *nodePacks
	ids    *spill.Sorter
	groups []*machineGroup // those of a domain follow each other
	uses   map[format.Name]*MachineUse
	all    BlockUse
}

// machineGroup are a machine's points of one domain, oldest first.
type machineGroup struct {
	machine, domain format.Name
	points          []HeaderRead
}

// MachinesUse finds out what each machine's points need now. It reads tree nodes and the index, and changes nothing. In
// tempDir lies what does not fit into memory.
func (r *Repository) MachinesUse(ctx context.Context, tempDir string) (MachinesUse, error) {
	m := &machineMarking{repo: r, state: r.snapshot(), temp: tempDir, nodes: newNodePacks(r, tempDir), ids: spill.NewSorter(tempDir), uses: map[format.Name]*MachineUse{}}
	defer m.ids.Close()
	defer m.nodes.close()
	if err := m.collect(ctx); err != nil {
		return MachinesUse{}, err
	}
	for number, group := range m.groups {
		if err := m.walk(ctx, uint32(number), group); err != nil {
			return MachinesUse{}, err
		}
	}
	if err := m.place(ctx); err != nil {
		return MachinesUse{}, err
	}
	found := MachinesUse{All: m.all}
	for _, use := range m.uses {
		found.Machines = append(found.Machines, *use)
	}
	slices.SortFunc(found.Machines, func(a, b MachineUse) int { return compareNames(a.Machine, b.Machine) })
	return found, nil
}

// collect reads the points' headers, and compares each machine's newest point with the one before.
func (m *machineMarking) collect(ctx context.Context) error {
	entries := m.state.Points.Sorted()
	read, err := m.repo.ReadHeaders(ctx, entries)
	if err != nil {
		return err
	}
	groups := map[[2]format.Name]*machineGroup{}
	newest := map[format.Name][2]*Header{} // and the one before
	for _, p := range read {
		machine := p.Entry.Machine
		use := m.uses[machine]
		if use == nil {
			use = &MachineUse{Machine: machine}
			m.uses[machine] = use
		}
		if p.Err != nil {
			if m.repo.gone(ctx, p.Entry) {
				continue
			}
			if !permanent(p.Err) {
				return p.Err
			}
			m.miss(machine, "point %s cannot be read: %v", p.Entry.ID.Short(), p.Err)
			continue
		}
		use.Points++
		use.Logical += p.Header.Size()
		newest[machine] = [2]*Header{p.Header, newest[machine][0]}
		key := [2]format.Name{p.Header.Domain, machine}
		if groups[key] == nil {
			groups[key] = &machineGroup{machine: machine, domain: p.Header.Domain}
			m.groups = append(m.groups, groups[key])
		}
		groups[key].points = append(groups[key].points, p)
	}
	slices.SortFunc(m.groups, func(a, b *machineGroup) int {
		return cmp.Or(compareNames(a.domain, b.domain), compareNames(a.machine, b.machine))
	})
	return m.compare(ctx, newest)
}

// compare fills in what changed between each machine's newest points.
func (m *machineMarking) compare(ctx context.Context, newest map[format.Name][2]*Header) error {
	for machine, two := range newest {
		use := m.uses[machine]
		use.Newest = two[0].ID
		if two[1] == nil {
			continue
		}
		use.Before = two[1].ID
		changed, err := m.changed(ctx, two[1].Roots, two[0].Roots)
		if err != nil {
			if ctx.Err() != nil || !permanent(err) {
				return err
			}
			m.miss(machine, "point %s cannot be compared with the one before: %v", use.Newest.Short(), err)
		}
		use.Changed = changed
	}
	return nil
}

func (m *machineMarking) miss(machine format.Name, reason string, args ...any) {
	m.uses[machine].Incomplete = true
	m.repo.warn(reason, args...)
}

// walk notes the ids of a group's blocks and nodes.
func (m *machineMarking) walk(ctx context.Context, number uint32, group *machineGroup) error {
	walker := newMarker(m.repo, m.temp)
	defer func() { _ = walker.close() }() // its files have no names
	more := binary.BigEndian.AppendUint32(nil, number)
	walker.late = func(_ *domainMark, want needed) error { return m.ids.Add(idRecord(want.id, more...)) }
	walker.nodes = m.nodes
	walker.expectTops(ctx, group.points)
	mark := walker.domain(group.domain, m.state)
	for _, p := range group.points {
		if err := walker.markRoots(ctx, mark, p.Entry, p.Header.Roots); err != nil {
			return err
		}
	}
	for _, reason := range mark.incomplete {
		m.miss(group.machine, "%s", reason)
	}
	return nil
}

// place merges the ids with the index.
func (m *machineMarking) place(ctx context.Context) error {
	set, err := m.repo.lookup(ctx)
	if err != nil {
		return err
	}
	damaged := damagedFrames(m.state)
	needs, stop := iter.Pull2(distinct(m.ids))
	defer stop()
	want, err, more := needs()
	// settle counts what is wanted of ids up to this one, which is at those places.
	settle := func(id format.ID, places []index.Place) error {
		var last *machineGroup
		for ; more && err == nil; want, err, more = needs() {
			switch bytes.Compare(want[:len(id)], id[:]) {
			case -1:
				m.count(m.group(want), nil, nil)
				continue
			case 1:
				return nil
			}
			group := m.group(want)
			m.count(group, last, places)
			last = group
		}
		return err
	}
	var id format.ID
	var places []index.Place
	for entry, entryErr := range set.All(ctx) {
		if entryErr != nil {
			return entryErr
		}
		if entry.ID != id {
			if err := settle(id, places); err != nil {
				return err
			}
			id, places = entry.ID, places[:0]
		}
		if known := m.state.Packs.Has(entry.Pack); known && !m.state.Condemned[entry.Pack] && !isDamaged(damaged, entry.Place) {
			places = append(places, entry.Place)
		}
	}
	if err := settle(id, places); err != nil {
		return err
	}
	for ; more && err == nil; want, err, more = needs() {
		m.count(m.group(want), nil, nil)
	}
	return err
}

func (m *machineMarking) group(value [spill.RecordSize]byte) *machineGroup {
	return m.groups[binary.BigEndian.Uint32(value[len(format.ID{}):])]
}

// count counts a block for a group; last is the group that it was counted for before. Nodes do not count.
func (m *machineMarking) count(group, last *machineGroup, places []index.Place) {
	var best *index.Place
	for i := range places {
		p := m.state.Packs.Of(places[i].Pack)
		if p.Domain == group.domain && (best == nil || newer(p, m.state.Packs.Of(best.Pack))) {
			best = &places[i]
		}
	}
	use := m.uses[group.machine]
	switch {
	case best == nil:
		use.Lost++
	case m.state.Packs.Of(best.Pack).Kind == pack.KindBlock.String():
		use.add(*best)
		if last == nil || last.domain != group.domain {
			m.all.add(*best)
		}
	}
}

// changed is how much of a point differs from another, in bytes. Objects are compared in their order. Of disks whose trees have the
// same shape the ranges count that differ, also those that are zeros now. Of others (a disk of another size, a stream, a
// new object) the blocks count that the other object does not have, each once. It reads tree nodes only.
func (m *machineMarking) changed(ctx context.Context, before, after []tree.Root) (int64, error) {
	sum := int64(0)
	for i, root := range after {
		old := tree.Root{Kind: root.Kind}
		if i < len(before) {
			old = before[i]
		}
		if root == old {
			continue
		}
		count := m.unlike
		if root.Kind == tree.KindFixed && old.Kind == root.Kind && old.BlockSize == root.BlockSize && old.Size == root.Size {
			count = m.differing
		}
		bytes, err := count(ctx, old, root)
		if sum += bytes; err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func (m *machineMarking) differing(ctx context.Context, before, after tree.Root) (int64, error) {
	sum := int64(0)
	for block, err := range tree.Changed(ctx, m.nodes.load, m.nodes.load, before, after) {
		if err != nil {
			return sum, err
		}
		sum += block.Length
	}
	return sum, nil
}

// unlike counts the blocks of an object that another does not have.
func (m *machineMarking) unlike(ctx context.Context, before, after tree.Root) (sum int64, err error) {
	const isOld, isNew = 0, 1
	ids := spill.NewSorter(m.temp)
	defer func() { err = errors.Join(err, ids.Close()) }()
	for kind, root := range []tree.Root{isOld: before, isNew: after} {
		if root.Top.IsZero() {
			continue
		}
		for blocks, err := range tree.Leaves(ctx, m.nodes.load, root) {
			if err != nil {
				return 0, err
			}
			for _, block := range blocks {
				more := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(block.Length))
				if err := ids.Add(idRecord(block.ID, more...)); err != nil {
					return 0, err
				}
			}
		}
	}
	var known format.ID // the last id of the old object
	for value, err := range distinct(ids) {
		if err != nil {
			return 0, err
		}
		id := format.ID(value[:len(known)])
		switch more := value[len(known):]; {
		case more[0] == isOld:
			known = id
		case id != known:
			sum += int64(binary.BigEndian.Uint32(more[1:]))
		}
	}
	return sum, ctx.Err()
}
