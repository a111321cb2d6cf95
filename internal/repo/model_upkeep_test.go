package repo_test

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/repo"
)

// compact writes the newest points' blocks anew.
func (m *model) compact(t *rapid.T) {
	_, err := m.process(t).Compact(context.Background(), compactOptions(t))
	var inUse *repo.InUseError
	if err != nil && (!errors.As(err, &inUse) || m.clock.After(m.leased)) {
		t.Fatalf("compact: %v", err)
	}
	m.doubtful = true
}

func compactOptions(t *rapid.T) repo.CompactOptions {
	return repo.CompactOptions{Codec: repo.CodecZstd, MaxBytes: rapid.SampledFrom([]int64{0, 0, 50_000}).Draw(t, "budget")}
}

// compacting is one to be interrupted.
func (m *model) compacting(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	options := compactOptions(t)
	if m.clock.After(m.leased) {
		m.leased = m.clock.Add(10 * time.Minute)
	}
	return func(r *repo.Repository) error {
		_, err := r.Compact(context.Background(), options)
		return err
	}, func() {}
}

// rotate makes a new data key.
func (m *model) rotate(t *rapid.T) {
	step, _ := m.rotating(t)
	if err := step(m.process(t)); err != nil {
		t.Fatalf("rotate: %v", err)
	}
}

// rotating is one to be interrupted. Nobody loses access.
func (m *model) rotating(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	if m.processes[0].KeyGeneration() == 0 {
		t.Skip("it is not encrypted")
	}
	return func(r *repo.Repository) error {
		_, err := r.RotateKeys(context.Background(), repo.RotateOptions{})
		return err
	}, func() {}
}
