// Package sourcetest makes restore points in memory for tests of what copies them: of both shapes, random access and
// one pass, with contents, validators, ancestors and trouble as the test says. It counts what is read.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// Object is an object of a point.
type Object struct {
	// Role is a disk's if empty.
	Role backup.Role
	Name string
	// Data is the content.
	Data []byte
	// Size replaces the length of Data, for objects that only OnStream gives.
	Size     int64
	Access   source.Access
	Shifting bool
	// HideSize keeps the size of a one-pass object unknown until its end.
	HideSize bool
	// Extents replaces what the source says of the disk, if not nil.
	Extents func(base *backup.Base) []backup.Extent
}

// Point is a restore point. Its fields may be changed while nobody reads it.
type Point struct {
	Machine backup.Machine
	// Native is the point's id in its own format.
	Native  string
	Created time.Time
	// Validator is Native if nil.
	Validator []byte
	Objects   []Object
	// Base is the point that this one is an increment of: what is equal is proven unchanged, by grains of Grain bytes.
	Base  *Point
	Grain int64
	// Reorder changes the order in which one-pass pieces are given, nil for front to back.
	Reorder func([]Piece)

	// OnRead is asked before each read of a disk; the number of bytes it lets through, and an error if not all.
	OnRead func(object int, offset int64, n int) (int, error)
	// OnPiece is asked before each piece that a stream gives.
	OnPiece func(Piece) error
	// OnStream replaces the whole stream.
	OnStream func(context.Context, source.Sink) error
	// AfterStream is what a stream ends with.
	AfterStream error
	// Revalidated is what the look after reading says.
	Revalidated error
	// OpenError is what opening says.
	OpenError error

	// Read counts bytes given, of disks and streams; Opened and Closed count contents.
	Read, Opened, Closed atomic.Int64
}

// Piece is a part of a one-pass object as it is given to the sink.
type Piece struct {
	Object int
	Offset int64
	Data   []byte
	// Zero says that it is given as zeros.
	Zero bool
}

// Machine makes a machine of the name.
func Machine(name string) backup.Machine {
	return backup.Machine{Key: backup.NewMachineKey(backup.PlatformImage, name, "", "fake"), Name: name}
}

// Described is the point as a listing has it.
func (p *Point) Described() source.Point {
	described := backup.Point{
		ID: p.ID(), Machine: p.Machine, Created: p.Created, Zone: "UTC", State: backup.StateComplete,
		Origin: backup.Origin{Format: "fake", Source: "fake", NativePointID: p.Native, Location: p.Native},
	}
	for _, o := range p.Objects {
		described.Objects = append(described.Objects, o.describe().Object)
	}
	return source.Point{Point: described, Opener: p}
}

// ID of the point.
func (p *Point) ID() backup.PointID { return backup.NewPointID(p.Machine.Key, p.Native) }

func (o Object) describe() source.Object {
	role := o.Role
	if role == "" {
		role = backup.RoleDisk
	}
	d := source.Object{Object: backup.Object{Role: role, Name: o.Name, Size: int64(len(o.Data)), Shifting: o.Shifting}, Access: o.Access}
	if o.Access == source.AccessInline {
		d.Inline = o.Data
	}
	if o.Size > 0 {
		d.Size = o.Size
	}
	if o.HideSize {
		d.Size = backup.UnknownSize
	}
	return d
}

func (p *Point) validator() []byte {
	if p.Validator != nil {
		return p.Validator
	}
	return []byte("validator of " + p.Native)
}

// Open opens the point.
func (p *Point) Open(context.Context) (source.Content, error) {
	if p.OpenError != nil {
		return nil, p.OpenError
	}
	p.Opened.Add(1)
	return &content{p}, nil
}

type content struct{ point *Point }

func (c *content) Objects() []source.Object {
	var objects []source.Object
	for _, o := range c.point.Objects {
		objects = append(objects, o.describe())
	}
	return objects
}

func (c *content) Validator() []byte    { return c.point.validator() }
func (c *content) SourceVerified() bool { return false }

func (c *content) Ancestors() []backup.PointID {
	var ids []backup.PointID
	for at := c.point.Base; at != nil; at = at.Base {
		ids = append(ids, at.ID())
	}
	return ids
}

func (c *content) Revalidate(context.Context) error { return c.point.Revalidated }

func (c *content) Close() error {
	c.point.Closed.Add(1)
	return nil
}

