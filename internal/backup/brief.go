package backup

import (
	"slices"
	"time"
)

// Brief is what deciding needs of a point. There may be a hundred thousand points, each of which is in several lists at once: a
// brief is a third of a point, holds nothing of it alive but its hops, and is shared: nobody changes it.
type Brief struct {
	ID PointID
	// Machine is shared by the briefs of a machine, and nobody changes it. It is never nil.
	Machine *Machine
	Created time.Time
	State   State
	Reason  string
	Hops    []Hop
	// Size of the objects in bytes, of those whose size is known.
	Size int64
}

// Briefer makes briefs of points. Those that follow each other share their machine where it is described the same.
type Briefer struct{ last *Machine }

// Brief is the brief of a point.
func (b *Briefer) Brief(p *Point) Brief {
	if m := &p.Machine; b.last == nil || b.last.Key != m.Key || b.last.Name != m.Name || !slices.Equal(b.last.Labels, m.Labels) {
		machine := *m // else the brief would hold the point alive
		b.last = &machine
	}
	return Brief{ID: p.ID, Machine: b.last, Created: p.Created, State: p.State, Reason: p.Reason, Hops: p.Hops, Size: p.Size()}
}

// Brief is the point's brief, with a machine of its own.
func (p *Point) Brief() *Brief {
	brief := (&Briefer{}).Brief(p)
	return &brief
}

// Size of the point's objects in bytes, of those whose size is known.
func (p *Point) Size() int64 {
	var size int64
	for _, o := range p.Objects {
		size += max(0, o.Size)
	}
	return size
}

// AsPoint is what the brief says of its point: no zone, objects nor origin.
func (b *Brief) AsPoint() Point {
	return Point{ID: b.ID, Machine: *b.Machine, Created: b.Created, State: b.State, Reason: b.Reason, Hops: b.Hops}
}
