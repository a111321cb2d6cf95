//go:build integration

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/s3"
)

const pausedBlock = 4 << 10

// TestPausedAtOnce: machines that copy, forget and copy again what others have, two that reclaim, one that compacts and one that
// reads, all paused at any of their requests, and some for longer than the grace and every lease: nothing is lost, nothing refers
// to what is gone, nothing goes before its time, and who is refused is told who runs, and since when. PAUSE_SEED repeats one.
func TestPausedAtOnce(t *testing.T) {
	seed := rand.Uint64() >> 32
	if given := os.Getenv("PAUSE_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PAUSE_SEED=%d", seed)
	s := &stage{t: t, bucket: shared.bucket(t, plain), pauses: repotest.NewPauses(seed), made: map[string]string{}, deleted: map[string]act{}}
	watcher := s.process("watcher", 0, 0)
	kept := initPaused(t, watcher)

	const writers, rounds = 3, 5
	var working, idle sync.WaitGroup
	var done atomic.Bool
	var refused, compacted, again atomic.Int64
	whole := make([][]*sourcetest.Point, writers)
	for i := range writers {
		p := s.process(fmt.Sprint("writer ", i), 10, 2)
		s.pauses.Run(&working, func() {
			for round := range rounds {
				// What the first has is dead when it is forgotten, and comes again, on its way into nothing.
				like := 2 + 2*round + s.pauses.Draw(2)
				first := pausedPoint(fmt.Sprintf("m%d-%d", i, round), like)
				again.Add(int64(p.copy(first)))
				watcher.look(first)
				p.forget(first)
				second := pausedPoint(fmt.Sprintf("n%d-%d", i, round), like)
				again.Add(int64(p.copy(second)))
				watcher.look(second)
				if s.pauses.Draw(2) == 0 {
					p.forget(second)
				} else {
					whole[i] = append(whole[i], second)
				}
			}
		})
	}
	for i := range 2 {
		p := s.process(fmt.Sprint("reclaimer ", i), 40, 3)
		s.pauses.Run(&idle, func() {
			for !done.Load() {
				if !p.upkeep("reclaim", p.reclaim) {
					refused.Add(1)
					continue
				}
				watcher.look() // before the next one stores again what only the given up still has
			}
		})
	}
	compacter, reader := s.process("compacter", 60, 3), s.process("reader", 20, 4)
	s.pauses.Run(&idle, func() {
		for !done.Load() {
			if !compacter.upkeep("compact", func(r *repo.Repository) error {
				report, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd})
				if err == nil {
					compacted.Add(int64(report.Blocks))
				}
				return err
			}) {
				refused.Add(1)
			}
		}
	})
	s.pauses.Run(&idle, func() {
		r, err := reader.open()
		if err != nil {
			t.Errorf("the reader: %v", err)
			return
		}
		defer r.Close()
		for !done.Load() {
			for _, point := range kept {
				if err := stored(t.Context(), r, point); err != nil {
					t.Errorf("the reader: %v", err)
					return
				}
			}
		}
	})
	working.Wait()
	done.Store(true)
	idle.Wait()
	for i := range whole {
		kept = append(kept, whole[i]...)
	}
	watcher.look(kept...)
	for range 6 { // what is left to give up, and to delete
		watcher.upkeep("reclaim", watcher.reclaim)
		s.tomorrow()
	}
	watcher.look(kept...)
	garbage, left := s.checkHistory(repo.DefaultReclaimPolicy().Grace)
	files := s.packFiles(t)
	for name := range files {
		if !left[name] {
			t.Errorf("%s is there and nobody's", name)
		}
	}
	if len(files) != len(left) {
		t.Errorf("%d files of %d packs", len(files), len(left))
	}
	t.Logf("%d long pauses, %d runs, %d refused, %d copies begun again, %d packs of garbage, %d files deleted, %d blocks compacted, the clock at %v",
		s.slept, len(s.turns), refused.Load(), again.Load(), garbage, len(s.deleted), compacted.Load(), time.Until(s.clock.now()).Round(time.Hour))
	if refused.Load() < 5 { // of two that come at just the same time one is in any case
		t.Error("others could run beside one that reclaims or compacts")
	}
	if s.slept == 0 || len(s.deleted) == 0 || compacted.Load() == 0 {
		t.Error("too little happened for this to prove anything")
	}
}

