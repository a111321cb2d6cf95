package simulate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// What stands for the sources and links of a world when it is lived by the real scheduler: points made up as they are read, and a
// link that takes the time which their bytes take. A block of 4 KiB stands for 150 MB.
const (
	blockSize = 4096
	apart     = 2 // of so many blocks one has content: each is read by itself
	standsFor = 150_000_000
	linkGrain = 2 * time.Second // in such pieces a link shares what it carries
)

// place is the source of a job and the link behind it.
type place struct {
	job      Job
	now      func() time.Time // by the server's clock
	machines []*sourceMachine
	told     func(Event)

	mu     sync.Mutex
	moving map[*moved]int // contents that are open
	lists  int
}

// sourceMachine is a machine of a source.
type sourceMachine struct {
	Machine
	key    backup.Machine
	blocks int64
	sums   []int64 // blocks written up to each point
	ids    []backup.PointID
	placed map[backup.PointID]int
	shown  []source.Point // as a source shows them, if complete
	from   int            // the points before this one are gone

	mu sync.Mutex
	// there are the blocks that the link has carried, by the number of the write that made them.
	there map[int64]bool
	begun map[int]bool
}

func newPlace(j Job, now func() time.Time, told func(Event)) *place {
	p := &place{job: j, now: now, told: told, moving: map[*moved]int{}}
	for _, m := range j.Machines {
		s := &sourceMachine{
			Machine: m, blocks: m.Whole / standsFor, placed: map[backup.PointID]int{}, there: map[int64]bool{}, begun: map[int]bool{},
			key: backup.Machine{Key: backup.NewMachineKey(backup.PlatformImage, m.Name, "", "world"), Name: m.Name},
		}
		var sum int64
		for place, point := range m.Points {
			sum += point.Changed / standsFor
			id := backup.NewPointID(s.key.Key, native(m, place))
			s.sums, s.ids, s.placed[id] = append(s.sums, sum), append(s.ids, id), place
			s.shown = append(s.shown, source.Point{Point: backup.Point{
				ID: id, Machine: s.key, Created: point.Created, Zone: "UTC", State: backup.StateComplete,
				Origin:  backup.Origin{Format: "world", Source: "world", NativePointID: native(m, place), Location: "/"},
				Objects: []backup.Object{s.object()},
			}})
		}
		p.machines = append(p.machines, s)
	}
	return p
}

func native(m Machine, place int) string { return fmt.Sprintf("%s %d", m.Name, place) }

// Name is the format's.
func (p *place) Name() string { return "world" }

// open lists the source.
func (p *place) open(ctx context.Context) (*registry.Source, error) {
	if p.job.offline(time.Now()) {
		return nil, errors.New("no route to host")
	}
	return registry.Open(ctx, "world of "+p.job.Name, registry.Options{Elsewhere: true, Formats: []source.Format{p}})
}

// Scan shows the points that there are now.
func (p *place) Scan(context.Context, *source.Listing) ([]source.Point, error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists++
	var points []source.Point
	for _, m := range p.machines {
		for m.from < len(m.Points) && !m.Points[m.from].Gone.IsZero() && !m.Points[m.from].Gone.After(now) {
			m.from++
		}
		for n := m.from; n < len(m.Points) && !m.Points[n].Created.After(now); n++ {
			at, ok := m.Points[n].at(now)
			if !ok {
				continue
			}
			points = append(points, m.shown[n])
			switch s := &points[len(points)-1]; at.State {
			case backup.StateComplete:
				s.Opener = opener{p, m, n}
			case backup.StateLocked:
				s.State, s.Reason, s.Files = at.State, "it is being written", []source.FileIdentity{{ModTime: at.Grew}}
			case backup.StateBroken:
				s.State, s.Reason = at.State, "it ends in the middle"
			}
		}
	}
	return points, nil
}

func (m *sourceMachine) object() backup.Object {
	return backup.Object{Role: backup.RoleDisk, Name: "vda", Size: m.blocks * apart * blockSize}
}

type opener struct {
	*place
	m *sourceMachine
	n int
}

// Open begins a copy.
func (o opener) Open(context.Context) (source.Content, error) {
	o.m.mu.Lock()
	kind := Copies
	if o.m.begun[o.n] {
		kind = GoesOn
	}
	o.m.begun[o.n] = true
	o.m.mu.Unlock()
	o.told(Event{At: time.Now(), Job: o.job.Name, Machine: o.m.Name, Kind: kind, Point: o.n})
	c := &moved{opener: o, reading: make(chan struct{}, 1), left: make(chan struct{})}
	o.mu.Lock()
	o.moving[c] = 1
	o.mu.Unlock()
	return c, nil
}

