package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// named makes a point of every file, with the file's name as the machine; it can fail as a whole.
type named struct {
	format string
	state  backup.State
	err    error
	// created is the points' time; zero: a second after the epoch.
	created time.Time
}

type opener struct{}

func (opener) Open(context.Context) (source.Content, error) {
	return nil, errors.New("not opened here")
}

func (n named) Name() string { return n.format }

func (n named) Scan(_ context.Context, listing *source.Listing) ([]source.Point, error) {
	if n.err != nil {
		return nil, n.err
	}
	created := n.created
	if created.IsZero() {
		created = time.Unix(1, 0)
	}
	var points []source.Point
	for _, folder := range listing.Paths() {
		for _, entry := range listing.Unclaimed(folder) {
			key := backup.NewMachineKey(backup.PlatformImage, entry.Name, "", listing.Root.Name())
			p := source.Point{
				Point: backup.Point{ID: backup.NewPointID(key, "1"), Machine: backup.Machine{Key: key}, Created: created, State: n.state},
				Files: []source.FileIdentity{entry.FileIdentity},
			}
			if n.state == backup.StateComplete {
				p.Opener = opener{}
			}
			points = append(points, p)
		}
	}
	return points, nil
}

func open(t *testing.T, dir, cache string, formats ...source.Format) *registry.Source {
	t.Helper()
	s, err := registry.Open(t.Context(), dir, registry.Options{CacheDir: cache, Formats: formats})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func backups(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBrokenIsRememberedUntilTheFileChanges(t *testing.T) {
	dir, cache := backups(t), t.TempDir()
	complete := named{format: "x", state: backup.StateComplete}
	first := open(t, dir, cache, complete)
	if err := first.RememberBroken(first.Points[0], "bad sum"); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, cache, complete)
	if p := again.Points[0]; p.State != backup.StateBroken || p.Reason != "bad sum" || p.Opener != nil {
		t.Fatalf("remembered as %s, %q", p.State, p.Reason)
	}
	if p := again.Points[1]; p.State != backup.StateComplete {
		t.Fatalf("the other point is %s", p.State)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p := open(t, dir, cache, complete).Points[0]; p.State != backup.StateComplete {
		t.Fatalf("a file that changed is still %s", p.State)
	}
	if p := open(t, dir, "", complete).Points[0]; p.State != backup.StateComplete {
		t.Fatalf("without a cache it is %s", p.State)
	}
}

func TestPointsAreSortedAndUnique(t *testing.T) {
	// Both formats see every file, since neither claims: one point of each id stays, a complete one.
	s := open(t, backups(t), "", named{format: "x", state: backup.StateLocked}, named{format: "y", state: backup.StateComplete})
	if len(s.Points) != 2 || s.Points[0].Machine.Key.NativeID != "a" || s.Points[1].Machine.Key.NativeID != "b" {
		t.Fatalf("%d points: %+v", len(s.Points), s.Points)
	}
	for _, p := range s.Points {
		if p.State != backup.StateComplete {
			t.Errorf("%s is %s; the complete one should stay", p.Machine.Key, p.State)
		}
	}
	if s.Unknown != 2 {
		t.Errorf("%d files unknown, want the 2 that nobody claimed", s.Unknown)
	}
}

func TestOneFormatsTroubleIsItsOwn(t *testing.T) {
	s := open(t, backups(t), "", named{format: "x", err: errors.New("cannot")}, named{format: "y", state: backup.StateComplete})
	if len(s.Points) != 2 || !slices.Equal(s.Incomplete, s.Problems) || len(s.Problems) != 1 {
		t.Fatalf("%d points, problems %v", len(s.Points), s.Problems)
	}
}

// Whatever else could not be listed, a folder that hides points is not forgotten behind an encrypted repository.
func TestEveryReasonOfAnIncompleteListing(t *testing.T) {
	hidden := errors.New("node2: permission denied")
	s := open(t, backups(t), "", named{format: "x", err: errors.Join(backup.ErrEncrypted)}, named{format: "y", err: errors.Join(hidden)})
	if len(s.Problems) != 2 || !slices.Contains(s.Incomplete, hidden) {
		t.Fatalf("incomplete: %v, problems %v", s.Incomplete, s.Problems)
	}
}

// An error that wraps two is one problem, whose text stays whole.
func TestAProblemIsNotTakenApart(t *testing.T) {
	whole := fmt.Errorf("vault: %w: %w", backup.ErrEncrypted, errors.New("its key files are gone"))
	s := open(t, backups(t), "", named{format: "x", err: whole})
	if !slices.Equal(s.Problems, []error{whole}) || !slices.Equal(s.Incomplete, s.Problems) {
		t.Fatalf("%d problems: %v, incomplete %v", len(s.Problems), s.Problems, s.Incomplete)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := backups(t)
	for _, path := range []string{filepath.Join(dir, "a"), filepath.Join(dir, "missing")} {
		if _, err := registry.Open(t.Context(), path, registry.Options{}); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

// dated gives one id twice, with different times and another point between them.
type dated struct{ named }

func (d dated) Scan(_ context.Context, listing *source.Listing) ([]source.Point, error) {
	key := backup.NewMachineKey(backup.PlatformImage, "vm", "", listing.Root.Name())
	point := func(native string, second int64, state backup.State) source.Point {
		return source.Point{Point: backup.Point{
			ID: backup.NewPointID(key, native), Machine: backup.Machine{Key: key}, Created: time.Unix(second, 0), State: state,
		}}
	}
	return []source.Point{
		point("twice", 1, backup.StateBroken), point("other", 2, backup.StateComplete), point("twice", 3, backup.StateComplete),
	}, nil
}

func TestAnIDIsListedOnceWhateverItsTimes(t *testing.T) {
	s := open(t, backups(t), "", dated{})
	if len(s.Points) != 2 || s.Points[1].Created.Unix() != 3 || s.Points[1].State != backup.StateComplete {
		t.Fatalf("%d points: %+v", len(s.Points), s.Points)
	}
}

// A point is broken whose time no report could be written with.
func TestTimesThatCannotBeWrittenDown(t *testing.T) {
	for _, seconds := range []int64{1 << 40, math.MaxInt64 >> 1, -1 << 40} {
		for _, p := range open(t, backups(t), "", named{format: "x", state: backup.StateComplete, created: time.Unix(seconds, 0)}).Points {
			if _, err := json.Marshal(p.Created); err != nil {
				t.Errorf("%d seconds: %v", seconds, err)
			}
			if p.State != backup.StateBroken || !strings.Contains(p.Reason, "dated") || p.Opener != nil {
				t.Errorf("%d seconds: %s, %q", seconds, p.State, p.Reason)
			}
		}
	}
	if p := open(t, backups(t), "", named{format: "x", state: backup.StateComplete, created: time.Date(9990, 1, 1, 0, 0, 0, 0, time.UTC)}).Points[0]; p.State != backup.StateComplete {
		t.Errorf("%s, %s", p.State, p.Reason)
	}
}

// shuffled gives points of a few machines in any order, some of them twice.
type shuffled struct {
	named
	points []source.Point
}

func (s shuffled) Scan(context.Context, *source.Listing) ([]source.Point, error) {
	points := append(slices.Clone(s.points), s.points[:len(s.points)/3]...)
	rand.Shuffle(len(points), func(i, k int) { points[i], points[k] = points[k], points[i] })
	return points, nil
}

func TestPointsInAnyOrderAreSorted(t *testing.T) {
	var want []source.Point
	for _, machine := range []string{"a", "b", "c", "d", "e"} {
		key := backup.NewMachineKey(backup.PlatformImage, machine, "", "")
		for second := range int64(20) {
			want = append(want, source.Point{Point: backup.Point{
				ID: backup.NewPointID(key, time.Unix(second, 0).String()), Machine: backup.Machine{Key: key}, Created: time.Unix(second, 0).UTC(), State: backup.StateComplete,
			}, Opener: opener{}})
		}
	}
	for range 50 {
		if s := open(t, backups(t), "", shuffled{points: want}); !reflect.DeepEqual(s.Points, want) {
			t.Fatalf("%d points, want %d: %+v", len(s.Points), len(want), s.Points)
		}
	}
}
