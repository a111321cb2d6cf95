package repo_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/restore"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// noise are bytes that cannot be compressed, the same for the same seed.
func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 9}).Read(data)
	return data
}

// pagesWritten returns a copy in which one of so many blocks is another, at random places.
func pagesWritten(data []byte, seed uint64, block, oneOf int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	next := append([]byte(nil), data...)
	for at := 0; at+block <= len(next); at += block {
		if random.IntN(oneOf) == 0 {
			copy(next[at:], noise(seed*5000+uint64(at/block), block))
		}
	}
	return next
}

// nightly are points of a machine, each of which differs from the one before by random blocks.
func nightly(machine string, data []byte, block, oneOf, points int) []*sourcetest.Point {
	var states []*sourcetest.Point
	for i := range points {
		if i > 0 {
			data = pagesWritten(data, uint64(i), block, oneOf)
		}
		p := onePoint(machine, fmt.Sprint(machine, i), data)
		p.Created = at(i + 1)
		states = append(states, p)
	}
	return states
}

// lying is how the newest points lie, by machine.
func lying(t *testing.T, r *repo.Repository) map[format.Name]repo.Fragmentation {
	t.Helper()
	found := map[format.Name]repo.Fragmentation{}
	for _, f := range must(r.Analyze(t.Context(), scratch))(t).Fragmentation {
		found[f.Machine] = f
	}
	return found
}

// readsToRestore restores a point and counts the reads of packs with blocks.
func readsToRestore(t *testing.T, r *repo.Repository, store *memory.Store, p *sourcetest.Point) int {
	t.Helper()
	blocks := map[string]bool{}
	for id, p := range r.State().Packs.All() {
		blocks["packs/"+id.String()[:2]+"/"+id.String()] = p.Kind == "data"
	}
	point := must(r.ReadPoint(t.Context(), p.ID()))(t)
	var reads atomic.Int64
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpRead && blocks[name] {
			reads.Add(1)
		}
		return nil
	})
	defer store.SetFault(nil)
	if _, err := restore.Restore(t.Context(), r, point, t.TempDir(), restore.Options{}); err != nil {
		t.Fatal(err)
	}
	return int(reads.Load())
}

// What is said of how a point lies is what a restore of it reads, exactly: after the first copy, after many more, after a compaction and
// after a reclaim; where what is read at once is bounded by leaves, by packs, and by 4 MiB.
func TestFragmentationIsWhatARestoreReads(t *testing.T) {
	for _, c := range []struct {
		name                   string
		blockSize, disk, packs int
	}{
		{"small blocks", 4 << 10, 5 << 19, 300 << 10},
		{"common blocks", 128 << 10, 36 << 20, 12 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := initialized(t, repo.Options{BlockSize: c.blockSize})
			r := must(openSmall(t.Context(), store, newCache(t)))(t)
			defer closeRepo(t, r)
			r.SetPackTargets(int64(c.packs), 1<<20)
			data := noise(1, c.disk)
			copy(data[c.disk/2:], data[:c.disk/5]) // what is on a disk twice
			clear(data[c.disk/3 : c.disk/3+5*c.blockSize])
			points := nightly("a", data, c.blockSize, 8, 5)
			text := []byte(strings.Repeat("what can be compressed, ", c.disk/8/24))
			for i := range text {
				text[i] += byte(i / 997 % 13)
			}
			points[4].Objects = append(points[4].Objects,
				sourcetest.Object{Name: "vdb", Data: text, Access: source.AccessRandom},
				sourcetest.Object{Name: "files", Data: noise(3, c.disk/4), Access: source.AccessOnePass, Shifting: true})
			same := func(when string, p *sourcetest.Point) int {
				t.Helper()
				all := lying(t, r)
				if len(all) != 1 {
					t.Fatalf("%s: %+v", when, all)
				}
				reads := readsToRestore(t, r, store, p)
				for _, f := range all {
					if f.Runs != reads || f.InOrder > f.Runs || f.InOrder == 0 {
						t.Errorf("%s: a restore reads %d times: %+v", when, reads, f)
					}
				}
				return reads
			}
			mustCopyAll(t, r, points[0])
			same("after the first copy", points[0])
			mustCopyAll(t, r, points[1:]...)
			last := same("after all", points[4])
			report := compact(t, r, repo.CompactOptions{})
			compacted := same("compacted", points[4])
			if last < 4*report.Before[0].InOrder || compacted > last/2 || report.Before[0].Runs != last || report.After[0].Runs != compacted {
				t.Errorf("%d reads after all, %d compacted: %+v", last, compacted, report)
			}
			// A process that reads the log and the index anew finds what was written last, wherever it finds it: in tables, in segments, or in one
			// segment that has all places of a block.
			anew := func(when string) {
				t.Helper()
				other := must(openSmall(t.Context(), store, newCache(t)))(t)
				defer closeRepo(t, other)
				lying(t, other) // it has read the packs' tables then
				if reads := readsToRestore(t, other, store, points[4]); reads != compacted {
					t.Errorf("%s: %d reads by another process, %d by the one that compacted", when, reads, compacted)
				}
			}
			anew("compacted")
			must(r.Reindex(t.Context(), true, nil))(t)
			same("indexed anew", points[4])
			anew("indexed anew")
			forget(t, r, points[:4]...)
			for range 3 {
				reclaim(t, r, atOnce())
			}
			same("after reclaim", points[4])
			check(t, r, points[4])
		})
	}
}

