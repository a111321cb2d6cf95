// Package job carries plans out and reports what became of every step.
package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
)

// Outcome says what became of a step.
type Outcome string

// The outcomes.
const (
	OutcomeCopied Outcome = "copied"
	// OutcomeNothing: there was nothing to do; the step's action says why.
	OutcomeNothing Outcome = "nothing to do"
	OutcomeFailed  Outcome = "failed"
	// OutcomeGone: the point had vanished from the source when it was to be read. That is no failure: another one is taken.
	OutcomeGone Outcome = "gone"
	// OutcomeNotReached: the copy was ended before it came to this step.
	OutcomeNotReached Outcome = "not reached"
)

// StepReport is a step and what became of it.
type StepReport struct {
	plan.Step
	Outcome Outcome
	Result  mover.Result
	// Err says why the step failed.
	Err error
}

// Report of a copy.
type Report struct {
	Steps []StepReport
	// SourceBytes were read from the source, headers included.
	SourceBytes int64
	// New is what blocks hold that were not in the repository, Stored what they take there, Nodes what new tree nodes
	// take. In bytes, and only what the repository keeps: of a copy that has failed that may be nothing.
	New, Stored, Nodes int64
	Packs              int64
	Took               time.Duration
	Warnings           []string
}

// Failed counts steps that failed, and those whose plan says that not copying them is a failure.
func (r Report) Failed() int {
	failed := 0
	for _, step := range r.Steps {
		if step.Outcome == OutcomeFailed || step.Failure {
			failed++
		}
	}
	return failed
}

// Copied counts steps that copied a point.
func (r Report) Copied() int {
	return r.count(func(s StepReport) bool { return s.Outcome == OutcomeCopied })
}

// There counts points that the target had already.
func (r Report) There() int {
	return r.count(func(s StepReport) bool { return s.Action == plan.ActionAlreadyThere })
}

// Kept says what a copy that has failed leaves in the repository.
func (r Report) Kept() string {
	kept := r.Stored + r.Nodes
	if kept == 0 {
		return "no pack was finished, so nothing new is kept"
	}
	return shown(kept) + " are kept, in packs that were finished, and will not be stored again"
}

func (r Report) count(is func(StepReport) bool) int {
	n := 0
	for _, step := range r.Steps {
		if is(step) {
			n++
		}
	}
	return n
}

// Options of a copy.
type Options struct {
	Codec   mover.Codec
	TempDir string
	// Job claims what is copied; empty means policy.ManualJob.
	Job string
	// Full reads every point whole and stores it in a sealed domain of its own, Plain unencrypted even there where the
	// repository encrypts.
	Full, Plain bool
	// Mend copies points that the repository has and cannot read whole: they keep the claims that they have.
	Mend bool
	// Flags are those of a point's claim; nil: none.
	Flags func(backup.Point) []string
	// Seeded tells of machines whose content the repository has under another id; nil: of none.
	Seeded func(backup.MachineKey) bool
	// Started is told when a step begins to copy, Finished when it is done for good, committed or failed. Both may be called
	// from several goroutines at once.
	Started  func(source.Point, *mover.Progress)
	Finished func(StepReport)
}

// attempts that a point gets when another writer gave up blocks that it relied on.
const attempts = 3

// Copy carries out a plan: each point is copied, one after the other, and one point's trouble is its own. The error is
// of the copy as a whole: the repository cannot be written, or ctx was cancelled. The report is true also then. What
// was stored before an interruption is committed as unfinished, and the next copy goes on behind it.
func Copy(ctx context.Context, from *registry.Source, to *repo.Repository, steps plan.Plan, options Options) (Report, error) {
	c := newCopier(to, options)
	points := byID(from)
	var lane []int
	for i, step := range steps.Steps {
		c.add(step, work{from: from, point: points[step.Point.ID], whole: options.Full})
		if step.Action == plan.ActionCopy {
			lane = append(lane, i)
		}
	}
	var lanes [][]int
	if len(lane) > 0 {
		lanes = [][]int{lane}
	}
	report, err := c.copy(ctx, lanes)
	report.SourceBytes = from.Root.BytesRead()
	return report, err
}

