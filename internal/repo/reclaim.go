package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// ReclaimOptions of one run.
type ReclaimOptions struct {
	// DryRun plans and changes nothing.
	DryRun bool
	// MaxTime ends the run before its next step; 0: no limit. MaxBytes bounds what is read and written to move what is
	// live, in bytes; 0: no limit. What is left is done by the next run.
	MaxTime  time.Duration
	MaxBytes int64
	Policy   ReclaimPolicy
	// TempDir is for what does not fit in memory; empty: the system's.
	TempDir string
}

// Amount is a number of packs and other files, and what they take in bytes.
type Amount struct {
	Packs, Files int
	Bytes        int64
}

func (a *Amount) add(isPack bool, bytes int64) {
	if isPack {
		a.Packs++
	} else {
		a.Files++
	}
	a.Bytes += bytes
}

// ReclaimReport says what a run did and what is left.
type ReclaimReport struct {
	// Steps are what the plan says of packs.
	Steps []ReclaimStep
	// PointsRemoved counts points that nothing claimed or held any more, UnfinishedEnded unfinished copies that were given up.
	PointsRemoved, UnfinishedEnded int
	// GivenUp was condemned in this run: packs that nothing needs or that were moved, and garbage.
	GivenUp Amount
	// Garbage is the part of it that no log entry ever named, left by writers that were killed.
	Garbage Amount
	// Moved are packs whose live content was moved, Written those that it was moved to.
	Moved, Written Amount
	// Deleted gave its space back in this run.
	Deleted Amount
	// Waiting is condemned and not deleted yet. Until is when the grace of the last of it has passed, by the storage's clock.
	// NextRun is true if it has passed for all of it and a run has noted that, so that the next one deletes it.
	Waiting Amount
	Until   time.Time
	NextRun bool
	// Locked could not be deleted because the storage keeps it until LockedUntil at least.
	Locked      Amount
	LockedUntil time.Time
	// Frozen says why nothing was given up or deleted, Stopped why the run ended before all was done. Empty: it was not so.
	Frozen, Stopped string
	// Incomplete says what keeps a domain from being reclaimed.
	Incomplete []string
	// Use is what of the repository is live, as it was when the run began.
	Use RepositoryUse
}

// Reclaim gives back the space of what no point needs (docs/format.md section 14, docs/reclaim.md). Any number of writers
// and readers may work meanwhile. It may be killed at any moment: each step is one log entry, and the next run goes on.
//
//  1. Points that nothing claims or holds are removed; unfinished copies that are too old, or done, are ended.
//  2. Everything live is marked, and each pack learns what of it is live (mark.go, placing.go).
//  3. What was condemned long enough ago is deleted (retire.go).
//  4. Garbage is condemned; packs with much that is dead, with damage, or small ones are moved (repack.go); then dead packs
//     are condemned. What only packs have that were condemned before is stored again first (rescue.go).
//
// It refuses to act with an error wrapping backup.ErrDamaged if packs that the log names are missing, unless the log also
// says that nothing in them is relied on. Each write that a storage has no space for may use the reserve.
func (r *Repository) Reclaim(ctx context.Context, options ReclaimOptions) (*ReclaimReport, error) {
	if err := r.Writable(); err != nil && !options.DryRun {
		return nil, err
	}
	if err := errors.Join(r.Diverged(), r.Refresh(ctx)); err != nil {
		return nil, err
	}
	c := &reclaimer{
		repo: r, options: options, report: &ReclaimReport{}, run: format.RandomName(), started: r.env.now(),
		spared: map[format.Name]bool{}, rescued: map[format.Name]bool{}, others: map[format.Name]bool{},
	}
	if !options.DryRun {
		var release func()
		err := r.withReserve(ctx, func() (err error) { release, err = r.lease(ctx, c.run, "reclaim"); return err })
		if err != nil {
			return nil, err
		}
		defer release()
	}
	err := c.reclaim(ctx)
	return c.report, err
}