// Of segments that have a block, the one is asked first that covers what was written last.
func TestWhatWasWrittenLastIsReadFromSegments(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	points := nightly("a", noise(1, 1<<20), smallBlock, 4, 4)
	mustCopyAll(t, r, points...)
	must(r.Reindex(t.Context(), true, nil))(t)
	report := compact(t, r, repo.CompactOptions{})
	must(r.Reindex(t.Context(), false, nil))(t)
	if segments := len(r.State().Index); segments != 2 || report.After[0].Runs*2 > report.Before[0].Runs {
		t.Fatalf("%d segments, %+v", segments, report)
	}
	for range 8 { // the log's segments come in no order
		other := must(openSmall(t.Context(), store, newCache(t)))(t)
		for _, f := range lying(t, other) {
			if f.Runs != report.After[0].Runs {
				t.Errorf("%+v by another process, %+v by the one that compacted", f, report.After[0])
			}
		}
		closeRepo(t, other)
	}
}

// What was copied at once is left alone. What many copies have scattered is written again, once, and a restore reads less often then.
func TestCompactChoosesWhatIsScattered(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each has its part in how a first copy lies
	const block = 128 << 10
	store := initialized(t, repo.Options{BlockSize: block})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	r.SetPackTargets(32<<20, 1<<20)
	points := nightly("a", noise(1, 64<<20), block, 10, 8)
	mustCopyAll(t, r, points[0])
	if first := compact(t, r, repo.CompactOptions{}); first.Blocks > 0 {
		t.Errorf("after the first copy: %+v", first)
	}
	first := readsToRestore(t, r, store, points[0])
	mustCopyAll(t, r, points[1:]...)
	before := readsToRestore(t, r, store, points[7])
	report := compact(t, r, repo.CompactOptions{})
	after := readsToRestore(t, r, store, points[7])
	if report.Blocks == 0 || before < 3*first || after > first || after != report.Before[0].InOrder {
		t.Errorf("%d reads after the first copy, %d after all, %d compacted: %+v", first, before, after, report)
	}
	if again := compact(t, r, repo.CompactOptions{}); again.Blocks > 0 {
		t.Errorf("again: %+v", again)
	}
}

// Machines that share much do not take it from each other in every run: what one run has left, the next leaves alone. So do the parts of a
// disk that are equal.
func TestCompactLeavesWhatIsShared(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	r.SetPackTargets(1<<20, 1<<20)
	data := noise(1, 4<<20)
	for at := 0; at < 1<<20; at += 16 * smallBlock { // of the first leaf, some blocks are in each of the others too, elsewhere
		for leaf := 1; leaf < 4; leaf++ {
			copy(data[leaf<<20+(at+7*leaf*smallBlock)%(1<<20):], data[at:at+smallBlock])
		}
	}
	var points []*sourcetest.Point
	for i, machine := range []string{"a", "b", "c"} {
		points = append(points, nightly(machine, pagesWritten(data, uint64(100+i), smallBlock, 5), smallBlock, 6, 4)...)
	}
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	first := compact(t, r, repo.CompactOptions{})
	for run := range 3 {
		report := compact(t, r, repo.CompactOptions{})
		if report.Blocks > 0 {
			t.Errorf("run %d after the first writes again: %+v", run+1, report)
		}
	}
	before, after := 0, 0
	for i := range first.Before {
		before, after = before+first.Before[i].Runs, after+first.After[i].Runs
	}
	if first.Blocks == 0 || after >= before {
		t.Errorf("%d reads before, %d after: %+v", before, after, first)
	}
	check(t, r, points...)
}
