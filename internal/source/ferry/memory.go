package ferry

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// Memory keeps what repositories' points were listed as, for a process that lists the same repositories again and again. A point's
// file never changes, and the log proves it by its checksum: what was decoded of a file with that checksum needs no reading to be
// listed again. Of each repository it has the points of its last listing, of all together at most
// memoryLimit. It is safe for parallel use; nil remembers nothing.
type Memory struct {
	mu sync.Mutex
	// keeps is true if listings are kept for the next process.
	keeps atomic.Bool
	// listings are by the repository's id, recent those ids, the one listed last at the end.
	listings map[string]*remembered
	recent   []string
}

// memoryLimit is what is remembered at most, in bytes as remembered.size counts them: 200 for a point of a machine of which all are
// alike. What a hostile repository says in its points' files has no other bound.
const memoryLimit = 128 << 20

// remembered are the points of one listing. Once it is in a memory, it does not change but for unkept.
type remembered struct {
	points []rememberedPoint // sorted by id once they are kept
	// last is what the last point of each machine has in common with others; nil once they are kept.
	last map[repo.Pseudonym]*likeness
	// size is what they take in memory, in bytes, roughly.
	size int
	// unkept is how many of them were read since a listing was kept for the next process.
	unkept atomic.Int64
}

// rememberedPoint is a point without what it shares with others of its machine.
type rememberedPoint struct {
	id               backup.PointID
	checksum         repo.ID
	created          time.Time
	native, location string
	hops             []backup.Hop
	like             *likeness
}

// likeness is what points of a machine mostly have in common: all but what rememberedPoint has.
type likeness struct {
	machine repo.Pseudonym
	point   backup.Point
}

// of are the points that are remembered of a repository; nil: none.
func (m *Memory) of(repository string) *remembered {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listings[repository]
}

// keep takes over what a listing has found, in place of the repository's listing before it. What was listed longest ago makes room.
func (m *Memory) keep(repository string, found *remembered) {
	if m == nil {
		return
	}
	if found.last != nil { // it is new
		found.last = nil
		slices.SortFunc(found.points, func(a, b rememberedPoint) int { return bytes.Compare(a.id[:], b.id[:]) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listings == nil {
		m.listings = map[string]*remembered{}
	}
	m.listings[repository] = found
	m.recent = append(slices.DeleteFunc(m.recent, func(id string) bool { return id == repository }), repository)
	for m.size() > memoryLimit {
		delete(m.listings, m.recent[0])
		m.recent = m.recent[1:]
	}
}

func (m *Memory) size() int {
	size := 0
	for _, listing := range m.listings {
		size += listing.size
	}
	return size
}

// forget forgets a point whose file turned out not to be what it was: the next listing reads it.
func (m *Memory) forget(of *repo.Repository, id backup.PointID) {
	if m == nil {
		return
	}
	if m.keeps.Load() {
		of.KeepListing(nil)
	}
	repository := of.ID()
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.listings[repository]; known != nil {
		if at, there := known.find(id); there {
			left := &remembered{points: slices.Delete(slices.Clone(known.points), at, at+1), size: known.size}
			left.unkept.Store(int64(len(left.points))) // nothing of it is kept any more
			m.listings[repository] = left
		}
	}
}

func (r *remembered) find(id backup.PointID) (int, bool) {
	return slices.BinarySearchFunc(r.points, id, func(p rememberedPoint, id backup.PointID) int { return bytes.Compare(p.id[:], id[:]) })
}

// point is what the file is known to say that the log names.
func (r *remembered) point(entry repo.Entry) (*rememberedPoint, bool) {
	if r == nil {
		return nil, false
	}
	at, there := r.find(entry.ID)
	if !there {
		return nil, false
	}
	p := &r.points[at]
	return p, p.checksum == entry.Checksum && p.like.machine == entry.Machine && p.created.Equal(entry.Created)
}

// isAll is true if the points are those that the log has.
func (r *remembered) isAll(entries []repo.Entry) bool {
	if r == nil || len(r.points) != len(entries) {
		return false
	}
	for _, entry := range entries {
		if _, is := r.point(entry); !is {
			return false
		}
	}
	return true
}

// add remembers a point that was read, and returns it as it is remembered.
func (r *remembered) add(entry repo.Entry, p *backup.Point) *rememberedPoint {
	like := r.last[entry.Machine]
	if like == nil || !like.fits(p) {
		like = &likeness{machine: entry.Machine, point: *p}
		shared := &like.point
		shared.ID, shared.Created, shared.Hops = backup.PointID{}, time.Time{}, nil
		shared.Origin.NativePointID, shared.Origin.Location, shared.Origin.Validator = "", "", nil
		shared.Objects = slices.Clone(p.Objects)
		for i := range shared.Objects {
			shared.Objects[i].Inline = nil
		}
	}
	return r.take(rememberedPoint{
		id: entry.ID, checksum: entry.Checksum, created: p.Created, native: p.Origin.NativePointID, location: p.Origin.Location, hops: p.Hops, like: like,
	})
}

// take takes a point in, and counts what it takes: what it shares with the last one of its machine is counted with that.
func (r *remembered) take(p rememberedPoint) *rememberedPoint {
	if r.last[p.like.machine] != p.like {
		r.last[p.like.machine] = p.like
		r.size += p.like.size()
	}
	return r.append(p)
}

// append takes a point in, and counts what it takes without what it shares with others.
func (r *remembered) append(p rememberedPoint) *rememberedPoint {
	r.size += int(unsafe.Sizeof(p)) + len(p.native) + len(p.location) + len(p.hops)*int(unsafe.Sizeof(backup.Hop{}))
	r.points = append(r.points, p)
	return &r.points[len(r.points)-1]
}

// size is what it takes in memory, in bytes, roughly.
func (l *likeness) size() int {
	size := int(unsafe.Sizeof(*l)) + len(l.point.Machine.Name) + len(l.point.Zone) + len(l.point.Origin.Source)
	for _, label := range l.point.Machine.Labels {
		size += int(unsafe.Sizeof(label)) + len(label)
	}
	for _, o := range l.point.Objects {
		size += int(unsafe.Sizeof(o)) + len(o.Name) + len(o.Format)
	}
	return size
}

// fits is true if a point has the same in common.
func (l *likeness) fits(p *backup.Point) bool {
	like := &l.point
	sameOrigin := like.Origin.Format == p.Origin.Format && like.Origin.Source == p.Origin.Source && like.Origin.SourceVerified == p.Origin.SourceVerified
	return sameOrigin && like.Zone == p.Zone && like.Machine.Key == p.Machine.Key && like.Machine.Name == p.Machine.Name &&
		slices.Equal(like.Machine.Labels, p.Machine.Labels) && slices.EqualFunc(like.Objects, p.Objects, func(a, b backup.Object) bool {
		return a.Role == b.Role && a.Name == b.Name && a.Size == b.Size && a.SectorSize == b.SectorSize && a.Format == b.Format && a.Shifting == b.Shifting
	})
}

// listed is the point as it is listed: without its validator and without what small objects hold, which are there when it is opened.
func (p *rememberedPoint) listed() backup.Point {
	point := p.like.point
	point.ID, point.Created, point.Hops = p.id, p.created, p.hops
	point.Origin.NativePointID, point.Origin.Location = p.native, p.location
	return point
}
