// Package mover copies one restore point from a source into a repository.
//
// The path of a disk's block, stage by stage:
//
//	extents (what may have changed)          random.go
//	  -> readers, in parallel                random.go     one-pass sources: assembler, onepass.go
//	  -> workers: zero? id, known?, encode   pipeline.go   streams that shift: cut by content, chunker.go
//	  -> open pack, sealed and synced        package repo
//	  -> tree, point, log                    object.go, package repo
//
// Between the stages are bounded queues of pooled buffers: memory does not depend on the size of a disk. What must be
// kept for each block until the tree is built is sorted in temporary files when it is much.
package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/processors"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/spill"
)

// Codec names how new blocks are compressed.
type Codec string

// The codecs. CodecAuto takes zstd for increments, which are small and kept long. For the first copy of a machine it
// measures: s2 while the processors are the bottleneck, zstd while they wait for the source or for the storage.
const (
	CodecAuto Codec = "auto"
	CodecNone Codec = "none"
	CodecS2   Codec = "s2"
	CodecZstd Codec = "zstd"
)

// Options of a mover.
type Options struct {
	Codec Codec
	// TempDir takes what does not fit in memory; empty means the system's folder for temporary files.
	TempDir string
	// Job claims the points; "manual" for copies by hand; empty for points that are there and keep their claims.
	Job string
	// Seeded tells of machines whose content the repository has under another id: theirs are increments from the first point
	// on; nil: of none.
	Seeded func(backup.MachineKey) bool
	// Flags are those of a point's claim, asked for when the point is handed over for commit; nil means none.
	Flags func(backup.Point) []string
	// AtOnce is how many points are copied at once at most: they share what one alone takes of memory. 0 is one.
	AtOnce int
	// Progress, if set, is given each task's counters when it begins.
	Progress func(source.Point, *Progress)
}

// Mover copies points into one repository through one ingest. As many as its options say may be copied at once: what they
// share of blocks is stored once.
type Mover struct {
	ingest  *repo.Ingest
	options Options
	workers int
	// processors are taken by those who encode, one each: copies at once wait for sources and for storage, and together compress
	// no more at a time than one does.
	processors chan struct{}
	// gather is how many bytes of one point are stored one behind the other while others are copied.
	gather int
	// buffers, patches and encoded are used again by all copies.
	buffers, patches, encoded sync.Pool
}

const (
	// gatherPoint is as much as fits, with a run more, into what a restore reads at once, which is 4 MiB. gatherAll is the most of all
	// points that are copied at once.
	gatherPoint = 3 << 20
	gatherAll   = 16 << 20
)

// New makes a mover.
func New(ingest *repo.Ingest, options Options) *Mover {
	if options.Codec == "" {
		options.Codec = CodecAuto
	}
	options.AtOnce = max(options.AtOnce, 1)
	workers := processors.Number()
	m := &Mover{
		ingest: ingest, options: options, workers: workers, processors: make(chan struct{}, workers),
		gather: min(gatherPoint, gatherAll/options.AtOnce),
	}
	size := int(max(runBytes, ingest.Repository().BlockSize(), maxChunk))
	m.buffers.New = func() any { buffer := make([]byte, 0, size); return &buffer }
	m.encoded.New = func() any { return repo.NewEncoded(int(max(runBytes/ingest.Repository().BlockSize(), 1)), size) }
	return m
}

// Result says what copying a point took.
type Result struct {
	// Base is the point that unchanged ranges were taken from; zero if none was.
	Base backup.PointID
	// Logical is the size of all objects; Read what was read of them; Unchanged what was taken over unread. In bytes.
	Logical, Read, Unchanged int64
	// NewBlocks and NewBytes were not in the repository before; Stored is what they take there, with their frames.
	NewBlocks, NewBytes, Stored int64
	// Whole counts those of the new blocks that went over from another repository as they were stored there.
	Whole int64
	// Resumed is how many bytes an earlier, interrupted copy had stored.
	Resumed int64
	Took    time.Duration
}

// Copy copies a point. It returns when everything of the point is handed to the ingest; the point exists when committed
// is called, which needs a Flush or Close of the ingest, from another goroutine.
//
// An error says what keeps this point from being copied; nothing of the point is visible then. If the source changed
// while it was read, the error wraps backup.ErrChanged or backup.ErrVanished. After ctx has ended Copy returns within
// answer.Patience even if the source does not answer.
func (m *Mover) Copy(ctx context.Context, p source.Point, committed func(Result, error)) error {
	return m.CopyFrom(ctx, &answer.Calls{}, p, committed)
}