// moved is a point that is being read.
type moved struct {
	opener
	reading chan struct{} // taken by who reads
	left    chan struct{} // closed with it
}

func (c *moved) Objects() []source.Object {
	return []source.Object{{Object: c.m.object(), Access: source.AccessRandom}}
}
func (c *moved) Validator() []byte    { return []byte(c.m.ids[c.n].String()) }
func (c *moved) SourceVerified() bool { return false }
func (c *moved) Ancestors() []backup.PointID {
	ids := slices.Clone(c.m.ids[max(0, c.n-2000):c.n])
	slices.Reverse(ids)
	return ids
}
func (c *moved) Disk(int) (source.Disk, error)             { return c, nil }
func (c *moved) Stream(context.Context, source.Sink) error { return errors.New("nothing streams") }

// Revalidate notices that the source has lost the point meanwhile.
func (c *moved) Revalidate(context.Context) error { return c.lost() }

func (c *moved) lost() error {
	if gone := c.m.Points[c.n].Gone; !gone.IsZero() && !time.Now().Before(gone) {
		return backup.ErrVanished
	}
	return nil
}

func (c *moved) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.moving, c)
	close(c.left)
	return nil
}

func (c *moved) Size() int64 { return c.m.blocks * apart * blockSize }

// writeOf is the number of the last write to a block, of those that a point has; below zero is what was there before all.
func (c *moved) writeOf(block int64) int64 {
	last := c.m.sums[c.n] - 1
	return last - ((last-block)%c.m.blocks+c.m.blocks)%c.m.blocks
}

// Extents are what was written since the base.
func (c *moved) Extents(_ context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	since := int64(math.MinInt64)
	if base != nil {
		if n, known := c.m.placed[base.ID]; known && string(base.Validator) == base.ID.String() {
			since = c.m.sums[n]
		}
	}
	return func(yield func(backup.Extent, error) bool) {
		for block := range c.m.blocks * apart {
			kind := backup.ExtentData
			switch {
			case block%apart != 0:
				kind = backup.ExtentZero
			case c.writeOf(block/apart) < since:
				kind = backup.ExtentUnchanged
			}
			if !yield(backup.Extent{Offset: block * blockSize, Length: blockSize, Kind: kind}, nil) {
				return
			}
		}
	}
}

// ReadAt makes up what is read, when the link has carried it. What it has carried before is known at the other end.
func (c *moved) ReadAt(p []byte, offset int64) (int, error) {
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-c.left:
		return 0, errors.New("the copy has ended")
	}
	clear(p)
	for n := int64(0); n < int64(len(p)); {
		block := (offset + n) / blockSize
		part := p[n:min(int64(len(p)), (block+1)*blockSize-offset)]
		if block%apart != 0 {
			n += int64(len(part))
			continue
		}
		write := c.writeOf(block / apart)
		if err := c.carry(write); err != nil {
			return int(n), err
		}
		for i := range part {
			part[i] = byte(uint64(write+c.m.blocks)*0x9e3779b97f4a7c15>>(8*(i%8))) ^ byte(i>>3)
		}
		if at := (offset + n) % blockSize; at == 0 && len(part) >= 16 {
			binary.LittleEndian.PutUint64(part, uint64(write))
			copy(part[8:], c.m.Name)
		}
		n += int64(len(part))
	}
	return len(p), nil
}

// carry takes as long as the link takes for a block.
func (c *moved) carry(write int64) error {
	c.m.mu.Lock()
	there := c.m.there[write]
	c.m.mu.Unlock()
	if there {
		return c.lost()
	}
	for left := float64(standsFor); left >= 1; {
		select {
		case <-c.left:
			return errors.New("the copy has ended")
		default:
		}
		if err := c.lost(); err != nil {
			return err
		}
		c.mu.Lock()
		sharing := len(c.moving)
		c.mu.Unlock()
		rate := c.job.carries(time.Now())
		if limit := c.job.Bandwidth.LimitAt(c.now()); limit > 0 {
			rate = min(rate, limit)
		}
		each := float64(rate) / float64(sharing)
		takes := min(linkGrain, time.Duration(math.Ceil(left/each*1e3))*time.Millisecond)
		time.Sleep(takes)
		left -= each * takes.Seconds()
	}
	c.m.mu.Lock()
	c.m.there[write] = true
	c.m.mu.Unlock()
	return nil
}