// reclaimer is one run.
type reclaimer struct {
	repo    *Repository
	options ReclaimOptions
	report  *ReclaimReport
	run     format.Name
	started time.Time
	// now is the storage's time when the run began.
	now time.Time
	// moved bytes that were read and written so far.
	moved int64

	listing *listing
	// state is the log's when the mark began, with what this run condemned since, and what it found damaged of condemned packs.
	state   *commitlog.State
	marker  *marker
	placing map[format.Name]placing
	// doomed are the packs that the plan gives up, spared those of them that live after all.
	doomed, spared map[format.Name]bool
	// rescued are the packs from which this run has stored something again: the next one deletes them, which has seen that it is there.
	rescued map[format.Name]bool
	// others are packs that hold what is damaged in a sealed domain that needs it.
	others map[format.Name]bool
}

var (
	// errStale: another program condemned packs or found damage since the mark, so that it may be wrong.
	errStale = errors.New("another program gave up packs, or found damage, meanwhile")
	errLate  = errors.New("there are new points")
	// errRot: this run found damage, with the same consequence.
	errRot = errors.New("damage was found in what was to be moved, and is noted")
)

func (c *reclaimer) reclaim(ctx context.Context) error {
	if err := c.readClock(ctx); err != nil {
		return err
	}
	if !c.options.DryRun && c.report.Frozen == "" {
		if err := c.removeUnclaimed(ctx); err != nil {
			return err
		}
	}
	if err := c.list(ctx); err != nil {
		return err
	}
	defer c.closeMarker()
	if err := c.markAll(ctx); err != nil {
		return err
	}
	c.plan()
	if err := c.keepLocked(ctx); err != nil {
		return err
	}
	// Giving up is for good, and holds end by the same clock that deletion waits for: a frozen run only tells.
	if c.options.DryRun || c.report.Frozen != "" {
		return c.retire(ctx)
	}
	// What gives space back at once comes before what needs some, but for what is about to go for good.
	for _, step := range []func(context.Context) error{c.rescue, c.retire, c.condemnGarbage, c.giveUp, c.retire, c.remember} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// closeMarker removes the mark's temporary files. They have no names: what is left goes with the process.
func (c *reclaimer) closeMarker() {
	if c.marker != nil {
		_ = c.marker.close()
	}
}

// giveUp moves what is live, and condemns what is dead, unless something makes the mark worthless. What is moved is read first:
// if it turns out damaged, other copies of it matter, which the plan takes for dead.
func (c *reclaimer) giveUp(ctx context.Context) error {
	err := c.repackAll(ctx)
	full := errors.Is(err, storage.ErrFull)
	if err == nil || full {
		err = c.condemnDead(ctx)
	}
	switch {
	case errors.Is(err, errStale), errors.Is(err, errRot), errors.Is(err, ErrCondemned): // or another run took for garbage what this one has just moved
		c.stop(err.Error() + ": the next run goes on")
		return nil
	case errors.Is(err, errLies):
		c.stop(err.Error() + ": ferry verify --heal makes it anew")
		return nil
	case errors.Is(err, storage.ErrFull), err == nil && full:
		c.stop("what is needed could not be moved, because the storage is full: delete first, by running it again")
		return nil
	}
	return err
}

// reclaimed are the folders whose files reclaim looks after.
var reclaimed = []string{"packs/", "points/", "partials/", "index/"}

// list lists the files, and only then reads the log on: a file that it does not name was not named when it was listed. It
// returns an error if packs are missing: that is damage, or a storage that is not whole, and no time to delete anything. A pack
// that a verification noted as damaged as a whole may be missing: it goes like any other once all that is needed of it has a
// good copy elsewhere.
func (c *reclaimer) list(ctx context.Context) error {
	r := c.repo
	c.listing = newListing(r.packCount())
	for _, folder := range reclaimed {
		for info, err := range r.store.List(ctx, folder) {
			if err != nil {
				return fmt.Errorf("listing %s: %w", folder, err)
			}
			if !info.NotFile { // Ferry made none: it is left, and a pack in whose place it lies is missing
				c.listing.add(info)
			}
		}
	}
	c.listing.done()
	if err := r.Refresh(ctx); err != nil {
		return err
	}
	c.state = r.snapshot()
	var missing []string
	unlisted := 0
	damaged := damagedFrames(c.state)
	for id := range c.state.Packs.All() {
		if _, listed := c.listing.pack(id); listed || c.state.Condemned[id] || damaged[index.Frame{Pack: id, Offset: index.WholePack}] {
			continue
		}
		unlisted++
		name := pack.ObjectName(id)
		info, err := r.store.Stat(ctx, name) // listings may lag
		switch {
		case err == nil:
			c.listing.addUnlisted(info)
		case storage.Missing(err):
			if err := r.Refresh(ctx); err != nil {
				return err
			}
			if !r.isLive(id) {
				continue // condemned and deleted just now
			}
			missing = append(missing, name)
		default:
			return err
		}
		if len(missing) > maxIncomplete {
			break
		}
	}
	if len(missing) > 0 {
		return &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w: %s is missing, and perhaps more: nothing is given up while packs that the log names are not there", r.store.Location(), backup.ErrDamaged, missing[0]),
			Hint: "is all of the storage there? if it is, ferry verify " + r.store.Location() + " --heal notes what is lost, and the next reclaim goes on",
		}
	}
	if unlisted > 0 && unlisted > c.state.Packs.Len()/2 {
		c.freeze("the storage's listing lacks %d of %d packs that are there: it is not to be relied on", unlisted, c.state.Packs.Len())
	}
	return nil
}

