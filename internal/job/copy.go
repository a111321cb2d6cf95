// Package job carries plans out and reports what became of every step.
package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
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
	// take. In bytes.
	New, Stored, Nodes int64
	Packs              int64
	// NoSlot counts the steps at the end of the plan that were not begun because Enter said so.
	NoSlot   int
	Took     time.Duration
	Warnings []string
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
	// Started is told when a step begins to copy, Finished when it is done for good, committed or failed. Finished may
	// be called from another goroutine.
	Started  func(source.Point, *mover.Progress)
	Finished func(StepReport)
	// Enter is asked before a point is read, and gives what is called when it has been. If it is not ok the copy ends before
	// this point as if there were no more; nil: all is.
	Enter func(source.Point) (leave func(), ok bool)
}

// attempts that a point gets when another writer gave up blocks that it relied on.
const attempts = 3

// Copy carries out a plan: each point is copied, one after the other, and one point's trouble is its own. The error is
// of the copy as a whole: the repository cannot be written, or ctx was cancelled. The report is true also then. What
// was stored before an interruption is committed as unfinished, and the next copy goes on behind it.
func Copy(ctx context.Context, from *registry.Source, to *repo.Repository, steps plan.Plan, options Options) (Report, error) {
	c := &copier{from: from, to: to, options: options, started: time.Now()}
	switch {
	case c.options.Mend:
		c.options.Job = ""
	case c.options.Job == "":
		c.options.Job = policy.ManualJob
	}
	for _, step := range steps.Steps {
		outcome := OutcomeNothing
		if step.Action == plan.ActionCopy {
			outcome = OutcomeNotReached
		}
		c.report.Steps = append(c.report.Steps, StepReport{Step: step, Outcome: outcome})
	}
	var err error
	if len(steps.Copies()) > 0 {
		err = c.run(ctx)
	}
	c.report.SourceBytes = from.Root.BytesRead()
	c.report.Took = time.Since(c.started)
	if len(steps.Copies()) > 0 && !options.Mend && (err == nil || ctx.Err() != nil) {
		to.RememberRun(context.WithoutCancel(ctx), repo.LastRun{
			Began: c.started, Ended: c.started.Add(c.report.Took), Points: int64(c.report.Copied()),
			New: c.report.New, Stored: c.report.Stored, Nodes: c.report.Nodes, Packs: c.report.Packs,
		})
	}
	c.report.Warnings = append(c.report.Warnings, to.Warnings()...)
	return c.report, err
}

type copier struct {
	from    *registry.Source
	to      *repo.Repository
	options Options
	started time.Time

	mu     sync.Mutex // guards report.Steps and again
	report Report
	again  []int
}

// run copies all points, and again those for which a commit found blocks given up.
func (c *copier) run(ctx context.Context) error {
	var todo []int
	for i, step := range c.report.Steps {
		if step.Action == plan.ActionCopy {
			todo = append(todo, i)
		}
	}
	for attempt := 1; len(todo) > 0; attempt++ {
		c.again = nil
		for _, together := range c.groups(todo) {
			if attempt == 1 && c.report.NoSlot > 0 {
				break
			}
			if err := c.pass(ctx, together, attempt); err != nil {
				return err
			}
		}
		todo = c.again
	}
	return nil
}

// groups are the steps that go through one ingest: all, or each its own if each is to have a domain of its own.
func (c *copier) groups(todo []int) [][]int {
	if !c.options.Full {
		return [][]int{todo}
	}
	return slices.Collect(slices.Chunk(todo, 1))
}

// pass copies points through one ingest.
func (c *copier) pass(ctx context.Context, todo []int, attempt int) error {
	ingest, err := c.to.NewIngest(ctx, repo.IngestOptions{Sealed: c.options.Full, Plain: c.options.Plain})
	if err != nil {
		return err
	}
	mover := mover.New(ingest, mover.Options{
		Codec: c.options.Codec, TempDir: c.options.TempDir, Job: c.options.Job, Flags: c.options.Flags, Seeded: c.options.Seeded, Progress: c.options.Started,
		Calls: c.from.Root.Calls(),
	})
	points := map[backup.PointID]source.Point{}
	for _, p := range c.from.Points {
		points[p.ID] = p
	}
	for _, i := range todo {
		p := points[c.report.Steps[i].Point.ID]
		leave, ok := func() {}, true
		if c.options.Enter != nil && attempt == 1 { // what a commit had to give up is copied again at once
			leave, ok = c.options.Enter(p)
		}
		if !ok {
			c.report.NoSlot = len(c.report.Steps) - i
			break
		}
		c.copyPoint(ctx, mover, p, i, attempt == attempts)
		leave()
		if err = errors.Join(ctx.Err(), ingest.Failed()); err != nil {
			break
		}
	}
	closing := context.WithoutCancel(ctx)
	if errors.Is(context.Cause(ctx), ErrStopNow) {
		closing = ctx
	}
	closeErr := ingest.Close(closing, ingest.Failed())
	stats := ingest.Stats()
	c.report.New += stats.NewBytes.Load()
	c.report.Stored += stats.Stored.Load()
	c.report.Nodes += stats.NodeBytes.Load()
	c.report.Packs += stats.Packs.Load()
	if err == nil && closeErr != nil && !errors.Is(closeErr, repo.ErrCondemned) {
		err = closeErr
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *copier) copyPoint(ctx context.Context, m *mover.Mover, p source.Point, i int, last bool) {
	finish := func(result mover.Result, err error) {
		if errors.Is(err, repo.ErrCondemned) && !last {
			c.mu.Lock()
			c.again = append(c.again, i)
			c.mu.Unlock()
			return
		}
		c.finish(i, result, err)
	}
	err := m.Copy(ctx, p, finish)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, backup.ErrBroken):
		if rememberErr := c.from.RememberBroken(p, Reason(err)); rememberErr != nil {
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
	}
	done := *step
	c.mu.Unlock()
	if c.options.Finished != nil {
		c.options.Finished(done)
	}
}
