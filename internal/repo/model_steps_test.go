package repo_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// group is the goroutines of a step.
type group = sync.WaitGroup

// copy copies a new point, which then is there.
func (m *model) copy(t *rapid.T) {
	m.mustIngest(t, m.process(t), repo.IngestOptions{}, m.draw(t))
}

// copyTwo copies two points through one ingest at once.
func (m *model) copyTwo(t *rapid.T) {
	m.mustIngest(t, m.process(t), repo.IngestOptions{}, m.draw(t), m.draw(t))
}

// copySealed copies a point into a domain of its own.
func (m *model) copySealed(t *rapid.T) {
	m.mustIngest(t, m.process(t), sealed(t), m.draw(t))
}

func sealed(t *rapid.T) repo.IngestOptions {
	return repo.IngestOptions{Sealed: true, Plain: rapid.Bool().Draw(t, "plain")}
}

// anyDomain is the repository's own, or in one of three copies one of the point's.
func anyDomain(t *rapid.T) repo.IngestOptions {
	if rapid.IntRange(0, 2).Draw(t, "sealed") == 0 {
		return sealed(t)
	}
	return repo.IngestOptions{}
}

// retry copies a point again that is not there; or one that is there, into a domain of its own. An interrupted copy goes on.
func (m *model) retry(t *rapid.T) {
	p, options := m.retried(t)
	m.mustIngest(t, m.process(t), options, p)
}

func (m *model) retried(t *rapid.T) (*sourcetest.Point, repo.IngestOptions) {
	p, options := m.anyClaimed(t), anyDomain(t)
	if m.state[p.ID()] == present && !options.Sealed {
		t.Skip("it is there")
	}
	return p, options
}

// retrying is one to be interrupted. A point that was there stays.
func (m *model) retrying(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	p, options := m.retried(t)
	if m.state[p.ID()] != present {
		m.state[p.ID()] = unknown
	}
	return func(r *repo.Repository) error { return ingest(r, options, p) }, func() { m.state[p.ID()] = present }
}

func (m *model) mustIngest(t *rapid.T, r *repo.Repository, options repo.IngestOptions, points ...*sourcetest.Point) {
	if err := ingest(r, options, points...); err != nil {
		t.Fatalf("copy: %v", err)
	}
	for _, p := range points {
		m.state[p.ID()] = present
	}
}

// copyFails begins to copy a point from a source that fails: what was read stays as an unfinished copy.
func (m *model) copyFails(t *rapid.T) {
	p := m.draw(t)
	m.fails(t, p)
	err := ingest(m.process(t), anyDomain(t), p)
	p.Revalidated, p.OnRead, p.OnPiece = nil, nil, nil
	switch {
	case err == nil: // it had little to read
		m.state[p.ID()] = present
	case !errors.Is(err, errInjected):
		t.Fatalf("a copy from a source that fails: %v", err)
	}
}

// copySome copies three points through one ingest at once, one of which has a source that fails.
func (m *model) copySome(t *rapid.T) {
	points := []*sourcetest.Point{m.draw(t), m.draw(t), m.draw(t)}
	fails := points[rapid.IntRange(0, 2).Draw(t, "fails")]
	m.fails(t, fails)
	err := ingest(m.process(t), repo.IngestOptions{}, points...)
	fails.Revalidated, fails.OnRead, fails.OnPiece = nil, nil, nil
	if err != nil && !errors.Is(err, errInjected) {
		t.Fatalf("copies of which one fails: %v", err)
	}
	for _, p := range points {
		if p != fails || err == nil {
			m.state[p.ID()] = present
		}
	}
}

// fails makes a point's source fail, after some reads or at its end.
func (m *model) fails(t *rapid.T, p *sourcetest.Point) {
	if rapid.Bool().Draw(t, "at the end") {
		p.Revalidated = errInjected
		return
	}
	reads := rapid.IntRange(0, 10).Draw(t, "reads")
	var mu sync.Mutex
	fail := func() error {
		mu.Lock()
		defer mu.Unlock()
		if reads--; reads < 0 {
			return errInjected
		}
		return nil
	}
	p.OnRead = func(_ int, _ int64, n int) (int, error) { return n, fail() }
	p.OnPiece = func(sourcetest.Piece) error { return fail() }
}

// anyClaimed is a point that was tried to copy, and was not given up while it was held: a copy would claim it anew.
func (m *model) anyClaimed(t *rapid.T) *sourcetest.Point {
	return m.any(t, func(p *sourcetest.Point) bool { return !m.unclaimed[p.ID()] })
}

