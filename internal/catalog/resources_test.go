package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestResourcesChangeOnlyAtTheirVersion(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		first, err := c.Resources.Put(ctx, "Job", "offsite", "v1", 0)
		must(t, err)
		clock.move(time.Minute)
		second, err := c.Resources.Put(ctx, "Job", "offsite", "v2", first.Version)
		if must(t, err); second.Document != "v2" || second.Version == first.Version || !second.Created.Equal(first.Created) || !second.Changed.Equal(clock.now()) {
			t.Errorf("changed to %+v from %+v", second, first)
		}
		conflict := func(doing string, err error, expected, current int64) {
			t.Helper()
			var is *ConflictError
			if !errors.As(err, &is) || !errors.Is(err, ErrConflict) || is.Expected != expected || is.Current != current {
				t.Errorf("%s: %v", doing, err)
			}
		}
		_, err = c.Resources.Put(ctx, "Job", "offsite", "v3", first.Version)
		conflict("changing an old version", err, first.Version, second.Version)
		_, err = c.Resources.Put(ctx, "Job", "offsite", "v3", 0)
		conflict("making what is there", err, 0, second.Version)
		_, err = c.Resources.Put(ctx, "Job", "other", "v3", 7)
		conflict("changing what is not there", err, 7, 0)
		conflict("deleting an old version", c.Resources.Delete(ctx, "Job", "offsite", first.Version), first.Version, second.Version)
		must(t, c.Resources.Forget(ctx, "Job", "offsite"))
		got, err := c.Resources.Get(ctx, "Job", "offsite")
		if must(t, err); got != second {
			t.Errorf("after conflicts: %+v", got)
		}
	})
}

func TestResourcesOfSomeKinds(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		ctx := t.Context()
		for _, of := range [][2]string{{"Job", "b"}, {"Repository", "z"}, {"Other", "a"}, {"Job", "B"}, {"Repository", "c"}, {"Job", "gone"}} {
			_, err := c.Resources.Put(ctx, of[0], of[1], "of "+of[1], 0)
			must(t, err)
		}
		gone, err := c.Resources.Get(ctx, "Job", "gone")
		must(t, err)
		must(t, c.Resources.Delete(ctx, "Job", "gone", gone.Version))
		list, err := c.Resources.List(ctx, false, "Repository", "Job")
		must(t, err)
		var names []string
		for _, r := range list {
			names = append(names, r.Kind+" "+r.Name)
		}
		if got := strings.Join(names, ", "); got != "Repository c, Repository z, Job B, Job b" || list[0].Document != "of c" {
			t.Errorf("%s", got)
		}
	})
}

func TestDeletedResourcesKeepTheirLastDocument(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		for _, name := range []string{"b", "B", "a", "_", "é"} {
			_, err := c.Resources.Put(ctx, "Job", name, "of "+name, 0)
			must(t, err)
		}
		names := func(deleted bool) string {
			list, err := c.Resources.List(ctx, deleted, "Job")
			must(t, err)
			var names []string
			for _, r := range list {
				names = append(names, r.Name)
			}
			return strings.Join(names, " ")
		}
		if got := names(false); got != "B _ a b é" {
			t.Errorf("listed %q", got)
		}
		a, err := c.Resources.Get(ctx, "Job", "a")
		must(t, err)
		must(t, c.Resources.Delete(ctx, "Job", "a", a.Version))
		if _, err := c.Resources.Get(ctx, "Job", "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a deleted job: %v", err)
		}
		if live, deleted := names(false), names(true); live != "B _ b é" || deleted != "a" {
			t.Errorf("live %q, deleted %q", live, deleted)
		}
		orphans, err := c.Resources.List(ctx, true, "Job")
		if must(t, err); orphans[0].Document != "of a" || !orphans[0].Deleted.Equal(clock.now()) {
			t.Errorf("orphan %+v", orphans[0])
		}
		again, err := c.Resources.Put(ctx, "Job", "a", "anew", 0)
		if must(t, err); again.Version == a.Version || !again.Deleted.IsZero() {
			t.Errorf("made again as %+v, was %+v: an old ETag would fit", again, a)
		}
		must(t, c.Resources.Delete(ctx, "Job", "a", again.Version))
		must(t, c.Resources.Forget(ctx, "Job", "a"))
		if deleted := names(true); deleted != "" {
			t.Errorf("still there: %q", deleted)
		}
	})
}

