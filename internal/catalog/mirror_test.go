package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"ferry/internal/backup"
)

func head(n uint64) Head {
	return Head{RepositoryID: "0123", Number: n, Checksum: fmt.Sprintf("checksum %d", n)}
}

// testPoint is point n of a machine, kept by job offsite.
func testPoint(machineNumber, n int, created time.Time) MirrorPoint {
	m := machine(machineNumber)
	return MirrorPoint{
		ID: pointID(machineNumber, n), Machine: &m, Pseudonym: fmt.Sprintf("pseudonym-%d", machineNumber), Created: created, State: backup.StateComplete, Size: 10 << 30,
		Claims: []MirrorClaim{{Job: "offsite", Reason: "short-term", Flags: []string{"weekly", "monthly"}}},
	}
}

// sequence yields points, then an error if there is one.
func sequence(err error, points ...MirrorPoint) iter.Seq2[MirrorPoint, error] {
	return func(yield func(MirrorPoint, error) bool) {
		for _, p := range points {
			if !yield(p, nil) {
				return
			}
		}
		if err != nil {
			yield(MirrorPoint{}, err)
		}
	}
}

func replaceWith(c *Catalog, repository string, to Head, points ...MirrorPoint) error {
	return c.Mirror.Replace(context.Background(), repository, to, sequence(nil, points...))
}

func TestMirrorHasWhatTheRepositoryHas(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		if _, err := c.Mirror.Head(ctx, "vault"); !errors.Is(err, ErrNotFound) {
			t.Errorf("before: %v", err)
		}
		locked := MirrorPoint{ID: pointID(9, 1), Pseudonym: "only this\xff", Created: clock.now(), State: backup.StateLocked, Reason: "being written", Size: backup.UnknownSize}
		damaged := testPoint(1, 2, clock.now().Add(1))
		damaged.Damaged, damaged.Claims = true, []MirrorClaim{{Job: "a", Flags: []string{"\x00"}}, {Job: "b", Reason: "hold", Flags: []string{}}}
		points := []MirrorPoint{damaged, testPoint(1, 1, clock.now()), locked}
		must(t, replaceWith(c, "vault", head(5), points...))
		at, err := c.Mirror.Head(ctx, "vault")
		if must(t, err); at != head(5) {
			t.Errorf("at %+v", at)
		}
		got, err := c.Mirror.Points(ctx, "vault", machine(1).Key)
		if must(t, err); !reflect.DeepEqual(got, []MirrorPoint{points[1], points[0]}) {
			t.Errorf("points of vm1: %+v", got)
		}
		one, err := c.Mirror.Point(ctx, "vault", locked.ID)
		if must(t, err); !reflect.DeepEqual(one, locked) {
			t.Errorf("a point without a name: %+v", one)
		}
		if _, err := c.Mirror.Point(ctx, "vault", pointID(5, 5)); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown point: %v", err)
		}
		must(t, replaceWith(c, "attic", head(1), points[1]))
		where, err := c.Mirror.Where(ctx, points[1].ID)
		if must(t, err); !slices.Equal(where, []string{"attic", "vault"}) {
			t.Errorf("it is in %v", where)
		}
	})
}

