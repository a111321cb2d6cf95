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
	m.mustIngest(t, m.process(t), repo.IngestOptions{Sealed: true, Plain: rapid.Bool().Draw(t, "plain")}, m.draw(t))
}

// retry copies a point again that is not there, or is.
func (m *model) retry(t *rapid.T) {
	p := m.anyTried(t)
	if m.state[p.ID()] != present {
		m.mustIngest(t, m.process(t), repo.IngestOptions{}, p)
	}
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
	if rapid.Bool().Draw(t, "at the end") {
		p.Revalidated = errInjected
	} else {
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
	err := ingest(m.process(t), repo.IngestOptions{}, p)
	p.Revalidated, p.OnRead, p.OnPiece = nil, nil, nil
	switch {
	case err == nil: // it had little to read
		m.state[p.ID()] = present
	case !errors.Is(err, errInjected):
		t.Fatalf("a copy from a source that fails: %v", err)
	}
}

// anyTried is a point that was tried to copy.
func (m *model) anyTried(t *rapid.T) *sourcetest.Point {
	if len(m.tried) == 0 {
		t.Skip("nothing was tried")
	}
	return m.tried[rapid.IntRange(0, len(m.tried)-1).Draw(t, "point")]
}

// anyPresent is a point that is there.
func (m *model) anyPresent(t *rapid.T) *sourcetest.Point {
	var there []*sourcetest.Point
	for _, p := range m.tried {
		if m.state[p.ID()] == present {
			there = append(there, p)
		}
	}
	if len(there) == 0 {
		t.Skip("nothing is there")
	}
	return there[rapid.IntRange(0, len(there)-1).Draw(t, "point")]
}

// forget gives up a point, which is gone then unless it is held.
func (m *model) forget(t *rapid.T) {
	m.forgetPoint(t, m.anyPresent(t))
}

func (m *model) forgetPoint(t *rapid.T, p *sourcetest.Point) {
	done, err := m.process(t).Forget(context.Background(), "manual", []repo.Forgetting{{Point: p.ID()}}, nil)
	if err != nil {
		t.Fatalf("forget: %v", err)
	}
	held := len(m.holds[p.ID()]) > 0
	if done[0].Unknown || done[0].Removed == held {
		t.Fatalf("forget of %s, which is held: %v: %+v", p.Native, held, done[0])
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
	passed := rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Hour, 30 * time.Hour, 10 * 24 * time.Hour}).Draw(t, "time")
	m.pass(passed)
}

func (m *model) pass(passed time.Duration) {
	m.clock = m.clock.Add(passed)
	if passed > time.Hour {
		clear(m.holds)
	}
}

// copyOf begins the copy of a new point; acknowledged is called when it is committed.
func (m *model) copyOf(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	p := m.draw(t)
	m.state[p.ID()] = unknown
	return func(r *repo.Repository) error { return ingest(r, repo.IngestOptions{}, p) }, func() { m.state[p.ID()] = present }
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
		m.doubtful = true
		m.close(t)
		if rapid.Bool().Draw(t, "power cut") {
			m.store = m.store.PowerCut(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "chance"), 0)))
		} else {
			m.store = m.store.Clone()
		}
		m.open(t)
	}
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
