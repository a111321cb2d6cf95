package repo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// Damage is one thing that is not what was stored.
type Damage struct {
	// Machine (its name, or its id), Point and Object that cannot be restored whole because of it, with the range in
	// bytes. Empty for damage to a file that no point needs, or that has not been followed to points.
	Machine, Point, Object string
	Offset, Length         int64
	// File of the repository that is damaged.
	File   string
	Reason string
}

// VerifyProgress counts while a repository is verified; it may be read at any time.
type VerifyProgress struct {
	// TotalBytes of all packs, and how many were read.
	TotalBytes, Bytes atomic.Int64
}

// VerifyReport says what was verified and what is damaged.
type VerifyReport struct {
	Entries, Packs, Points int
	Frames, Bytes          int64
	// Damage to points, and to files. A file that is derived and mends itself is in Damage too: it is not what was written.
	Damage []Damage
	// Noted counts places that the log now has as damaged: what lies there is not relied on any more, and is stored again
	// by the next copy that comes across it.
	Noted int
	// Pending counts packs that no log entry names: of a copy that runs now or was interrupted. They are not damage.
	Pending  int
	Warnings []string
}

// Verify proves that everything stored is what was copied: every log entry, every byte of every pack, every block by
// its id, every point down to its last block. It needs no source.
//
//  1. The log is read from its first entry and its chain is checked.
//  2. Every pack is read whole: table, root against the log, each frame's checksum, each content's id.
//  3. Every point's file is read, and its trees are followed; a subtree that was good is not followed twice.
//  4. Derived files (index segments, checkpoints, partials) are compared with their checksums.
//  5. Damaged places in packs are noted in the log, where that can be written: nothing is deduplicated against them.
func (r *Repository) Verify(ctx context.Context, progress func(*VerifyProgress)) (*VerifyReport, error) {
	v := &verifier{
		repo: r, report: &VerifyReport{}, bad: map[badPlace]string{}, good: map[goodNode]bool{},
		salvaged: map[badPlace]format.ID{}, tables: map[format.Name]tableSum{}, sizes: map[format.Name]int64{},
	}
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	if progress != nil {
		progress(&v.progress)
	}
	for _, step := range []func(context.Context) error{v.verifyKeys, v.verifyLog, v.verifyPacks, v.verifyPoints, v.verifyDerived, v.noteDamage} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	v.report.Warnings = r.Warnings()
	slices.SortStableFunc(v.report.Damage, func(a, b Damage) int {
		return strings.Compare(a.Machine+a.Point+a.Object, b.Machine+b.Point+b.Object)
	})
	return v.report, nil
}

type badPlace struct {
	pack   format.Name
	offset uint32
}

// goodNode is a node with the length of what is below it: the same blocks can be good at one place and too short at
// another.
type goodNode struct {
	id     format.ID
	length int64
	block  int64 // size of blocks
}

type verifier struct {
	repo     *Repository
	progress VerifyProgress
	report   *VerifyReport
	head     commitlog.Head

	mu  sync.Mutex // guards bad and the report while packs are read
	bad map[badPlace]string
	// salvaged are ids of good frames in packs whose table is not.
	salvaged map[badPlace]format.ID
	// tables sums up the entries of each pack's good table, to compare index segments with.
	tables map[format.Name]tableSum
	// found is what the log should say of damage in packs.
	found []commitlog.Bad
	// sizes of packs, as the log has them.
	sizes map[format.Name]int64
	// good are nodes below which everything is good.
	good map[goodNode]bool
}

func (v *verifier) damage(d Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Damage = append(v.report.Damage, d)
}