func TestTimesOutsideWhatCanBeKept(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		early, late, epoch := testPoint(1, 1, time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)), testPoint(1, 2, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), testPoint(1, 3, time.Unix(0, 0).UTC())
		must(t, replaceWith(c, "vault", head(1), late, epoch, early))
		got, err := c.Mirror.Points(t.Context(), "vault", machine(1).Key)
		must(t, err)
		if len(got) != 3 || !got[0].Created.Equal(time.Unix(0, math.MinInt64)) || !got[1].Created.Equal(epoch.Created) || !got[2].Created.Equal(time.Unix(0, math.MaxInt64)) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestApplyBringsAMirrorOn(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		first, second, third := testPoint(1, 1, clock.now()), testPoint(1, 2, clock.now().Add(1)), testPoint(1, 3, clock.now().Add(2))
		if err := c.Mirror.Apply(ctx, "vault", head(1), head(2), Changes{}); !errors.Is(err, ErrMirrorMoved) {
			t.Errorf("without a mirror: %v", err)
		}
		must(t, replaceWith(c, "vault", head(1), first, second))
		second.Claims = []MirrorClaim{{Job: "other", Reason: "hold", Flags: []string{}}}
		changes := Changes{Put: []MirrorPoint{second, third}, Removed: []backup.PointID{first.ID}}
		for range 2 { // the second time it is there already
			must(t, c.Mirror.Apply(ctx, "vault", head(1), head(2), changes))
		}
		check := func() {
			t.Helper()
			got, err := c.Mirror.Points(ctx, "vault", machine(1).Key)
			if must(t, err); !reflect.DeepEqual(got, []MirrorPoint{second, third}) {
				t.Errorf("points %+v", got)
			}
			if at, err := c.Mirror.Head(ctx, "vault"); err != nil || at != head(2) {
				t.Errorf("at %+v, %v", at, err)
			}
		}
		check()
		forked := head(2)
		forked.Checksum = "of another history"
		for _, from := range []Head{head(1), head(3), forked} {
			if err := c.Mirror.Apply(ctx, "vault", from, head(4), Changes{Removed: []backup.PointID{second.ID}}); !errors.Is(err, ErrMirrorMoved) {
				t.Errorf("from %+v: %v", from, err)
			}
		}
		forked.RepositoryID = "another"
		if err := c.Mirror.Apply(ctx, "vault", head(2), forked, Changes{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("to another repository: %v", err)
		}
		if err := c.Mirror.Apply(ctx, "vault", head(2), head(3), Changes{Removed: make([]backup.PointID, ChangesLimit+1)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many changes: %v", err)
		}
		check()
	})
}

func countRows(t *testing.T, c *Catalog, table string) int {
	t.Helper()
	var n int
	must(t, c.db.reader.QueryRow("SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// A mirror made anew touches nothing but points, leaves nothing behind, and what fails on the way changes nothing.
func TestReplaceIsWholeOrNothing(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		_, err := c.Resources.Put(ctx, "Job", "offsite", "kept", 0)
		must(t, err)
		must(t, c.Jobs.Enable(ctx, "offsite"))
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: clock.now()}, "me", time.Minute)
		must(t, err)
		point := pointID(1, 1)
		_, err = c.Tasks.Enqueue(ctx, lease, []NewTask{{Machine: machine(1), Point: &point, Source: "pve", Target: "vault"}})
		must(t, err)
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1)}))
		var old, anew []MirrorPoint
		for i := range 2*batchSize + 50 {
			old = append(old, testPoint(1, i, clock.now().Add(time.Duration(i))))
			anew = append(anew, testPoint(2, i, clock.now().Add(time.Duration(i))))
		}
		must(t, replaceWith(c, "vault", head(1), old...))
		must(t, replaceWith(c, "attic", head(1), old[0]))
		failure := errors.New("the repository went away")
		if err := c.Mirror.Replace(ctx, "vault", head(2), sequence(failure, anew[:batchSize+1]...)); !errors.Is(err, failure) {
			t.Fatalf("a failing iterator: %v", err)
		}
		check := func(machineNumber, points int) {
			t.Helper()
			got, err := c.Mirror.Points(ctx, "vault", machine(machineNumber).Key)
			if must(t, err); len(got) != points {
				t.Errorf("%d points of vm%d, want %d", len(got), machineNumber, points)
			}
			if n := countRows(t, c, "points"); n != len(old)+1 {
				t.Errorf("%d points in all, want %d", n, len(old)+1)
			}
			if n, m := countRows(t, c, "editions"), countRows(t, c, "claims"); n != 2 || m != len(old)+1 {
				t.Errorf("%d editions and %d claims", n, m)
			}
		}
		check(1, len(old))
		check(2, 0)
		// While it is made anew, readers have the former one whole.
		seen := 0
		must(t, c.Mirror.Replace(ctx, "vault", head(2), func(yield func(MirrorPoint, error) bool) {
			for i, p := range anew {
				if i%300 == 299 {
					got, err := c.Mirror.Points(ctx, "vault", machine(1).Key)
					if must(t, err); len(got) != len(old) {
						t.Errorf("halfway there are %d points", len(got))
					}
					seen++
				}
				if !yield(p, nil) {
					return
				}
			}
		}))
		if check(2, len(anew)); seen == 0 {
			t.Error("nothing was looked at on the way")
		}
		check(1, 0)
		must(t, c.Mirror.Drop(ctx, "vault"))
		if n := countRows(t, c, "points"); n != 1 {
			t.Errorf("%d points after dropping", n)
		}
		if _, err := c.Mirror.Head(ctx, "vault"); !errors.Is(err, ErrNotFound) {
			t.Errorf("dropped: %v", err)
		}
		for table, want := range map[string]int{"resources": 1, "jobs": 1, "sessions": 1, "tasks": 1, "sightings": 1} {
			if n := countRows(t, c, table); n != want {
				t.Errorf("%d rows in %s, want %d", n, table, want)
			}
		}
	})
}

