package commitlog

import (
	"iter"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// Points are the points that a state has: some 110 bytes for each. The zero value has none.
type Points struct {
	table table[storedPoint, *storedPoint]
	// others are those that a stored point does not say whole.
	others []Point
}

// storedPoint is a point in as little memory as it takes.
type storedPoint struct {
	id          backup.PointID
	machine     format.Name
	checksum    format.ID
	seconds     int64
	nanoseconds int32
	digits      [4]byte
	// other is the number of the point among the others, plus one; 0: it is whole as it is.
	other uint32
}

func (s *storedPoint) key() *backup.PointID { return &s.id }

func (s *storedPoint) point(others []Point) Point {
	if s.other != 0 {
		return others[s.other-1]
	}
	return Point{
		ID: s.id, Machine: s.machine, Created: time.Unix(s.seconds, int64(s.nanoseconds)).UTC(), Checksum: s.checksum,
		file: fileName{made: true, digits: s.digits},
	}
}

// Len is how many there are.
func (p Points) Len() int { return len(p.table.list) }

// Get returns a point, and whether there is one with the id.
func (p Points) Get(id backup.PointID) (Point, bool) {
	stored := p.table.get(id)
	if stored == nil {
		return Point{}, false
	}
	return stored.point(p.others), true
}

// Of returns a point, the zero value if there is none with the id.
func (p Points) Of(id backup.PointID) Point {
	point, _ := p.Get(id)
	return point
}

// Has is true if there is a point with the id.
func (p Points) Has(id backup.PointID) bool { return p.table.get(id) != nil }

// All yields the points, in no order.
func (p Points) All() iter.Seq[Point] {
	return func(yield func(Point) bool) {
		for i := range p.table.list {
			if !yield(p.table.list[i].point(p.others)) {
				return
			}
		}
	}
}

// Sorted returns the points by time, then by id.
func (p Points) Sorted() []Point {
	points := slices.AppendSeq(make([]Point, 0, p.Len()), p.All())
	SortPoints(points)
	return points
}

func (p *Points) set(point Point) {
	stored := storedPoint{
		id: point.ID, machine: point.Machine, checksum: point.Checksum,
		seconds: point.Created.Unix(), nanoseconds: int32(point.Created.Nanosecond()), digits: point.file.digits,
	}
	if stored.point(nil) != point {
		p.others = append(p.others, point)
		stored.other = uint32(len(p.others))
	}
	p.table.set(stored.id, stored)
}

func (p *Points) clone() Points { return Points{p.table.clone(), slices.Clone(p.others)} }
