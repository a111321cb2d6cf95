package repo_test

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// reclaim gives back space, in some runs days apart: what the first ones give up the last one deletes.
func (m *model) reclaim(t *rapid.T) {
	for range rapid.IntRange(0, 3).Draw(t, "runs before") {
		m.reclaimOnce(t)
		m.pass(48 * time.Hour)
	}
	m.reclaimOnce(t)
}

// reclaimOnce is one run. Points that were given up while they were held are gone then.
func (m *model) reclaimOnce(t *rapid.T) {
	options := m.reclaimOptions(t)
	r, done := m.giver(t)
	defer done()
	report, err := r.Reclaim(context.Background(), options)
	var inUse *repo.InUseError
	switch {
	case errors.As(err, &inUse) && !m.now().After(m.leased):
		return
	case err != nil:
		t.Fatalf("reclaim: %v", err)
	case report.Frozen != "" && m.lag != 0: // it says that listings are not to be relied on
	case report.Frozen != "" || len(report.Incomplete) > 0 && m.donor == nil:
		t.Fatalf("reclaim does not act: %+v", report)
	}
	m.doubtful = true
	m.removeUnclaimed(absent)
}

func (m *model) reclaimOptions(t *rapid.T) repo.ReclaimOptions {
	options := repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy(), TempDir: scratch}
	if rapid.Bool().Draw(t, "without grace") {
		options.Policy.Grace = 0
	}
	options.Policy.MergeAtLeast = rapid.IntRange(2, 4).Draw(t, "merge at least")
	options.MaxBytes = rapid.SampledFrom([]int64{0, 0, 1, 50_000}).Draw(t, "budget")
	return options
}

// removeUnclaimed takes points off that a reclaim removes, or may have removed.
func (m *model) removeUnclaimed(now known) {
	for id := range m.unclaimed {
		if len(m.holds[id]) == 0 {
			m.state[id] = now
			if now == absent {
				delete(m.unclaimed, id)
			}
		}
	}
}

// reclaiming is a reclaim to be interrupted.
func (m *model) reclaiming(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	options := m.reclaimOptions(t)
	if m.now().After(m.leased) {
		m.leased = m.now().Add(10 * time.Minute)
	}
	m.removeUnclaimed(unknown)
	return func(r *repo.Repository) error {
			_, err := r.Reclaim(context.Background(), options)
			return err
		}, func() {
			m.removeUnclaimed(absent)
		}
}

// pausedCopy is a copy that has stored all it needs, and has not committed.
type pausedCopy struct {
	repo      *repo.Repository
	options   repo.IngestOptions
	ingest    *repo.Ingest
	point     *sourcetest.Point
	committed error
}

// pause begins to copy a point, and leaves the copy before its commit.
func (m *model) pause(t *rapid.T) {
	if m.paused != nil {
		t.Skip("there is one")
	}
	r, options, p := m.process(t), anyDomain(t), (*sourcetest.Point)(nil)
	if options.Sealed && rapid.Bool().Draw(t, "again") {
		p = m.anyClaimed(t) // whose copy may have been interrupted
	} else {
		p = m.drawKnown(t)
	}
	in, err := r.NewIngest(context.Background(), options)
	if err != nil {
		t.Fatalf("copy: %v", err)
	}
	paused := &pausedCopy{repo: r, options: options, ingest: in, point: p, committed: errors.New("the commit was not told of")}
	err = mover.New(in, mover.Options{Job: "manual", Codec: mover.CodecS2}).Copy(context.Background(), paused.point.Described(), func(_ mover.Result, err error) {
		paused.committed = err
	})
	if err != nil && !errors.Is(err, repo.ErrCondemned) {
		t.Fatalf("copy: %v", err)
	}
	if err != nil {
		_ = in.Close(context.Background(), err)
		t.Skip("it lost what it relied on")
	}
	m.paused = paused
	if m.state[p.ID()] != present {
		m.state[p.ID()] = unknown // packs that fill up commit it
	}
}

// resume lets the paused copy commit. What it relied on may be given up, and what it stored be taken for garbage: then it
// is told so, and copies again.
func (m *model) resume(t *rapid.T) {
	paused := m.paused
	if paused == nil {
		t.Skip("nothing is paused")
	}
	m.paused = nil
	err := errors.Join(paused.ingest.Close(context.Background(), nil), paused.committed)
	if errors.Is(err, repo.ErrCondemned) {
		err = ingest(paused.repo, paused.options, paused.point)
	}
	if err != nil {
		t.Fatalf("a copy that was paused: %v", err)
	}
	m.doubtful = true
	m.state[paused.point.ID()] = present
}

// overtaken is a copy that is paused while points are given up, and their space is given back.
func (m *model) overtaken(t *rapid.T) {
	if m.paused == nil {
		m.pause(t)
	}
	for _, p := range m.tried {
		if p != m.paused.point && m.state[p.ID()] == present && len(m.holds[p.ID()]) == 0 && rapid.IntRange(0, 4).Draw(t, "keep") > 0 {
			m.forgetPoint(t, p)
		}
	}
	for range rapid.IntRange(1, 4).Draw(t, "runs") {
		m.reclaimOnce(t)
		m.pass(48 * time.Hour)
	}
	m.resume(t)
}

// giveUpPaused ends the paused copy with its process.
func (m *model) giveUpPaused() {
	if paused := m.paused; paused != nil {
		m.paused = nil
		_ = paused.ingest.Close(context.Background(), errInjected)
		if m.state[paused.point.ID()] != present {
			m.state[paused.point.ID()] = unknown
		}
	}
}
