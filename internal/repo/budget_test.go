package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// opens notes which packs are opened.
func opens(store *memory.Store) (since func() map[string]bool) {
	var mu sync.Mutex
	opened := map[string]bool{}
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && strings.HasPrefix(name, "packs/") {
			mu.Lock()
			defer mu.Unlock()
			opened[name] = true
		}
		return nil
	})
	return func() map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		found := opened
		opened = map[string]bool{}
		return found
	}
}

// A budgeted verification begins with what was never proven, and goes on with what was proven longest ago.
func TestTheOldestProofIsRenewedFirst(t *testing.T) {
	store, _ := manyPacks(t)
	time0 := newClock()
	const month = 30 * 24 * time.Hour
	night := func(maxBytes int64) map[string]bool {
		t.Helper()
		r := time0.opened(t, store)
		read := opens(store)
		verified(t, r, repo.VerifyOptions{Level: repo.LevelStored, MaxBytes: maxBytes, NotSince: month})
		return read()
	}
	total, proven := len(store.Names("packs/")), map[string]int{}
	nights := 0
	for ; len(proven) < total; nights++ {
		for name := range night(3 * smallPack) {
			if before, again := proven[name]; again {
				t.Fatalf("%s is read in night %d, and was in night %d", name, nights, before)
			}
			proven[name] = nights
		}
		time0.forward(24 * time.Hour)
	}
	if nights < 3 {
		t.Fatalf("all %d packs are read in %d nights: the test shows little", total, nights)
	}
	time0.forward(2 * month) // all are due
	r := time0.opened(t, store)
	mustCopyAll(t, r, onePoint("new", "new", content(200, 5*smallBlock)))
	fresh := len(store.Names("packs/")) - total
	last := -1 // those that were never proven
	for first := true; len(proven) > 0; first = false {
		read := night(1) // one pack
		if len(read) != 1 {
			t.Fatalf("%d packs are read: %v", len(read), read)
		}
		for name := range read {
			of, known := proven[name]
			if !known {
				of = -1
				fresh--
			}
			if first && known || of < last {
				t.Fatalf("a proof of night %d is renewed after one of night %d", of, last)
			}
			last = of
			delete(proven, name)
		}
		time0.forward(time.Minute)
	}
	if fresh != 0 {
		t.Errorf("%d new packs were not read first", fresh)
	}
}

// scattered is a repository with a machine of several disks, whose blocks lie all over the packs of several states.
func scattered(t *testing.T, disks, states, blocks int) (*memory.Store, []*sourcetest.Point) {
	t.Helper()
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	content0 := make([][]byte, disks)
	for d := range content0 {
		content0[d] = content(uint64(10+d), blocks*smallBlock)
	}
	var points []*sourcetest.Point
	for state := range states {
		p := onePoint("a", fmt.Sprint("state", state), nil)
		p.Created, p.Objects = at(state+1), nil
		for d := range content0 {
			data := append([]byte(nil), content0[d]...)
			for block := state; block < blocks; block += states {
				copy(data[block*smallBlock:], content(uint64(1000+(d*states+state)*blocks+block), smallBlock))
			}
			content0[d] = data
			p.Objects = append(p.Objects, sourcetest.Object{Name: fmt.Sprintf("vd%c", 'a'+d), Data: data, Access: source.AccessRandom})
		}
		points = append(points, p)
		mustCopyAll(t, r, p)
	}
	return store, points
}

