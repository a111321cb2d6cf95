// Package source reads restore points made by other programs.
//
// Each format has a folder of its own below this one and implements [Format]: it looks through a [Listing] of the
// source's files, claims those it knows, and returns points. The registry package puts the formats together.
//
// Sources are hostile input. A format reaches files only through [Root], which cannot leave the source's folder; it
// bounds every allocation before trusting a length; it returns errors that wrap the conditions of package backup, and
// never panics. Sources are read only, always.
package source

import (
	"context"
	"iter"

	"ferry/internal/backup"
)

// Format finds the restore points of one format.
type Format interface {
	// Name is the format's word in listings: "vzdump", "virtnbdbackup", "image", "ferry".
	Name() string
	// Scan claims the listing's files that are the format's, and returns their points, broken ones included.
	// It reads headers and names only: at most ScanLimit bytes a file. An error means that nothing can be said at
	// all; trouble with one file is a point in state broken with a reason.
	Scan(ctx context.Context, listing *Listing) ([]Point, error)
}

// ScanLimit is how many bytes of one file a Scan may read.
const ScanLimit = 1 << 20

// Point is a restore point that a source offers.
type Point struct {
	backup.Point
	// Opener opens the point for reading. It is nil exactly if the state is not complete.
	Opener Opener
	// Via is the id of the Ferry repository that the point is read from; empty for sources made by others. It becomes
	// the copy's last hop.
	Via string
	// Files identifies the files the point is read from, so that a file found broken is remembered until it changes.
	Files []FileIdentity
}

// Opener opens one point.
type Opener interface {
	// Open reads what it must to know the point's objects. Errors wrap the conditions of package backup.
	Open(ctx context.Context) (Content, error)
}

// Access says how an object can be read.
type Access uint8

// The ways to read an object.
const (
	// AccessInline: the content is in the object already.
	AccessInline Access = iota
	// AccessRandom: through Content.Disk, in any order and in parallel.
	AccessRandom
	// AccessOnePass: only through Content.Stream, together with all other such objects.
	AccessOnePass
)

// Object is an object of an opened point.
type Object struct {
	backup.Object
	Access Access
}

// Content is an opened restore point. Its methods may be used from several goroutines at once unless they say otherwise.
type Content interface {
	// Objects lists what the point holds. The caller refers to an object by its index here.
	Objects() []Object
	// Validator is recorded with the copy and handed back later as Base.Validator. It is deterministic: equal as
	// long as nothing about the point's files changed. At most 1 MiB.
	Validator() []byte
	// SourceVerified is true if reading everything also checks it against the source's own checksums of all content.
	SourceVerified() bool
	// Ancestors are the points this one could be an increment of, nearest first.
	Ancestors() []backup.PointID
	// Disk gives random access to object i. The disk is valid until the content is closed.
	Disk(i int) (Disk, error)
	// Stream reads all one-pass objects once, front to back, into sink. It may be called once, by one goroutine.
	// It returns only after everything the format can check has been checked (completeness, checksums).
	Stream(ctx context.Context, sink Sink) error
	// Revalidate is called after reading. It returns an error wrapping backup.ErrChanged or backup.ErrVanished if what
	// was read may not have been one consistent state.
	Revalidate(ctx context.Context) error
	Close() error
}

// Disk is an object that can be read at random.
type Disk interface {
	// ReadAt reads len(p) bytes from offset, as io.ReaderAt; it is safe for parallel use. Bytes beyond the source's
	// data but within the size are zeros.
	ReadAt(p []byte, offset int64) (int, error)
	// Size in bytes, final.
	Size() int64
	// Extents covers [0, Size) exactly, ascending and without overlap. With a base, ranges that the source proves to
	// be as in the base are ExtentUnchanged; where it cannot prove the relation no extent is unchanged. Ranges of the
	// object beyond the size that the base's object had are never unchanged.
	Extents(ctx context.Context, base *backup.Base) iter.Seq2[backup.Extent, error]
}

// Sink takes the content of one-pass objects, in whatever order the source has it. Its methods are called from one
// goroutine; they block while the copy is behind. Data is copied before Data returns. Each byte of an object is given
// at most once, as data or as zeros; what was never given is zero.
type Sink interface {
	// Data hands over bytes of object i. For shifting objects offsets ascend without gaps. Offset and, except at the
	// object's end, length are multiples of SinkGrain for other objects.
	Data(i int, offset int64, p []byte) error
	// Zero says that a range is zeros. Same alignment as Data; not used for shifting objects.
	Zero(i int, offset, length int64) error
	// End says that object i is whole, and its final size.
	End(i int, size int64) error
}

// SinkGrain is the alignment in bytes of what a sink is given, except for shifting objects and at an object's end.
const SinkGrain = 64 << 10