// byID are a source's points by their ids.
func byID(from *registry.Source) map[backup.PointID]source.Point {
	points := map[backup.PointID]source.Point{}
	for _, p := range from.Points {
		points[p.ID] = p
	}
	return points
}

// work is how a step's point is copied.
type work struct {
	from *registry.Source
	// source is its number, for slots.
	source int
	point  source.Point
	// whole reads it whole, into a domain of its own.
	whole bool
}

type copier struct {
	to      *repo.Repository
	options Options
	gate    gate
	atOnce  int
	// works are those of the report's steps.
	works []work
	now   stopNow

	mu     sync.Mutex // guards what follows
	report Report
	// again are steps of which a commit found blocks given up.
	again []int
	// shared is where the points go that are not read whole; nil before the first of them.
	shared *filling
	// failed is what ended the copy as a whole.
	failed error
	// underWay are the points that are being copied, and how far that is; nil: nothing is read yet. gained are the steps of which a copy has
	// stored something, whatever became of it.
	underWay map[backup.PointID]*mover.Progress
	gained   map[int]bool
}

// filling is an ingest, and what moves points into it.
type filling struct {
	ingest *repo.Ingest
	mover  *mover.Mover
}

func newCopier(to *repo.Repository, options Options) *copier {
	switch {
	case options.Mend:
		options.Job = ""
	case options.Job == "":
		options.Job = policy.ManualJob
	}
	alone := gate{slots: NewSlots(1), limits: func(int) limits { return nil }, waits: func(Wait) {}}
	return &copier{to: to, options: options, gate: alone, underWay: map[backup.PointID]*mover.Progress{}, gained: map[int]bool{}}
}

// add adds a step, and how its point is copied if it is to be.
func (c *copier) add(step plan.Step, how work) {
	outcome := OutcomeNothing
	if step.Action == plan.ActionCopy {
		outcome = OutcomeNotReached
	}
	c.report.Steps = append(c.report.Steps, StepReport{Step: step, Outcome: outcome})
	c.works = append(c.works, how)
}

// copy copies the points of lanes, and again those for which a commit found blocks given up.
func (c *copier) copy(ctx context.Context, lanes [][]int) (Report, error) {
	began := time.Now()
	defer c.now.watch(ctx)()
	copies := len(lanes) > 0
	c.atOnce = c.gate.slots.atOnce(len(lanes))
	var err error
	if copies {
		c.runLanes(ctx, lanes)
		err = c.end(ctx)
	}
	for attempt := 2; len(c.again) > 0 && err == nil; attempt++ { // without a slot: they had one
		again := c.again
		c.again = nil
		c.runAgain(ctx, again, attempt == attempts)
		err = c.end(ctx)
	}
	c.report.Took = time.Since(began)
	if copies && !c.options.Mend && (err == nil || ctx.Err() != nil) {
		c.to.RememberRun(context.WithoutCancel(ctx), repo.LastRun{
			Began: began, Ended: began.Add(c.report.Took), Points: int64(c.report.Copied()),
			New: c.report.New, Stored: c.report.Stored, Nodes: c.report.Nodes, Packs: c.report.Packs,
		})
	}
	c.report.Warnings = append(c.report.Warnings, c.to.Warnings()...)
	return c.report, err
}

// runAgain copies points one after the other.
func (c *copier) runAgain(ctx context.Context, todo []int, last bool) {
	for _, i := range todo {
		if err := errors.Join(ctx.Err(), c.copyOne(ctx, i, last)); err != nil {
			c.fail(err)
			return
		}
	}
}

// copyOne copies a point. The error is one of the repository.
func (c *copier) copyOne(ctx context.Context, i int, last bool) error {
	if !c.works[i].whole {
		shared, err := c.sharedFilling(ctx)
		if err != nil {
			return err
		}
		c.copyPoint(ctx, shared.mover, i, last)
		return shared.ingest.Failed()
	}
	own, err := c.fill(ctx, true)
	if err != nil {
		return err
	}
	c.copyPoint(ctx, own.mover, i, last)
	return errors.Join(own.ingest.Failed(), c.close(ctx, own))
}