// A compaction within a budget does a part, and the next one goes on where it ended.
func TestCompactionWithinABudgetGoesOn(t *testing.T) {
	original, points := scattered(t, 5, 6, 24)
	whole := compact(t, must(openSmall(t.Context(), original.Clone(), ""))(t), repo.CompactOptions{})
	if whole.Blocks == 0 || whole.Stopped != "" {
		t.Fatalf("%+v", whole)
	}
	for what, options := range map[string]repo.CompactOptions{
		"bytes": {MaxBytes: whole.Read + whole.Written - 1}, "time": {MaxTime: 150 * time.Minute},
	} {
		store, time0 := original.Clone(), newClock()
		blocks, runs := 0, 0
		for done := false; !done && runs < 20; runs++ {
			r := time0.opened(t, store)
			store.SetFault(func(op memory.Op, name string) error {
				if op == memory.OpCreate && strings.HasPrefix(name, "packs/") { // a pack for a piece or two
					time0.forward(time.Hour)
				}
				return nil
			})
			report := compact(t, r, options)
			store.SetFault(nil)
			if options.MaxBytes > 0 && report.Read+report.Written > options.MaxBytes {
				t.Errorf("%s: %d bytes read, %d written, of %d", what, report.Read, report.Written, options.MaxBytes)
			}
			if done = report.Stopped == ""; !done && (!strings.HasPrefix(report.Stopped, "the "+what) || report.Blocks == 0 || report.Blocks >= whole.Blocks) {
				t.Fatalf("%s: %+v", what, report)
			}
			blocks += report.Blocks
			check(t, r, points...)
		}
		if blocks != whole.Blocks || runs < 2 {
			t.Errorf("%s: %d blocks in %d runs, want the %d of a whole one", what, blocks, runs, whole.Blocks)
		}
		r := time0.opened(t, store)
		check(t, r, points...)
		if again := compact(t, r, repo.CompactOptions{}); again.Blocks > 0 {
			t.Errorf("%s: done, and again %+v", what, again)
		}
	}
}

// Blocks that lie in order, and were encoded with a fast codec, are encoded denser; those that are dense stay.
func TestCompactionEncodesDenser(t *testing.T) {
	text := []byte(strings.Repeat("what can be compressed, ", 40*smallBlock/24))
	for i := range text {
		text[i] += byte(i / 997 % 13)
	}
	for codec, dense := range map[mover.Codec]bool{mover.CodecS2: false, mover.CodecZstd: true} {
		r := must(openSmall(t.Context(), initialized(t, repo.Options{}), ""))(t)
		point := onePoint("a", "a", text)
		steps := plan.Make([]backup.Point{point.Described().Point}, r.HasWhole, plan.Request{All: true})
		report, err := job.Copy(t.Context(), sourcetest.Open(t, point), r, steps, job.Options{Codec: codec})
		if err = errors.Join(err, stepErrors(report)); err != nil {
			t.Fatal(err)
		}
		first := compact(t, r, repo.CompactOptions{})
		if first.Before[0].Runs > 4 {
			t.Fatalf("it does not lie in order: %+v", first.Before)
		}
		if dense && first.Blocks > 0 || !dense && (first.Blocks < 30 || first.Written >= first.Read) {
			t.Errorf("%s: %+v", codec, first)
		}
		if again := compact(t, r, repo.CompactOptions{}); again.Blocks > 0 {
			t.Errorf("%s: again %+v", codec, again)
		}
		check(t, r, point)
		closeRepo(t, r)
	}
}

// A reclaim within a budget of bytes moves some packs, and the next one goes on.
func TestReclaimWithinABudgetGoesOn(t *testing.T) {
	store, points := scattered(t, 2, 6, 60)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	forget(t, r, points[:5]...)
	moving := func() (bytes int64, packs int) {
		t.Helper()
		dry := must(r.Reclaim(t.Context(), repo.ReclaimOptions{DryRun: true, Policy: atOnce(), TempDir: scratch}))(t)
		for _, step := range dry.Steps {
			if step.Action == repo.ReclaimRepack {
				bytes, packs = bytes+step.LiveBytes, packs+1
			}
		}
		return bytes, packs
	}
	bytes, packs := moving()
	if packs < 6 {
		t.Fatalf("only %d packs are to be moved", packs)
	}
	options := repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch, MaxBytes: bytes} // half of it, because it is read and written
	report := must(r.Reclaim(context.Background(), options))(t)
	if report.Moved.Packs == 0 || report.Moved.Packs >= packs || report.Stopped != "the bytes given are used up" || 2*report.Written.Bytes > options.MaxBytes*11/10 {
		t.Errorf("%d bytes of %d packs were to be moved: %+v", bytes, packs, report)
	}
	check(t, r, points[5])
	for runs := 1; ; runs++ {
		left, _ := moving()
		if left == 0 {
			break
		}
		if runs > 10 {
			t.Fatalf("%d bytes are left after %d runs", left, runs)
		}
		must(r.Reclaim(context.Background(), options))(t)
		if now, _ := moving(); now >= left {
			t.Fatalf("%d bytes were to be moved, and %d after another run", left, now)
		}
		check(t, r, points[5])
	}
}
