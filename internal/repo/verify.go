package repo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// Level says how deep a verification looks. Each does what the one before does.
type Level uint8

// The levels.
const (
	// LevelStored compares every stored byte with a checksum: it needs no key.
	LevelStored Level = 1
	// LevelBlocks decodes every block and node and compares its content with its id.
	LevelBlocks Level = 2
	// LevelPoints follows every point's trees down to the last block.
	LevelPoints Level = 3
)

// String returns the level's name.
func (l Level) String() string {
	switch l {
	case LevelStored:
		return "stored"
	case LevelBlocks:
		return "blocks"
	case LevelPoints:
		return "points"
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// ParseLevel reads a level's name.
func ParseLevel(name string) (Level, error) {
	for _, level := range []Level{LevelStored, LevelBlocks, LevelPoints} {
		if level.String() == name {
			return level, nil
		}
	}
	return 0, fmt.Errorf("%q is none of stored, blocks and points", name)
}

// VerifyOptions say what is verified. The zero value verifies everything, whatever it takes.
type VerifyOptions struct {
	// Level, LevelPoints if zero.
	Level Level
	// MaxTime and MaxBytes end the reading of packs, in bytes of packs; 0: no limit. At least one pack is read.
	MaxTime  time.Duration
	MaxBytes int64
	// NotSince passes over packs that were proven at that level less long ago; 0: none but those of a verification that
	// was cut short and is gone on with.
	NotSince time.Duration
	// Progress, if set, is given the counters when it begins.
	Progress func(*VerifyProgress)
}

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

// Place says in words what is damaged: a file of the repository, or where in it, or where in which object of a point. Names are encoded.
func (d Damage) Place() string {
	if d.Machine == "" {
		if d.Length == 0 {
			return "file " + d.File
		}
		return fmt.Sprintf("file %s, bytes %d to %d", d.File, d.Offset, d.Offset+d.Length-1)
	}
	point := d.Point
	if id, err := backup.ParsePointID(point); err == nil {
		point = id.Short()
	}
	place := "machine " + backup.SafeText(backup.EncodeName(d.Machine)) + ", point " + point
	if d.Object == "" {
		return place + ", file " + d.File
	}
	return fmt.Sprintf("%s, %s, bytes %d to %d", place, backup.SafeText(backup.EncodeName(d.Object)), d.Offset, d.Offset+d.Length-1)
}

// VerifyProgress counts while a repository is verified; it may be read at any time.
type VerifyProgress struct {
	// TotalBytes of the packs that are to be read, and how many were.
	TotalBytes, Bytes atomic.Int64
}

// VerifyReport says what was verified and what is damaged.
type VerifyReport struct {
	Level Level
	// Entries of the log, packs that were read, points whose files were read.
	Entries, Packs, Points int
	Frames, Bytes          int64
	// Damage to points, and to files. A file that is derived and mends itself is in Damage too: it is not what was written.
	Damage []Damage
	// DamagedPoints counts the points that cannot be restored whole, as the log has it now.
	DamagedPoints int
	// Healed are damaged places in packs that do no harm: all that points need of them has another, good copy.
	Healed []Damage
	// Remade are derived files that were damaged or missing and are made again.
	Remade []string
	// Noted counts places that the log now has as damaged: what lies there is not relied on any more, and is stored again
	// by the next copy that comes across it.
	Noted int
	// Pending counts packs that no log entry names: of a copy that runs now or was interrupted. They are not damage.
	Pending int
	// Fresh packs were passed over because they were proven not long ago; Unread ones are left for the next time, because
	// the budget is used up. FreshBytes and UnreadBytes are what they take. Begun is when the verification began that this one goes
	// on with; zero if it is a new one.
	Fresh, Unread           int
	FreshBytes, UnreadBytes int64
	Begun                   time.Time
	// Cut is true if something was left for the next time.
	Cut      bool
	Warnings []string
}

// Verify proves that everything stored is what was copied, down to the last block of every point. It needs no source.
func (r *Repository) Verify(ctx context.Context, progress func(*VerifyProgress)) (*VerifyReport, error) {
	return r.VerifyWith(ctx, VerifyOptions{Progress: progress})
}

// VerifyWith verifies to a level, within a budget. Of a locked repository the stored bytes of blocks are proven at any
// level; the trees can be followed without the key.
//
// What was proven when is kept below marks/, so that an interrupted
// verification goes on where it was, and the oldest proof is renewed first.
//
//  1. Key files and what jobs have left are read. The log is read from its first entry and its chain is checked.
//  2. Packs are read whole, those first whose proof is oldest: table, root against the log, each frame's checksum, and
//     from LevelBlocks on each content's id. Parity files are compared with their checksums, and made again.
//  3. Derived files (index segments, checkpoints, partials) are compared with their checksums.
//  4. Damaged places in packs are noted in the log, where that can be written: nothing is deduplicated against them.
//  5. Every point's file is read. At LevelPoints, or where anything is damaged, its trees are followed; a subtree that was
//     good is not followed twice. Points that are damaged are noted in the log.
//
// Memory is bounded: see goodNodes and badPerPack for what is kept of trees and of damage.
func (r *Repository) VerifyWith(ctx context.Context, options VerifyOptions) (*VerifyReport, error) {
	v, err := r.newVerifier(ctx, options)
	if err != nil {
		return nil, err
	}
	r.checkRetention(ctx)
	err = v.run(ctx)
	v.proofs.save(context.WithoutCancel(ctx), r, true)
	if err != nil {
		return nil, err
	}
	v.report.Warnings = r.Warnings()
	slices.SortStableFunc(v.report.Damage, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.Point, b.Point), cmp.Compare(a.Object, b.Object))
	})
	return v.report, nil
}