// sharedFilling is what the points go through that are not read whole.
func (c *copier) sharedFilling(ctx context.Context) (*filling, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared == nil {
		shared, err := c.fill(ctx, false)
		if err != nil {
			return nil, err
		}
		c.shared = shared
	}
	return c.shared, nil
}

// fill begins an ingest.
func (c *copier) fill(ctx context.Context, whole bool) (*filling, error) {
	ingest, err := c.to.NewIngest(ctx, repo.IngestOptions{Sealed: whole, Plain: c.options.Plain})
	if err != nil {
		return nil, err
	}
	c.now.add(ingest)
	return &filling{ingest, mover.New(ingest, mover.Options{
		Codec: c.options.Codec, TempDir: c.options.TempDir, Job: c.options.Job, Flags: c.options.Flags, Seeded: c.options.Seeded,
		AtOnce: c.atOnce, Progress: c.started,
	})}, nil
}

// end ends the shared ingest, and says what ended the copy as a whole.
func (c *copier) end(ctx context.Context) error {
	shared := c.shared
	c.shared = nil
	if shared != nil {
		c.fail(shared.ingest.Failed())
		c.fail(c.close(ctx, shared))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(c.failed, storage.ErrFull) {
		return fmt.Errorf("%w; %s", c.failed, c.report.Kept())
	}
	return c.failed
}

// close commits what an ingest was given, and ends it.
func (c *copier) close(ctx context.Context, f *filling) error {
	err := f.ingest.Close(context.WithoutCancel(ctx), f.ingest.Failed())
	c.now.remove(f.ingest)
	stats := f.ingest.Stats()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.New += stats.Kept.NewBytes.Load()
	c.report.Stored += stats.Kept.Stored.Load()
	c.report.Nodes += stats.Kept.NodeBytes.Load()
	c.report.Packs += stats.Packs.Load()
	if errors.Is(err, repo.ErrCondemned) { // the points were told
		return nil
	}
	return err
}

func (c *copier) copyPoint(ctx context.Context, m *mover.Mover, i int, last bool) {
	defer c.begin(i)()
	from, p := c.works[i].from, c.works[i].point
	finish := func(result mover.Result, err error) {
		if err != nil && c.now.asked() {
			return // what was let go was not reached
		}
		if errors.Is(err, repo.ErrCondemned) && !last {
			c.mu.Lock()
			c.again = append(c.again, i)
			c.mu.Unlock()
			return
		}
		c.finish(i, result, err)
	}
	err := m.CopyFrom(ctx, from.Root.Calls(), p, finish)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		// The source has a context of its own. What ends that ends this one too, now or in a moment, and is no failure of the point.
		_ = storage.Sleep(ctx, time.Second)
	}
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, backup.ErrBroken):
		if rememberErr := from.RememberBroken(p, Reason(err)); rememberErr != nil {
			c.mu.Lock()
			c.report.Warnings = append(c.report.Warnings, fmt.Sprintf("cannot remember that the point is broken: %v", rememberErr))
			c.mu.Unlock()
		}
		c.finish(i, mover.Result{}, err)
	default:
		finish(mover.Result{}, err)
	}
}

// Reason is an error without the machine and point that it happened to, which the listing says already.
func Reason(err error) string {
	var at *backup.Error
	if errors.As(err, &at) {
		inner := *at
		inner.Machine, inner.Point = "", ""
		return inner.Error()
	}
	return err.Error()
}

func (c *copier) finish(i int, result mover.Result, err error) {
	c.mu.Lock()
	step := &c.report.Steps[i]
	step.Outcome, step.Result, step.Err = OutcomeCopied, result, err
	if err != nil {
		step.Outcome = OutcomeFailed
		step.Result.NewBlocks, step.Result.NewBytes, step.Result.Stored, step.Result.Whole = 0, 0, 0, 0 // what is kept of it is in the sums
	}
	done := *step
	c.mu.Unlock()
	if c.options.Finished != nil {
		c.options.Finished(done)
	}
}