// Of two who make the same mirror anew, the one that began first gives way.
func TestReplaceGivesWay(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		must(t, replaceWith(c, "vault", head(1), testPoint(1, 1, clock.now())))
		overtaken := func(meanwhile func()) error {
			return c.Mirror.Replace(t.Context(), "vault", head(2), func(yield func(MirrorPoint, error) bool) {
				for i := range batchSize + 1 {
					if !yield(testPoint(3, i, clock.now()), nil) {
						return
					}
				}
				meanwhile()
			})
		}
		if err := overtaken(func() { must(t, replaceWith(c, "vault", head(3), testPoint(2, 1, clock.now()))) }); !errors.Is(err, ErrMirrorMoved) {
			t.Errorf("overtaken by another: %v", err)
		}
		if err := overtaken(func() { must(t, c.Mirror.Apply(t.Context(), "vault", head(3), head(4), Changes{})) }); !errors.Is(err, ErrMirrorMoved) {
			t.Errorf("overtaken by a change: %v", err)
		}
		if at, err := c.Mirror.Head(t.Context(), "vault"); err != nil || at != head(4) {
			t.Errorf("at %+v, %v", at, err)
		}
		if n, e := countRows(t, c, "points"), countRows(t, c, "editions"); n != 1 || e != 1 {
			t.Errorf("%d points in %d editions left", n, e)
		}
	})
}

func TestMirrorsAtOnce(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		var group sync.WaitGroup
		for r := range 3 {
			repository := fmt.Sprint("vault", r)
			group.Go(func() {
				// All have the same machines, in other orders.
				var points []MirrorPoint
				for i := range 300 {
					points = append(points, testPoint((i*(r+1))%50, i, clock.now().Add(time.Duration(i))))
				}
				for n := range uint64(3) {
					if err := replaceWith(c, repository, head(n), points...); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if n := countRows(t, c, "points"); n != 900 {
			t.Errorf("%d points", n)
		}
	})
}

// A point that a repository names twice is there once, as it was named last.
func TestPointsNamedTwice(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		first, last := testPoint(1, 1, clock.now()), testPoint(1, 1, clock.now())
		last.Damaged, last.Claims = true, append(last.Claims, MirrorClaim{Job: "offsite", Reason: "again", Flags: []string{}})
		must(t, replaceWith(c, "vault", head(1), first, testPoint(1, 2, clock.now().Add(1)), last))
		got, err := c.Mirror.Points(t.Context(), "vault", machine(1).Key)
		if must(t, err); len(got) != 2 || !got[0].Damaged || len(got[0].Claims) != 1 || got[0].Claims[0].Reason != "again" {
			t.Errorf("got %+v", got)
		}
	})
}