type verifier struct {
	repo     *Repository
	options  VerifyOptions
	progress VerifyProgress
	report   *VerifyReport
	head     commitlog.Head
	started  time.Time
	// level to which packs are read: without the key LevelStored is all that can be proven of blocks.
	level  Level
	proofs *proofs
	chosen []commitlog.Pack

	settling sync.Mutex // guards settled: how far the index was proven, because something was not found
	settled  proofOfIndex

	mu sync.Mutex // guards what follows, and the report while packs are read
	// bad are damaged frames, and with wholePack as offset packs that are not relied on as a whole. Those of packs that
	// are not read this time are as the log has them.
	bad map[badPlace]string
	// places are damaged places in packs, to be told apart into harmful and healed when the trees were followed.
	places []place
	// touched are bad places that something needs.
	touched map[badPlace]bool
	// unplaced is true if something is needed that is in no pack at all.
	unplaced bool
	// unopened are key files of data keys that this one lacks.
	unopened []keyring.File
	// segments sums up the tables of good packs for each index segment that covers them.
	segments map[format.Name]*segmentSum
	// covers is which packs the segments cover.
	covers map[format.Name][]format.Name
	// read are the packs that were read.
	read map[format.Name]bool
	// noted are the packs that the log had damage in when it began.
	noted map[format.Name]bool
}

type badPlace struct {
	pack   format.Name
	offset uint32
}

// wholePack marks a pack that is not relied on as a whole: a frame of it is good only if reading it says so.
const wholePack = ^uint32(0)

// place is a damaged place in a pack. The id is that of a frame's content, zero for a whole pack.
type place struct {
	at     badPlace
	id     format.ID
	damage Damage
}

func (r *Repository) newVerifier(ctx context.Context, options VerifyOptions) (*verifier, error) {
	if options.Level == 0 {
		options.Level = LevelPoints
	}
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	v := &verifier{
		repo: r, options: options, report: &VerifyReport{Level: options.Level}, started: r.env.now(), bad: map[badPlace]string{},
		touched: map[badPlace]bool{}, segments: map[format.Name]*segmentSum{}, read: map[format.Name]bool{},
		noted: map[format.Name]bool{},
	}
	if v.level = options.Level; r.Locked() {
		v.level = LevelStored
	}
	v.proofs = r.readProofs(ctx)
	r.mu.Lock()
	v.covers = coverage(r.state.Index)
	for bad := range r.state.Bad {
		v.noted[bad.Pack] = true
	}
	r.mu.Unlock()
	v.choose()
	if options.Progress != nil {
		options.Progress(&v.progress)
	}
	return v, ctx.Err()
}

func (v *verifier) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{v.verifyKeys, v.verifyLog, v.verifyJobs, v.verifyPacks} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if !v.report.Cut {
		if err := v.verifyDerived(ctx); err != nil {
			return err
		}
	}
	if err := v.noteBad(ctx); err != nil {
		return err
	}
	if err := v.verifyPoints(ctx); err != nil {
		return err
	}
	if !v.report.Cut {
		v.proofs.endRound()
	}
	return nil
}

func (v *verifier) damage(d Damage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Damage = append(v.report.Damage, d)
}

// outOfTime is true when no more is to be begun.
func (v *verifier) outOfTime() bool {
	return v.options.MaxTime > 0 && v.repo.env.now().Sub(v.started) >= v.options.MaxTime
}

// verifyLog reads all entries again, whatever checkpoints say.
func (v *verifier) verifyLog(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	end := r.state.Head
	r.mu.Unlock()
	var keyless []uint64
	for n := uint64(1); n <= end.N; n++ {
		name := commitlog.EntryName(n)
		raw, err := storage.ReadAll(ctx, r.store, name, commitlog.MaxSize)
		var head commitlog.Head
		if err == nil {
			var link format.ID
			var payload commitlog.Payload
			payload, link, head, err = commitlog.Decode(r.hasher, n, raw)
			if payload.Keyless {
				keyless = append(keyless, n)
			}
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
	r.knowKeyless(keyless, end.N)
	if v.head != end {
		v.damage(Damage{File: commitlog.EntryName(end.N), Reason: "the log does not end as it did when the repository was opened"})
	}
	return nil
}

// gone is true if err says that a file is missing, and another writer has given it up since the log was read: live looks in the log
// as it is now. The error is that of reading the log: then nobody knows.
func (v *verifier) gone(ctx context.Context, err error, live func(*commitlog.State) bool) (bool, error) {
	if !storage.Missing(err) {
		return false, nil
	}
	if err := v.repo.Refresh(ctx); err != nil {
		return false, err
	}
	v.repo.mu.Lock()
	defer v.repo.mu.Unlock()
	return !live(v.repo.state), nil
}

// unlessGone is what is wrong with a file that read says is missing or damaged: nothing if it is gone. The second error is gone's.
func (v *verifier) unlessGone(ctx context.Context, read error, live func(*commitlog.State) bool) (wrong, err error) {
	gone, err := v.gone(ctx, read, live)
	if gone || err != nil {
		return nil, err
	}
	return read, nil
}
