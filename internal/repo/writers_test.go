package repo_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// onePoint is a point of one disk.
func onePoint(machine, native string, data []byte) *sourcetest.Point {
	return &sourcetest.Point{Machine: sourcetest.Machine(machine), Native: native, Created: at(1), Objects: []sourcetest.Object{
		{Name: "vda", Data: data, Access: source.AccessRandom},
	}}
}

// Several processes copy into one store at once: points of their own, one that all of them want, and shared content.
func TestWritersAtOnce(t *testing.T) {
	for _, lag := range []int{0, 50, -1} {
		t.Run(fmt.Sprint("listing lag ", lag), func(t *testing.T) {
			store := initialized(t, repo.Options{})
			store.SetListingLag(lag)
			shared := content(40, 40*smallBlock)
			common := onePoint("common", "c1", shared)
			points := []*sourcetest.Point{common}
			var writers sync.WaitGroup
			for i := range 4 {
				own := onePoint(fmt.Sprint("m", i), fmt.Sprint("p", i), changed(shared, uint64(50+i), 50*smallBlock))
				points = append(points, own)
				from := sourcetest.Open(t, own, common)
				writers.Go(func() {
					r, err := openSmall(context.Background(), store, "")
					if err != nil {
						t.Error(err)
						return
					}
					report, err := copyAll(context.Background(), r, from)
					if err := errors.Join(err, stepErrors(report), r.Close()); err != nil {
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			writers.Wait()
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			for _, p := range points {
				if !r.Has(p.ID()) {
					t.Errorf("%s is missing", p.Native)
				}
			}
			check(t, r, points...)
			if n := len(store.Names("log/")); uint64(n) != r.Usage().Entries {
				t.Errorf("%d entries of %d were read", r.Usage().Entries, n)
			}
		})
	}
}

// Two movers of one ingest: a block that one is just encoding is not there yet for the other.
func TestPointsOfOneIngestDoNotOvertakeTheirBlocks(t *testing.T) {
	for round := range 5 {
		store := initialized(t, repo.Options{BlockSize: 1 << 20}) // takes long to encode
		r := must(openSmall(t.Context(), store, ""))(t)
		ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
		data := content(uint64(round+70), 2<<20)
		points := []*sourcetest.Point{onePoint("a", "a", data), onePoint("b", "b", data), onePoint("c", "c", data)}
		var copies sync.WaitGroup
		for _, p := range points {
			m := mover.New(ingest, mover.Options{Job: "manual", Codec: mover.CodecZstd})
			copies.Go(func() {
				err := m.Copy(t.Context(), p.Described(), func(_ mover.Result, err error) {
					if err != nil {
						t.Error(err)
					}
				})
				if err = errors.Join(err, ingest.Flush(t.Context())); err != nil {
					t.Error(err)
				}
				// What a crash right after this commit leaves must be whole.
				if then, err := openSmall(t.Context(), store.Clone(), ""); err != nil {
					t.Error(err)
				} else {
					check(t, then, points...)
					if !then.Has(p.ID()) {
						t.Errorf("%s is not there after a flush", p.Native)
					}
					closeRepo(t, then)
				}
			})
		}
		copies.Wait()
		if err := ingest.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		check(t, r, points...)
		closeRepo(t, r)
	}
}

// condemn gives packs up, as another program does, without copying out what they hold.
func condemn(t testing.TB, store *memory.Store, payload commitlog.Payload) {
	t.Helper()
	other := must(openSmall(context.Background(), store, ""))(t)
	if err := other.AppendEntry(context.Background(), &payload); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, other)
}

func packsOf(r *repo.Repository) []format.Name {
	var names []format.Name
	for name := range r.State().Packs.All() {
		names = append(names, name)
	}
	return names
}

// reachable returns all ids that a point's trees need.
func reachable(t testing.TB, r *repo.Repository, id backup.PointID) []format.ID {
	t.Helper()
	p := must(r.ReadPoint(t.Context(), id))(t)
	var ids []format.ID
	for _, root := range p.Roots {
		if root == nil {
			continue
		}
		load := func(ctx context.Context, id format.ID) ([]byte, error) {
			ids = append(ids, id)
			return r.LoadNode(ctx, id)
		}
		for blocks, err := range tree.Leaves(t.Context(), load, *root) {
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range blocks {
				ids = append(ids, block.ID)
			}
		}
	}
	return ids
}

// Packs that a copy relies on are given up while it runs, at different moments: what it commits must not need them.
func TestCondemnedWhileCopying(t *testing.T) {
	shared := content(60, 40*smallBlock)
	old := onePoint("old", "old", shared)
	for _, when := range []string{"first read", "last read", "between points", "resumed", "base removed"} {
		t.Run(when, func(t *testing.T) {
			store := initialized(t, repo.Options{})
			first := must(openSmall(t.Context(), store, ""))(t)
			mustCopyAll(t, first, old)
			gone := commitlog.Payload{Condemned: packsOf(first), PointsRemoved: []backup.PointID{old.ID()}}
			closeRepo(t, first)

			p := onePoint("new", "new", changed(shared, 61, 80*smallBlock))
			q := onePoint("new", "newer", changed(p.Objects[0].Data, 62, 80*smallBlock))
			q.Created = at(2)
			points := []*sourcetest.Point{p, q}
			var once sync.Once
			trigger := func() { once.Do(func() { condemn(t, store, gone) }) }
			switch when {
			case "first read":
				p.OnRead = func(_ int, _ int64, n int) (int, error) { trigger(); return n, nil }
			case "last read":
				p.OnRead = func(_ int, offset int64, n int) (int, error) {
					if offset+int64(n) == int64(len(p.Objects[0].Data)) {
						trigger()
					}
					return n, nil
				}
			case "between points":
				q.OnRead = func(_ int, _ int64, n int) (int, error) { trigger(); return n, nil }
			case "resumed":
				// An interrupted copy has noted blocks of the old packs as stored; then those are given up.
				p.Revalidated = errInjected
				r := must(openSmall(t.Context(), store, ""))(t)
				_, _ = copyAll(t.Context(), r, sourcetest.Open(t, p))
				closeRepo(t, r)
				p.Revalidated = nil
				p.Objects[0].Extents = func(*backup.Base) []backup.Extent {
					trigger() // when all is resumed; nothing is read any more
					return []backup.Extent{{Offset: 0, Length: 80 * smallBlock}}
				}
			case "base removed":
				// Subtrees are taken over from a base whose packs this copy never looks at.
				p.Machine, p.Base, p.Objects[0].Data = old.Machine, old, changed(shared, 63, 40*smallBlock)
				p.OnRead = func(_ int, _ int64, n int) (int, error) { trigger(); return n, nil }
			}
			if when == "resumed" || when == "base removed" {
				points = points[:1] // the other would store again what the first may miss
			}
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			mustCopyAll(t, r, points...)
			for _, id := range gone.Condemned {
				if r.State().Live(id) {
					t.Fatal("nothing was given up: the test is wrong")
				}
			}
			wantIndependent(t, r, gone.Condemned, points)
			// The condemned packs are deleted at last: nobody may miss them, nor find anything in them.
			for _, name := range gone.Condemned {
				if err := store.Delete(t.Context(), "packs/"+name.String()[:2]+"/"+name.String()); err != nil {
					t.Fatal(err)
				}
			}
			condemn(t, store, commitlog.Payload{Deleted: gone.Condemned})
			then := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, then)
			check(t, then, points...)
			again := onePoint("another", "another", shared)
			mustCopyAll(t, then, again)
			check(t, then, append(points, again)...)
		})
	}
}

func wantIndependent(t *testing.T, r *repo.Repository, condemned []format.Name, points []*sourcetest.Point) {
	t.Helper()
	bad := map[format.Name]bool{}
	for _, name := range condemned {
		bad[name] = true
	}
	for _, p := range points {
		for _, id := range reachable(t, r, p.ID()) {
			packs := must(r.PlacesOf(t.Context(), id))(t)
			if len(packs) == 0 || bad[packs[0]] {
				t.Fatalf("%s needs %s, which only condemned packs have", p.Native, id)
			}
		}
	}
}

// A condemned pack stays readable until it is deleted, whether a segment covers it or not; verification does not rely on it.
func TestCondemnedPacksStayReadable(t *testing.T) {
	for _, size := range []int{10, 200} { // few packs, in no segment; and many
		store := initialized(t, repo.Options{})
		r := must(openSmall(t.Context(), store, ""))(t)
		p := onePoint("m", "p", content(65, size*smallBlock))
		mustCopyAll(t, r, p)
		condemn(t, store, commitlog.Payload{Condemned: packsOf(r)})
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		then := must(openSmall(t.Context(), store, ""))(t)
		for _, reader := range []*repo.Repository{r, then} {
			if err := compare(t.Context(), reader, p); err != nil {
				t.Error(err)
			}
		}
		if report := must(then.Verify(t.Context(), nil))(t); report.DamagedPoints != 1 {
			t.Errorf("nothing is said of what will be deleted: %+v", report)
		}
		closeRepo(t, r)
		closeRepo(t, then)
	}
}

// A point that cannot be written down is its own machine's trouble.
func TestPointThatCannotBeWrittenDown(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	late := onePoint("late", "late", content(66, 9*smallBlock))
	good := onePoint("z", "good", content(67, 9*smallBlock))
	from := sourcetest.Open(t, late, good)
	for i := range from.Points { // behind the listing, which calls such a point broken
		if from.Points[i].ID == late.ID() {
			from.Points[i].Created = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	report, err := copyAll(t.Context(), r, from)
	if err != nil || stepErrors(report) == nil || report.Copied() != 1 || r.Has(late.ID()) {
		t.Fatalf("copied %d, %v, %v", report.Copied(), stepErrors(report), err)
	}
	check(t, r, good)
}