// verifyLog reads all entries again, whatever checkpoints say.
func (v *verifier) verifyLog(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	end := r.state.Head
	r.mu.Unlock()
	for n := uint64(1); n <= end.N; n++ {
		name := commitlog.EntryName(n)
		raw, err := storage.ReadAll(ctx, r.store, name, commitlog.MaxSize)
		var head commitlog.Head
		if err == nil {
			var link format.ID
			_, link, head, err = commitlog.Decode(r.hasher, n, raw)
			if err == nil && link != v.head.Checksum && v.head.N == n-1 {
				err = fmt.Errorf("%w: it does not follow entry %d", ErrCorrupt, n-1)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			v.damage(Damage{File: name, Reason: err.Error()})
			continue
		}
		v.head = head
		v.report.Entries++
	}
	if v.head != end {
		v.damage(Damage{File: commitlog.EntryName(end.N), Reason: "the log does not end as it did when the repository was opened"})
	}
	return nil
}

func (v *verifier) verifyPacks(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	var packs []commitlog.Pack
	for _, p := range r.state.Packs {
		packs = append(packs, p)
		v.sizes[p.ID] = p.Size
		v.progress.TotalBytes.Add(p.Size)
	}
	r.mu.Unlock()
	slices.SortFunc(packs, func(a, b commitlog.Pack) int { return slices.Compare(a.ID[:], b.ID[:]) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range packs {
		group.Go(func() error { return v.verifyPack(ctx, p) })
	}
	return group.Wait()
}

// verifyPack reads a pack whole. Only trouble of the storage itself is an error; damage is noted.
func (v *verifier) verifyPack(ctx context.Context, p commitlog.Pack) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, name := v.repo, pack.ObjectName(p.ID)
	reader, err := r.store.Open(ctx, name)
	if err != nil {
		if !errors.Is(err, storage.ErrNotExist) {
			return err
		}
		if err := v.unlessGone(ctx, err, func(now *commitlog.State) bool { _, live := now.Packs[p.ID]; return live }); err == nil {
			return nil
		}
		v.damage(Damage{File: name, Reason: "the file is missing"})
		v.mu.Lock()
		v.bad[badPlace{p.ID, wholePack}] = "the file is missing"
		v.found = append(v.found, commitlog.Bad{Pack: p.ID, Length: p.Size})
		v.mu.Unlock()
		return nil
	}
	defer reader.Close()
	var plain []byte
	frames := 0
	noteBad := func(entry pack.Entry, err error) {
		v.damage(Damage{File: name, Offset: int64(entry.Offset), Length: int64(entry.FrameSize()), Reason: err.Error()})
		v.mu.Lock()
		v.bad[badPlace{p.ID, entry.Offset}] = err.Error()
		v.found = append(v.found, commitlog.Bad{Pack: p.ID, Offset: int64(entry.Offset), Length: int64(entry.FrameSize()), ID: entry.ID})
		v.mu.Unlock()
	}
	table, err := pack.Check(reader, reader.Size(), r.hasher, func(entry pack.Entry, frame []byte) error {
		frames++
		if !r.hasher.Locked() { // else its checksum is all that can be proven
			var err error
			if plain, err = r.decodeFrame(plain[:0], frame, entry.Kind, entry.ID); err != nil {
				noteBad(entry, err)
			}
		}
		v.progress.Bytes.Add(int64(len(frame)))
		return ctx.Err()
	}, noteBad)
	if err == nil {
		err = matchLog(table, reader.Size(), p)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.damage(Damage{File: name, Reason: err.Error()})
		v.salvage(reader, p)
	}
	v.mu.Lock()
	if err == nil {
		v.tables[p.ID] = sumOf(indexEntries(p.ID, table.Entries))
	}
	v.report.Packs++
	v.report.Frames += int64(frames)
	v.report.Bytes += reader.Size()
	v.mu.Unlock()
	return nil
}

// salvage notes which frames of a pack without a good table are good nevertheless.
func (v *verifier) salvage(reader storage.Reader, p commitlog.Pack) {
	found := pack.Scan(reader, reader.Size(), v.repo.hasher)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bad[badPlace{p.ID, wholePack}] = "its table is damaged"
	v.found = append(v.found, commitlog.Bad{Pack: p.ID, Length: p.Size})
	for _, entry := range found {
		v.salvaged[badPlace{p.ID, entry.Offset}] = entry.ID
	}
}

// wholePack marks a pack of which only what was salvaged is good.
const wholePack = ^uint32(0)

// contentID computes the id that a frame's content must have.
func (r *Repository) contentID(kind pack.Kind, plain []byte) format.ID {
	if kind == pack.KindNode {
		return tree.NodeID(r.hasher, plain)
	}
	return r.hasher.Sum(format.ContextBlock, plain)
}

// verifyDerived compares files that could be made again with their checksums, and counts packs that are pending.
func (v *verifier) verifyDerived(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	state := r.state.Payload()
	r.mu.Unlock()
	for _, segment := range state.Index {
		err := v.verifySegment(ctx, segment)
		err = v.unlessGone(ctx, err, func(now *commitlog.State) bool { _, live := now.Index[segment.ID]; return live })
		v.derived(segmentName(segment.ID), err)
	}
	for _, partial := range state.Partials {
		content, err := storage.ReadAll(ctx, r.store, partial.File, partialLimit)
		if err == nil {
			_, _, err = decodePartial(r.hasher, content, partial.Checksum)
		}
		err = v.unlessGone(ctx, err, func(now *commitlog.State) bool { return now.Partials[partial.Task] != nil })
		v.derived(partial.File, err)
	}
	for info, err := range r.store.List(ctx, "checkpoints/") {
		if err != nil {
			return err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			_, err := r.readCheckpoint(ctx, n)
			v.derived(info.Name, err)
		}
	}
	known := map[string]bool{}
	for _, p := range state.Packs {
		known[pack.ObjectName(p.ID)] = true
	}
	for info, err := range r.store.List(ctx, "packs/") {
		if err != nil {
			return err
		}
		if !known[info.Name] {
			v.report.Pending++
		}
	}
	return ctx.Err()
}

// verifySegment reads a segment from the repository, not from the cache, and compares it with its packs.
func (v *verifier) verifySegment(ctx context.Context, segment commitlog.Segment) error {
	opened, err := v.repo.openParts(segment)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.Complete(ctx); err != nil {
		return err
	}
	return v.compareTables(opened)
}

// unlessGone returns err, or nil if a file is missing because another writer has given it up since the log was read:
// live looks in the log as it is now.
func (v *verifier) unlessGone(ctx context.Context, err error, live func(*commitlog.State) bool) error {
	if !errors.Is(err, storage.ErrNotExist) || v.repo.Refresh(ctx) != nil {
		return err
	}
	v.repo.mu.Lock()
	defer v.repo.mu.Unlock()
	if live(v.repo.state) {
		return err
	}
	return nil
}

func (v *verifier) derived(name string, err error) {
	if err != nil {
		v.damage(Damage{File: name, Reason: err.Error() + "; it is derived, no point needs it"})
	}
}