func TestResourcesAreBounded(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		for _, bad := range []struct {
			kind, name, document string
			want                 error
		}{
			{"Job", "", "x", ErrInvalid}, {"Job", "a\nb", "x", ErrInvalid}, {"Job", "\xff", "x", ErrInvalid}, {"Job", strings.Repeat("x", 256), "x", ErrInvalid},
			{"", "a", "x", ErrInvalid}, {"Job", "a", "x\x00", ErrInvalid}, {"Job", "a", "\xff", ErrInvalid}, {"Job", "a", strings.Repeat("x", documentLimit+1), ErrTooLarge},
		} {
			if _, err := c.Resources.Put(t.Context(), bad.kind, bad.name, bad.document, 0); !errors.Is(err, bad.want) {
				t.Errorf("%q %q: %v", bad.kind, bad.name, err)
			}
		}
		largest := strings.Repeat("x", documentLimit)
		put, err := c.Resources.Put(t.Context(), "Job", strings.Repeat("ä", 127), largest, 0)
		if must(t, err); put.Document != largest {
			t.Error("the largest document came back otherwise")
		}
	})
}

// Of several who change the same version at once exactly one does.
func TestConcurrentEdits(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		last, err := c.Resources.Put(t.Context(), "Job", "offsite", "0", 0)
		must(t, err)
		for range 10 {
			var won, lost atomic.Int64
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() {
					switch _, err := c.Resources.Put(context.Background(), "Job", "offsite", "x", last.Version); {
					case err == nil:
						won.Add(1)
					case errors.Is(err, ErrConflict):
						lost.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			group.Wait()
			if won.Load() != 1 || lost.Load() != 4 {
				t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
			}
			last, err = c.Resources.Get(t.Context(), "Job", "offsite")
			must(t, err)
		}
	})
}

// What a database undoes because of another transaction is done again from the beginning, a few times.
func TestUndoneTransactionsAreRepeated(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		undone := &pgconn.PgError{Code: "40P01"}
		for _, failures := range []int{0, 1, attempts - 1, attempts} {
			var before, after, tries int
			before = countRows(t, c, "counters")
			err := c.db.write(t.Context(), "testing", func(tx *sql.Tx) error {
				_, err := tx.Exec(`INSERT INTO counters (name, value) VALUES ($1, 1)`, fmt.Sprint("test", failures))
				if tries++; err == nil && tries <= failures {
					err = undone
				}
				return err
			})
			after = countRows(t, c, "counters")
			if failures < attempts && (err != nil || tries != failures+1 || after != before+1) || failures == attempts && (!errors.Is(err, undone) || after != before) {
				t.Errorf("%d failures: %d tries, %d rows more, %v", failures, tries, after-before, err)
			}
		}
	})
}

func TestCancelledContextChangesNothing(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Resources.Put(ctx, "Job", "a", "x", 0); !errors.Is(err, context.Canceled) {
			t.Errorf("put: %v", err)
		}
		if _, err := c.Resources.List(ctx, false, "Job"); !errors.Is(err, context.Canceled) {
			t.Errorf("list: %v", err)
		}
		list, err := c.Resources.List(t.Context(), false, "Job")
		if must(t, err); len(list) != 0 {
			t.Errorf("there: %+v", list)
		}
	})
}

func TestPutAllStoresAllOrNone(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		ctx := t.Context()
		first, err := c.Resources.PutAll(ctx, []ResourceChange{{"Job", "a", "of a", 0}, {"Repository", "a", "of the other a", 0}})
		if must(t, err); len(first) != 2 || first[0].Kind != "Job" || first[1].Document != "of the other a" || first[0].Version == first[1].Version {
			t.Fatalf("%+v", first)
		}
		version := first[0].Version
		var conflict *ConflictError
		for name, bad := range map[string][]ResourceChange{
			"there already":    {{"Job", "b", "of b", 0}, {"Job", "a", "anew", version}, {"Repository", "a", "x", 0}},
			"another version":  {{"Job", "b", "of b", 0}, {"Job", "a", "anew", version + 100}},
			"not there":        {{"Job", "b", "of b", 0}, {"Job", "c", "x", version}},
			"twice":            {{"Job", "b", "of b", 0}, {"Job", "b", "of b", 0}},
			"a name with ends": {{"Job", "b", "of b", 0}, {"Job", "a\nb", "x", 0}},
		} {
			if list, err := c.Resources.PutAll(ctx, bad); list != nil || !errors.As(err, &conflict) && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, %v", name, list, err)
			}
			if _, err := c.Resources.Get(ctx, "Job", "b"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: half of it is there: %v", name, err)
			}
			if a, err := c.Resources.Get(ctx, "Job", "a"); err != nil || a.Version != version || a.Document != "of a" {
				t.Errorf("%s: %+v, %v", name, a, err)
			}
		}
		if list, err := c.Resources.PutAll(ctx, nil); err != nil || len(list) != 0 {
			t.Errorf("nothing: %v, %v", list, err)
		}
	})
}