// CopyFrom copies a point as Copy does, with the calls that read its source.
func (m *Mover) CopyFrom(ctx context.Context, calls *answer.Calls, p source.Point, committed func(Result, error)) error {
	if p.Opener == nil {
		return &backup.Error{Machine: p.Machine.Name, Point: p.ID.Short(), Offset: backup.NoOffset, Err: fmt.Errorf("%s: %s", p.State, p.Reason)}
	}
	content, err := source.OpenAnswering(ctx, calls, p.Opener)
	if err != nil {
		return place(p, "", backup.NoOffset, err)
	}
	defer content.Close()
	t := &task{
		mover: m, point: p, content: content, started: time.Now(),
	}
	err = t.run(ctx)
	if err != nil {
		// What was read while the source changed says nothing about it. That the target or the temporary folder cannot be
		// written to has nothing to do with it.
		if m.ingest.Failed() == nil && !errors.Is(err, spill.ErrTemporary) && ctx.Err() == nil {
			if changed := content.Revalidate(ctx); changed != nil {
				err = changed
			}
		}
		return place(p, "", backup.NoOffset, err)
	}
	if err := content.Revalidate(ctx); err != nil {
		return place(p, "", backup.NoOffset, err)
	}
	stored := t.finished()
	if err := t.sameContent(ctx, stored); err != nil {
		return place(p, "", backup.NoOffset, err)
	}
	result := t.result()
	claim := repo.Claim{Job: m.options.Job}
	if m.options.Flags != nil {
		claim.Flags = m.options.Flags(stored.Point)
	}
	err = m.ingest.CommitPoint(stored, claim, t.record, func(err error) {
		if err != nil {
			err = place(p, "", backup.NoOffset, err)
		}
		committed(result, err)
	})
	if err != nil {
		return place(p, "", backup.NoOffset, err)
	}
	return nil
}

// sameContent returns an error if the repository has the point already, with other content: a point that is copied again,
// because it is damaged, must be what it was. What was cut otherwise cannot be compared.
func (t *task) sameContent(ctx context.Context, stored *repo.Point) error {
	repository := t.mover.ingest.Repository()
	if !repository.Has(stored.ID) {
		return nil
	}
	there, err := repository.ReadPoint(ctx, stored.ID)
	if err != nil {
		return ctx.Err() // its own file is lost
	}
	for i, object := range stored.Objects {
		for k, before := range there.Objects {
			a, b := stored.Roots[i], there.Roots[k]
			if before.Role != object.Role || before.Name != object.Name || a == nil || b == nil || a.Kind != b.Kind || a.BlockSize != b.BlockSize {
				continue
			}
			if *a != *b {
				return &backup.Error{
					Object: object.Name, Offset: backup.NoOffset, Err: errors.New("the source has other content than was stored under this point's id"),
					Hint: "what can be read of the stored point is kept; restore it with --skip-damaged",
				}
			}
			break
		}
	}
	return nil
}

// task is the copy of one point while it runs.
type task struct {
	mover    *Mover
	point    source.Point
	content  source.Content
	record   *repo.Task
	objects  []*object
	base     *repo.Point
	codec    *repo.Codec // nil: chosen run by run
	progress Progress
	started  time.Time

	read, unchanged, resumed           atomic.Int64
	newBlocks, newBytes, stored, whole atomic.Int64
}

// count counts a block that took so many bytes in the repository, or was there already.
func (t *task) count(plain int64, took int) {
	if took > 0 {
		t.newBlocks.Add(1)
		t.newBytes.Add(plain)
		t.stored.Add(int64(took))
	}
}

func (t *task) run(ctx context.Context) (err error) {
	if err := t.prepare(ctx); err != nil {
		return err
	}
	defer func() {
		for _, o := range t.objects {
			err = errors.Join(err, o.close())
		}
	}()
	if t.mover.options.Progress != nil {
		t.mover.options.Progress(t.point, &t.progress)
	}
	if err := t.move(ctx); err != nil {
		return err
	}
	for _, o := range t.objects {
		if err := o.build(ctx, t.mover.ingest); err != nil {
			return err
		}
	}
	return nil
}

