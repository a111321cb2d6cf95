package repo_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// compact writes the newest points' blocks anew.
func (m *model) compact(t *rapid.T) {
	_, err := m.process(t).Compact(context.Background(), compactOptions(t))
	var inUse *repo.InUseError
	if err != nil && (!errors.As(err, &inUse) || m.now().After(m.leased)) {
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
	if m.now().After(m.leased) {
		m.leased = m.now().Add(10 * time.Minute)
	}
	return func(r *repo.Repository) error {
		_, err := r.Compact(context.Background(), options)
		return err
	}, func() {}
}

// heal stores again what a flipped bit in a pack spoilt, or what was in a pack that is lost, from parity or from a clone that
// was made before.
func (m *model) heal(t *rapid.T) {
	donor := m.spoil(t)
	defer donor.Close()
	if err := heal(m.process(t), donor); err != nil {
		t.Fatal(err)
	}
	m.verify(t)
}

// healCrashes heals again what a healing that was interrupted has left.
func (m *model) healCrashes(t *rapid.T) {
	donor := m.spoil(t)
	defer donor.Close()
	r := m.process(t)
	m.store.CrashAfter(rapid.IntRange(0, 60).Draw(t, "after"))
	_ = heal(r, donor)
	m.crashed(t)
	if err := heal(m.process(t), donor); err != nil {
		t.Fatal(err)
	}
	m.verify(t)
}

func heal(r, donor *repo.Repository) error {
	ctx := context.Background()
	found, err := r.Verify(ctx, nil)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if _, err := r.Heal(ctx, found, []*repo.Repository{donor}); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

// rot damages a pack of which a verification takes note, and nobody heals it. What can be read then must stay so, whatever is given
// up meanwhile: the copies that are left may be in any pack, of any domain.
func (m *model) rot(t *rapid.T) {
	if m.donor != nil {
		t.Skip("something is damaged")
	}
	m.donor = m.spoilBy(t, false)
	if _, err := m.process(t).Verify(context.Background(), nil); err != nil {
		t.Fatalf("verify: %v", err)
	}
	m.reopen(t) // nothing is remembered of what was read before
	m.damaged = map[backup.PointID]bool{}
	for _, p := range m.tried {
		if m.state[p.ID()] == present {
			err := compare(context.Background(), m.processes[0], p)
			if err != nil && !errors.Is(err, backup.ErrDamaged) {
				t.Fatalf("a damaged point: %v", err)
			}
			m.damaged[p.ID()] = err != nil
		}
	}
}

// mend heals what has rotted, from a clone that was made before.
func (m *model) mend(t *rapid.T) {
	if m.donor == nil {
		t.Skip("nothing is damaged")
	}
	if err := heal(m.process(t), m.donor); err != nil {
		t.Fatal(err)
	}
	m.giveUpDonor()
	m.verify(t)
}

func (m *model) giveUpDonor() {
	if m.donor != nil {
		m.donor.Close()
		m.donor, m.damaged = nil, nil
	}
}

// spoil damages a pack, and returns a clone that was made before.
func (m *model) spoil(t *rapid.T) (donor *repo.Repository) {
	if m.donor != nil {
		t.Skip("something is damaged")
	}
	return m.spoilBy(t, rapid.IntRange(0, 3).Draw(t, "lost") == 0)
}

func (m *model) spoilBy(t *rapid.T, lost bool) (donor *repo.Repository) {
	ctx := context.Background()
	if m.paused != nil {
		t.Skip("a copy relies on what is whole")
	}
	packs := m.store.Names("packs/")
	if len(packs) == 0 {
		t.Skip("there is nothing to spoil")
	}
	m.doubtful = true
	donor = m.openedAsBefore(t, m.store.Clone())
	name := rapid.SampledFrom(packs).Draw(t, "pack")
	var err error
	if lost {
		err = m.store.Delete(ctx, name)
	} else {
		at := max(0, rapid.Float64Range(-1, 0.999).Draw(t, "at"))
		err = m.store.Tamper(name, func(b []byte) []byte { b[int(at*float64(len(b)))] ^= 1; return b })
	}
	if err != nil {
		t.Fatal(err)
	}
	return donor
}
