package catalog

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

// mirrorModel is what the mirrors of two repositories should have.
type mirrorModel struct {
	catalog *Catalog
	at      map[string]Head
	points  map[string]map[backup.PointID]MirrorPoint
	heads   uint64
}

var mirrored = []string{"vault", "attic"}

// anyPoint draws one of few points, so that the same come again with other claims, times and damage.
func anyPoint(t *rapid.T) MirrorPoint {
	number := rapid.IntRange(0, 3).Draw(t, "machine")
	p := testPoint(number, rapid.IntRange(0, 4).Draw(t, "point"), time.Unix(int64(rapid.IntRange(-3, 3).Draw(t, "created")), 0).UTC())
	p.Damaged = rapid.Bool().Draw(t, "damaged")
	p.Claims = nil
	for _, job := range []string{"a", "b%", "c\n"} {
		if rapid.Bool().Draw(t, "claimed by "+job) {
			p.Claims = append(p.Claims, MirrorClaim{Job: job, Reason: "short-term", Flags: rapid.SampledFrom([][]string{{}, {"weekly"}, {"weekly", "yearly"}}).Draw(t, "flags")})
		}
	}
	return p
}

func (m *mirrorModel) nextHead() Head { m.heads++; return head(m.heads) }

func (m *mirrorModel) replace(t *rapid.T) {
	repository := rapid.SampledFrom(mirrored).Draw(t, "repository")
	points := rapid.SliceOfN(rapid.Custom(anyPoint), 0, 12).Draw(t, "points")
	to := m.nextHead()
	if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
		failure := errors.New("unreadable")
		if err := m.catalog.Mirror.Replace(context.Background(), repository, to, sequence(failure, points...)); !errors.Is(err, failure) {
			t.Fatalf("a failing replacement: %v", err)
		}
		return
	}
	if err := replaceWith(m.catalog, repository, to, points...); err != nil {
		t.Fatal(err)
	}
	m.at[repository], m.points[repository] = to, map[backup.PointID]MirrorPoint{}
	for _, p := range points {
		m.points[repository][p.ID] = p
	}
}

func (m *mirrorModel) apply(t *rapid.T) {
	repository := rapid.SampledFrom(mirrored).Draw(t, "repository")
	put := rapid.SliceOfN(rapid.Custom(anyPoint), 0, 6).Draw(t, "put")
	var removed []backup.PointID
	for _, p := range rapid.SliceOfN(rapid.Custom(anyPoint), 0, 4).Draw(t, "removed") {
		removed = append(removed, p.ID)
	}
	from, there := m.at[repository]
	stale := rapid.IntRange(0, 3).Draw(t, "stale") == 0
	if stale || !there {
		from = head(1_000_000)
	}
	to := m.nextHead()
	err := m.catalog.Mirror.Apply(context.Background(), repository, from, to, Changes{Put: put, Removed: removed})
	if stale || !there {
		if !errors.Is(err, ErrMirrorMoved) {
			t.Fatalf("from another head: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.at[repository] = to
	for _, id := range removed {
		delete(m.points[repository], id)
	}
	for _, p := range put {
		m.points[repository][p.ID] = p
	}
}

func (m *mirrorModel) drop(t *rapid.T) {
	repository := rapid.SampledFrom(mirrored).Draw(t, "repository")
	if err := m.catalog.Mirror.Drop(context.Background(), repository); err != nil {
		t.Fatal(err)
	}
	delete(m.at, repository)
	delete(m.points, repository)
}

// check compares the points of every machine, and how old each job's copies are.
func (m *mirrorModel) check(t *rapid.T) {
	ctx := context.Background()
	all := 0
	for _, repository := range mirrored {
		all += len(m.points[repository])
		at, err := m.catalog.Mirror.Head(ctx, repository)
		if want, there := m.at[repository]; at != want || there == errors.Is(err, ErrNotFound) {
			t.Fatalf("%s is at %+v, %v, want %+v", repository, at, err, want)
		}
		newest := map[string]time.Time{} // of job a
		for number := range 4 {
			want := slices.DeleteFunc(slices.Collect(maps.Values(m.points[repository])), func(p MirrorPoint) bool { return p.Machine.Name != machine(number).Name })
			slices.SortFunc(want, func(a, b MirrorPoint) int {
				if by := a.Created.Compare(b.Created); by != 0 {
					return by
				}
				return slices.Compare(a.ID[:], b.ID[:])
			})
			got, err := m.catalog.Mirror.Points(ctx, repository, machine(number).Key)
			if err != nil || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
				t.Fatalf("%s has of vm%d %+v, %v, want %+v", repository, number, got, err, want)
			}
			for _, p := range want {
				if !p.Damaged && slices.ContainsFunc(p.Claims, func(c MirrorClaim) bool { return c.Job == "a" }) {
					newest[p.Machine.Name] = p.Created
				}
			}
		}
		ages, err := m.catalog.Status.OldestCopies(ctx, "a", repository, 10)
		if err != nil || len(ages) != 4 {
			t.Fatalf("%d ages, %v", len(ages), err)
		}
		for i, age := range ages {
			want, has := newest[age.Machine.Name]
			if has != (age.Point != nil) || has && !age.Created.Equal(want) {
				t.Fatalf("%s: the newest copy of %s is of %v, want %v", repository, age.Machine.Name, age, want)
			}
			if i > 0 && (age.Point == nil && ages[i-1].Point != nil || age.Point != nil && age.Created.Before(ages[i-1].Created)) {
				t.Fatalf("%s: out of order: %+v", repository, ages)
			}
		}
	}
	for table, want := range map[string]int{"points": all, "editions": len(m.at), "mirrors": len(m.at)} {
		var n int
		if err := m.catalog.db.reader.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&n); err != nil || n != want {
			t.Fatalf("%d rows in %s, %v, want %d", n, table, err, want)
		}
	}
}

// Whatever is replaced, applied, refused, failed and dropped: each mirror has exactly the points of its head, and nothing is left
// over.
func TestMirrorsAgainstAModel(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		must(t, c.Jobs.Select(t.Context(), "a", []backup.Machine{machine(0), machine(1), machine(2), machine(3)}))
		var heads uint64
		rapid.Check(t, func(t *rapid.T) {
			m := &mirrorModel{catalog: c, at: map[string]Head{}, points: map[string]map[backup.PointID]MirrorPoint{}, heads: heads}
			for _, repository := range mirrored {
				if err := c.Mirror.Drop(context.Background(), repository); err != nil {
					t.Fatal(err)
				}
			}
			t.Repeat(map[string]func(*rapid.T){"replace": m.replace, "apply": m.apply, "drop": m.drop, "": m.check})
			heads = m.heads
		})
		if heads == 0 {
			t.Error("nothing was done")
		}
	})
}