// anyPresent is a point that is there.
func (m *model) anyPresent(t *rapid.T) *sourcetest.Point {
	return m.any(t, func(p *sourcetest.Point) bool { return m.state[p.ID()] == present })
}

// any is a point that is as wanted, but not the one whose copy is paused: nobody knows whether that is there.
func (m *model) any(t *rapid.T, wanted func(*sourcetest.Point) bool) *sourcetest.Point {
	var some []*sourcetest.Point
	for _, p := range m.tried {
		if wanted(p) && (m.paused == nil || m.paused.point != p) {
			some = append(some, p)
		}
	}
	if len(some) == 0 {
		t.Skip("there is none")
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(t, "point")]
}

// forget gives up a point, which is gone then unless it is held.
func (m *model) forget(t *rapid.T) {
	m.forgetPoint(t, m.anyPresent(t))
}

func (m *model) forgetPoint(t *rapid.T, p *sourcetest.Point) {
	r, done := m.giver(t)
	defer done()
	given, err := r.Forget(context.Background(), "manual", []repo.Forgetting{{Point: p.ID()}}, nil)
	if err != nil {
		t.Fatalf("forget: %v", err)
	}
	held := len(m.holds[p.ID()]) > 0
	if given[0].Unknown || given[0].Removed == held {
		t.Fatalf("forget of %s, which is held: %v: %+v", p.Native, held, given[0])
	}
	if held {
		m.unclaimed[p.ID()] = true
	} else {
		m.state[p.ID()] = absent
	}
}

func (m *model) hold(t *rapid.T) {
	p := m.anyPresent(t)
	hold, err := m.process(t).Hold(context.Background(), p.ID(), "a test")
	if err != nil {
		t.Fatalf("hold: %v", err)
	}
	m.holds[p.ID()] = append(m.holds[p.ID()], hold)
}

func (m *model) release(t *rapid.T) {
	for _, p := range m.tried {
		if holds := m.holds[p.ID()]; len(holds) > 0 && holds[0] != nil {
			if err := holds[0].Release(context.Background()); err != nil {
				t.Fatalf("release: %v", err)
			}
			m.holds[p.ID()] = holds[1:]
			return
		}
	}
	t.Skip("nothing is held")
}

// wait lets time pass, by the storage's clock. Holds that nobody renews end.
func (m *model) wait(t *rapid.T) {
	passed := rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Hour, 30 * time.Hour, 10 * 24 * time.Hour, 20 * 24 * time.Hour}).Draw(t, "time")
	m.pass(passed)
}

func (m *model) now() time.Time { return *m.clock.Load() }

func (m *model) set(clock time.Time) { m.clock.Store(&clock) }

func (m *model) pass(passed time.Duration) {
	m.set(m.now().Add(passed))
	if passed > time.Hour {
		clear(m.holds)
	}
}

// copyOf begins the copy of a new point; acknowledged is called when it is committed.
func (m *model) copyOf(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	p, options := m.draw(t), anyDomain(t)
	m.state[p.ID()] = unknown
	return func(r *repo.Repository) error { return ingest(r, options, p) }, func() { m.state[p.ID()] = present }
}

// forgetting gives up a point.
func (m *model) forgetting(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	p := m.anyPresent(t)
	held := len(m.holds[p.ID()]) > 0
	if held {
		t.Skip("it is held")
	}
	m.state[p.ID()] = unknown
	return func(r *repo.Repository) error {
			_, err := r.Forget(context.Background(), "manual", []repo.Forgetting{{Point: p.ID()}}, nil)
			return err
		}, func() {
			m.state[p.ID()] = absent
		}
}

// crashing makes a step of one in the middle of which the process is killed, or the power fails. What was acknowledged
// counts; what was not has happened or not.
func (m *model) crashing(begin func(*rapid.T) (step func(*repo.Repository) error, acknowledged func())) func(*rapid.T) {
	return func(t *rapid.T) {
		step, acknowledged := begin(t)
		r := m.process(t)
		m.store.CrashAfter(rapid.IntRange(0, 60).Draw(t, "after"))
		if step(r) == nil {
			acknowledged()
		}
		m.crashed(t)
	}
}

// crashed is what the next processes find.
func (m *model) crashed(t *rapid.T) {
	m.doubtful = true
	m.close(t)
	if rapid.Bool().Draw(t, "power cut") {
		m.store = m.store.PowerCut(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "chance"), 0)))
	} else {
		m.store = m.store.Clone()
	}
	m.open(t)
}

// modelRounds is how many hundreds of sequences are tried of each kind of repository.
func modelRounds(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("MODEL_ROUNDS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return 7
}