// prepare lists the objects, finds a base, and takes up what an interrupted copy left.
func (t *task) prepare(ctx context.Context) error {
	ingest := t.mover.ingest
	repository := ingest.Repository()
	if err := t.chooseBase(ctx); err != nil {
		return err
	}
	t.chooseCodec()
	objects := t.content.Objects()
	shares := max(len(objects), 1) * t.mover.options.AtOnce
	for i, described := range objects {
		o := newObject(i, described, repository.BlockSize(), t.mover.options.TempDir, shares)
		if t.base != nil && described.Access == source.AccessRandom { // a stream gives all that is not zeros
			o.base = t.baseRoot(described.Object)
		}
		t.objects = append(t.objects, o)
		if described.Size > 0 {
			t.progress.Total.Add(described.Size)
		}
	}
	var err error
	t.record, err = ingest.BeginTask(ctx, t.point.ID, t.point.Machine.Key, t.content.Validator(), func(done repo.Done) error {
		if done.Object < 0 || done.Object >= len(t.objects) {
			return nil
		}
		o := t.objects[done.Object]
		if !o.resumable() {
			t.progress.again.Add(o.readsAgain(done))
			return nil
		}
		kept, err := o.resume(done)
		t.progress.Kept.Add(kept)
		return err
	})
	if err == nil {
		t.record.CountWritten(&t.progress.Kept)
	}
	if err == nil && t.base != nil {
		t.record.TakeOver(t.base)
	}
	return err
}

// chooseBase takes the nearest ancestor that the domain has. One that waits for its commit is committed now: its
// tree can be read only then.
func (t *task) chooseBase(ctx context.Context) error {
	ingest := t.mover.ingest
	domain, sealed := ingest.Domain()
	if sealed {
		return nil // all of it is read
	}
	// With damage about, all is read: what is damaged is stored again, and nothing damaged is taken over.
	if unhealed, err := ingest.Repository().Unhealed(ctx, domain); unhealed || err != nil {
		return err
	}
	for _, ancestor := range t.content.Ancestors() {
		if ingest.Waits(ancestor) {
			if err := ingest.Flush(ctx); err != nil {
				return err
			}
		}
		if !ingest.Repository().Has(ancestor) {
			continue
		}
		if point, err := ingest.Repository().ReadPoint(ctx, ancestor); err == nil && point.Domain == domain {
			t.base = point
			return nil
		}
	}
	return ctx.Err()
}

func (t *task) chooseCodec() {
	codec := repo.CodecNone
	switch t.mover.options.Codec {
	case CodecNone:
	case CodecS2:
		codec = repo.CodecS2
	case CodecZstd:
		codec = repo.CodecZstd
	case CodecAuto:
		key, seeded := t.point.Machine.Key, t.mover.options.Seeded
		if !t.mover.ingest.HasMachine(key) && (seeded == nil || !seeded(key)) {
			return
		}
		codec = repo.CodecZstd
	}
	t.codec = &codec
}

// finished is the point as it is stored.
func (t *task) finished() *repo.Point {
	p := t.point.Point
	p.State, p.Reason, p.Proven = backup.StateComplete, "", true
	p.Objects = nil
	if via := t.point.Via; via != "" { // the origin is another than this source, and stays
		p.Hops = append(slices.Clone(p.Hops), backup.Hop{RepositoryID: via, Time: t.started.UTC()})
		if from, is := t.native(); is {
			_, there := from.Stored()
			p.Origin = there.Origin // a listing leaves its validator out
		}
	} else {
		p.Origin.Validator = t.content.Validator()
		p.Origin.SourceVerified = t.content.SourceVerified()
	}
	stored := &repo.Point{Point: p}
	for _, o := range t.objects {
		stored.Objects = append(stored.Objects, o.Object.Object)
		stored.Roots = append(stored.Roots, o.root)
	}
	return stored
}

func (t *task) result() Result {
	r := Result{
		Read: t.read.Load(), Unchanged: t.unchanged.Load(), Resumed: t.resumed.Load(),
		NewBlocks: t.newBlocks.Load(), NewBytes: t.newBytes.Load(), Stored: t.stored.Load(), Whole: t.whole.Load(),
		Took: time.Since(t.started),
	}
	if t.base != nil && r.Unchanged > 0 {
		r.Base = t.base.ID
	}
	for _, o := range t.objects {
		r.Logical += max(o.Size, 0)
	}
	return r
}