// initPaused makes a repository with two points that stay.
func initPaused(t *testing.T, p *process) []*sourcetest.Point {
	t.Helper()
	location, err := s3.ParseLocation(p.location)
	if err != nil {
		t.Fatal(err)
	}
	store, err := s3.Open(location, s3.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Init(t.Context(), store, repo.Environment{Now: p.stage.clock.now, OwnsStore: true}, repo.Options{BlockSize: pausedBlock})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	kept := []*sourcetest.Point{pausedPoint("stays", 0), pausedPoint("stays too", 1)}
	for _, point := range kept {
		p.copy(point)
	}
	p.look(kept...)
	return kept
}

// pausedPoint is a point of a machine of its own. Most of its disk is one of few that many have.
func pausedPoint(name string, like int) *sourcetest.Point {
	data := compressible(uint64(like), 60*pausedBlock)
	data = append(data, compressible(uint64(len(name))*1000+uint64(name[1])*100+uint64(name[len(name)-1]), 6*pausedBlock)...)
	return &sourcetest.Point{
		Machine: sourcetest.Machine(name), Native: name, Created: time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC),
		Objects: []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}},
	}
}

// compressible is content that every codec makes smaller, some more than others.
func compressible(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 3))
	var content []byte
	for len(content) < size {
		some := make([]byte, 64)
		for i := range some {
			some[i] = 'a' + byte(random.IntN(16))
		}
		content = append(content, bytes.Repeat(some, 2)...)
	}
	return content[:size]
}

// copy copies a point, as often as it takes, and returns how often it had to begin again: what it relied on may be given up
// meanwhile. Each try is a process that has just begun.
func (p *process) copy(point *sourcetest.Point) (again int) {
	t := p.stage.t
	for ; ; again++ {
		err := p.copyOnce(point)
		if err == nil {
			return again
		}
		if !errors.Is(err, repo.ErrCondemned) || again == 50 {
			t.Errorf("%s: copying %s: %v", p.name, point.Native, err)
			return again
		}
	}
}

func (p *process) copyOnce(point *sourcetest.Point) error {
	ctx := p.stage.t.Context()
	r, err := p.open()
	if err != nil {
		return err
	}
	defer r.Close()
	from := sourcetest.Open(p.stage.t, point)
	steps := plan.Make([]backup.Point{from.Points[0].Point}, r.Has, plan.Request{All: true})
	report, err := job.Copy(ctx, from, r, steps, job.Options{Codec: mover.CodecS2})
	for _, step := range report.Steps {
		err = errors.Join(err, step.Err)
	}
	if err == nil && !r.Has(point.ID()) {
		err = errors.New("it is not there after a copy without error")
	}
	return err
}

// forget gives a point up.
func (p *process) forget(point *sourcetest.Point) {
	r, err := p.open()
	if err == nil {
		_, err = r.Forget(p.stage.t.Context(), "manual", []repo.Forgetting{{Point: point.ID()}}, nil)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		p.stage.t.Errorf("%s: forgetting %s: %v", p.name, point.Native, err)
	}
}

func (p *process) reclaim(r *repo.Repository) error {
	_, err := r.Reclaim(p.stage.t.Context(), repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy()})
	return err
}

// look fails the test unless the repository verifies clean and has the points whole.
func (p *process) look(points ...*sourcetest.Point) {
	t := p.stage.t
	r, err := p.open()
	if err != nil {
		t.Errorf("%s: open: %v", p.name, err)
		return
	}
	defer r.Close()
	report, err := r.Verify(t.Context(), nil)
	if err != nil {
		t.Errorf("%s: verify: %v", p.name, err)
		return
	}
	for _, d := range report.Damage {
		t.Errorf("damage: %+v", d)
	}
	for _, point := range points {
		if err := stored(t.Context(), r, point); err != nil {
			t.Errorf("%s is not whole: %v", point.Native, err)
		}
	}
}

// stored returns an error unless a point is in the repository, and its disk is what was copied.
func stored(ctx context.Context, r *repo.Repository, point *sourcetest.Point) error {
	p, err := r.ReadPoint(ctx, point.ID())
	if err != nil {
		return err
	}
	content, err := repotest.ReadObject(ctx, r, p, 0)
	if err == nil && !bytes.Equal(content, point.Objects[0].Data) {
		err = errors.New("other bytes than were copied")
	}
	return err
}

// tomorrow puts the clock forward by more than the grace, and returns when it has been: as the server's next second begins.
func (s *stage) tomorrow() {
	for until := s.clock.now().Add(longer); s.clock.now().Before(until); {
		s.clock.forward(longer + time.Hour)
		time.Sleep(10 * time.Millisecond)
	}
}
