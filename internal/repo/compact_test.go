package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/idle"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

func compact(t testing.TB, r *repo.Repository, options repo.CompactOptions) *repo.CompactReport {
	t.Helper()
	options.Codec = repo.CodecZstd
	report, err := r.Compact(context.Background(), options)
	if err != nil {
		t.Fatalf("compact: %v", err)
	}
	return report
}

// manyStates are points of one machine, of which each changes single blocks all over the disk.
func manyStates(n, blocks int) []*sourcetest.Point {
	data := content(1, blocks*smallBlock)
	var points []*sourcetest.Point
	for i := range n {
		data = append([]byte(nil), data...)
		for block := i; block < blocks; block += n {
			copy(data[block*smallBlock:], content(uint64(100+i*blocks+block), smallBlock))
		}
		p := onePoint("a", fmt.Sprint("state", i), data)
		p.Created = at(i + 1)
		points = append(points, p)
	}
	return points
}

// fourStates is a repository with four such points, copied one after the other, whose blocks lie all over it therefore.
func fourStates(t *testing.T) (*memory.Store, []*sourcetest.Point, *repo.Repository) {
	t.Helper()
	store, points := initialized(t, repo.Options{}), manyStates(4, 40)
	r := must(openSmall(t.Context(), store, ""))(t)
	t.Cleanup(func() { closeRepo(t, r) })
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	return store, points, r
}

// The newest point's blocks lie in order after a compaction, also after reclaim; a second one finds nothing to do; nothing
// is lost.
func TestCompact(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := manyStates(6, 60)
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	report := compact(t, r, repo.CompactOptions{})
	if len(report.Before) != 1 || report.Blocks == 0 || report.After[0].Runs*4 > report.Before[0].Runs || report.After[0].Blocks != report.Before[0].Blocks {
		t.Fatalf("%+v", report)
	}
	check(t, r, points...)
	if again := compact(t, r, repo.CompactOptions{}); again.Blocks > 0 {
		t.Errorf("a second compaction: %+v", again)
	}
	forget(t, r, points[:5]...)
	for range 6 {
		reclaim(t, r, atOnce())
	}
	fresh := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, fresh)
	check(t, fresh, points[5])
	if last := compact(t, fresh, repo.CompactOptions{}); last.Blocks > 0 || last.Before[0].Runs > report.After[0].Runs+2 {
		t.Errorf("after reclaim: %+v, was %+v", last, report.After[0])
	}
	if use := reclaim(t, fresh, atOnce()).Use; use.Dead > use.Live/2 {
		t.Errorf("the old places are not given back: %+v", use)
	}
}

// A budget ends it in order, and the next run goes on.
func TestCompactWithinABudget(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := append(manyStates(4, 40), manyStates(1, 40)...)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for _, p := range points[:4] {
		mustCopyAll(t, r, p)
	}
	if report := compact(t, r, repo.CompactOptions{MaxBytes: 1}); report.Stopped == "" || report.Blocks > 0 {
		t.Errorf("%+v", report)
	}
	if report := compact(t, r, repo.CompactOptions{}); report.Stopped != "" || report.Blocks == 0 {
		t.Errorf("%+v", report)
	}
	check(t, r, points[:4]...)
}

// A compaction that finds no space for its log entry leaves nothing behind that takes what space there is.
func TestCompactIntoAFullStorage(t *testing.T) {
	store, points, r := fourStates(t)
	before := store.Names("packs/")
	fullBut(store, "log/", -1)
	if _, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd}); !errors.Is(err, storage.ErrFull) {
		t.Errorf("%v", err)
	}
	if after := store.Names("packs/"); !slices.Equal(after, before) {
		t.Errorf("%d packs before, %d after", len(before), len(after))
	}
	store.SetFault(nil)
	if report := compact(t, r, repo.CompactOptions{}); report.Blocks == 0 {
		t.Errorf("%+v", report)
	}
	check(t, r, points...)
}

// A compaction of which the pack is taken for garbage before it is named loses nothing.
func TestCompactedPackTakenForGarbage(t *testing.T) {
	store, points, r := fourStates(t)
	beforeNext(store, r, func() {
		for range 2 {
			reclaimBeside(t, place{store: store})
		}
	})
	report, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd})
	if err != nil && !errors.Is(err, repo.ErrCondemned) || report.Stopped == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	store.SetFault(nil)
	check(t, r, points...)
	if report := compact(t, r, repo.CompactOptions{}); report.Blocks == 0 || report.Stopped != "" {
		t.Errorf("the next one: %+v", report)
	}
	check(t, r, points...)
}

// leisurelyStore counts the packs that it is asked for by work that gives way, and by other work.
type leisurelyStore struct {
	storage.Store
	idle, other atomic.Int64
}

func (s *leisurelyStore) count(ctx context.Context, name string) {
	switch {
	case !strings.HasPrefix(name, "packs/"):
	case idle.IsAccess(ctx):
		s.idle.Add(1)
	default:
		s.other.Add(1)
	}
}

func (s *leisurelyStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	s.count(ctx, name)
	return s.Store.Open(ctx, name)
}

func (s *leisurelyStore) Create(ctx context.Context, name string) (storage.Writer, error) {
	s.count(ctx, name)
	return s.Store.Create(ctx, name)
}

// A compaction reads and writes only while nobody else does, and rests between pieces for who asks for it.
func TestCompactGivesWay(t *testing.T) {
	store := &leisurelyStore{Store: initialized(t, repo.Options{})}
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	for _, p := range manyStates(6, 60) {
		mustCopyAll(t, r, p)
	}
	if n := store.idle.Load(); n > 0 {
		t.Errorf("copies gave way %d times", n)
	}
	store.other.Store(0)
	rests := 0
	report := compact(t, r, repo.CompactOptions{Rest: func(_ context.Context, worked time.Duration) error {
		if rests++; worked < 0 {
			t.Errorf("worked %s", worked)
		}
		return nil
	}})
	if report.Blocks == 0 || rests == 0 || store.idle.Load() == 0 || store.other.Load() > 0 {
		t.Errorf("%d blocks, %d rests, %d calls that gave way and %d that did not", report.Blocks, rests, store.idle.Load(), store.other.Load())
	}
	enough := errors.New("enough")
	_, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd, Rest: func(context.Context, time.Duration) error { return enough }})
	if !errors.Is(err, enough) {
		t.Errorf("a rest ended it with %v", err)
	}
}