func (c *content) Disk(i int) (source.Disk, error) {
	if c.point.Objects[i].Access != source.AccessRandom {
		return nil, fmt.Errorf("object %d is not read at random", i)
	}
	return &disk{c.point, i}, nil
}

type disk struct {
	point  *Point
	object int
}

func (d *disk) Size() int64 { return int64(len(d.point.Objects[d.object].Data)) }

func (d *disk) ReadAt(p []byte, offset int64) (int, error) {
	if d.point.OnRead != nil {
		if n, err := d.point.OnRead(d.object, offset, len(p)); err != nil || n < len(p) {
			copy(p[:n], d.point.Objects[d.object].Data[offset:])
			return n, err
		}
	}
	n := copy(p, d.point.Objects[d.object].Data[offset:])
	d.point.Read.Add(int64(n))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) Extents(_ context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		for _, e := range d.extents(base) {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (d *disk) extents(base *backup.Base) []backup.Extent {
	o := d.point.Objects[d.object]
	if o.Extents != nil {
		return o.Extents(base)
	}
	old := d.point.proven(base, o.Name)
	grain := d.point.Grain
	if grain == 0 {
		grain = 1000 // of no block size
	}
	var extents []backup.Extent
	for at := int64(0); at < int64(len(o.Data)); at += grain {
		end := min(at+grain, int64(len(o.Data)))
		kind := backup.ExtentData
		switch part := o.Data[at:end]; {
		case end <= int64(len(old)) && bytes.Equal(part, old[at:end]):
			kind = backup.ExtentUnchanged
		case len(bytes.Trim(part, "\x00")) == 0:
			kind = backup.ExtentZero
		}
		if last := len(extents) - 1; last >= 0 && extents[last].Kind == kind {
			extents[last].Length = end - extents[last].Offset
			continue
		}
		extents = append(extents, backup.Extent{Offset: at, Length: end - at, Kind: kind})
	}
	return extents
}

// proven returns the content that the base's object is proven to have, or nil.
func (p *Point) proven(base *backup.Base, name string) []byte {
	for at := p.Base; base != nil && at != nil; at = at.Base {
		if at.ID() == base.ID && bytes.Equal(at.validator(), base.Validator) {
			for _, o := range at.Objects {
				if o.Name == name {
					return o.Data
				}
			}
		}
	}
	return nil
}

// Pieces cuts the one-pass objects into what a sink is given, front to back and interleaved.
func (p *Point) Pieces() []Piece {
	var pieces []Piece
	for at, more := int64(0), true; more; at += source.SinkGrain {
		more = false
		for i, o := range p.Objects {
			if o.Access != source.AccessOnePass || at >= int64(len(o.Data)) {
				continue
			}
			more = true
			part := o.Data[at:min(at+source.SinkGrain, int64(len(o.Data)))]
			zero := !o.Shifting && len(bytes.Trim(part, "\x00")) == 0
			pieces = append(pieces, Piece{Object: i, Offset: at, Data: part, Zero: zero})
		}
	}
	return pieces
}

func (c *content) Stream(ctx context.Context, sink source.Sink) error {
	if c.point.OnStream != nil {
		return c.point.OnStream(ctx, sink)
	}
	pieces := c.point.Pieces()
	if c.point.Reorder != nil {
		c.point.Reorder(pieces)
	}
	for _, piece := range pieces {
		if c.point.OnPiece != nil {
			if err := c.point.OnPiece(piece); err != nil {
				return err
			}
		}
		if err := c.give(sink, piece); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if c.point.AfterStream != nil {
		return c.point.AfterStream
	}
	for i, o := range c.point.Objects {
		if o.Access == source.AccessOnePass {
			if err := sink.End(i, int64(len(o.Data))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *content) give(sink source.Sink, piece Piece) error {
	if piece.Zero {
		return sink.Zero(piece.Object, piece.Offset, int64(len(piece.Data)))
	}
	c.point.Read.Add(int64(len(piece.Data)))
	return sink.Data(piece.Object, piece.Offset, bytes.Clone(piece.Data))
}

type format struct{ points []*Point }

func (f format) Name() string { return "fake" }

func (f format) Scan(context.Context, *source.Listing) ([]source.Point, error) {
	var points []source.Point
	for _, p := range f.points {
		points = append(points, p.Described())
	}
	return points, nil
}

// Open makes a source that offers the points.
func Open(t testing.TB, points ...*Point) *registry.Source {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry-source-")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := registry.Open(context.Background(), dir, registry.Options{Name: "fake", Formats: []source.Format{format{points}}})
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	return opened
}