// markAll marks the state and places what is live.
func (c *reclaimer) markAll(ctx context.Context) error {
	c.marker = newMarker(c.repo, c.options.TempDir)
	c.placing = map[format.Name]placing{}
	// What the index does not find counts as dead, so no page of it is believed that was not proven in this run.
	if err := c.repo.settleAnew(ctx); err != nil {
		return err
	}
	if err := c.marker.mark(ctx, c.state); err != nil {
		return err
	}
	if err := c.keepForSealed(ctx); err != nil {
		return err
	}
	for name, d := range c.marker.domains {
		if !d.sealed {
			found, err := c.marker.placeProven(ctx, name, c.state)
			if err != nil {
				return err
			}
			c.placing[name] = found
		}
		for _, reason := range d.incomplete {
			if !slices.Contains(c.report.Incomplete, reason) {
				c.report.Incomplete = append(c.report.Incomplete, reason)
			}
		}
	}
	slices.Sort(c.report.Incomplete)
	return nil
}

// useOf says what is live of a pack; nil if that was not asked: its domain is sealed, or unknown.
func (c *reclaimer) useOf(p commitlog.Pack) *packUse {
	found := c.placing[p.Domain]
	return found.of(p.ID)
}

// stop notes why the run does not do all of its work: the first reason, which others follow from.
func (c *reclaimer) stop(reason string) {
	if c.report.Stopped == "" {
		c.report.Stopped = reason
	}
}

// outOfTime is true, and noted, once the run's time is used up.
func (c *reclaimer) outOfTime() bool {
	if c.options.MaxTime > 0 && c.repo.env.now().Sub(c.started) >= c.options.MaxTime {
		c.stop("the time given is used up")
		return true
	}
	return false
}

// mayMove is true if the time and the bytes given allow to move frames of so many bytes. If not, that is noted.
func (c *reclaimer) mayMove(live int64) bool {
	if c.options.MaxBytes > 0 && c.moved+2*live > c.options.MaxBytes {
		c.stop("the bytes given are used up")
		return false
	}
	return !c.outOfTime()
}

// commit is the repository's, with the reserve.
func (c *reclaimer) commit(ctx context.Context, payload *commitlog.Payload, check func(*commitlog.State) error) error {
	return c.repo.withReserve(ctx, func() error { return c.repo.commit(ctx, payload, check) })
}

// storageTime is the repository's, with the reserve.
func (c *reclaimer) storageTime(ctx context.Context) (now time.Time, err error) {
	err = c.repo.withReserve(ctx, func() error { now, err = c.repo.storageTime(ctx); return err })
	return now, err
}
