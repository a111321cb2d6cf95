package job_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

func TestMain(m *testing.M) {
	if err := encodeFirst(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// encodeFirst has the process's encoder of Zstandard make what it makes at first use: it must belong to no bubble of synctest.
func encodeFirst() error {
	ctx := context.Background()
	r, err := repo.Init(ctx, memory.New(), repo.Environment{}, repo.Options{BlockSize: 4096})
	if err != nil {
		return err
	}
	defer r.Close()
	in, err := r.NewIngest(ctx, repo.IngestOptions{})
	if err != nil {
		return err
	}
	plain := make([]byte, 4096)
	_, err = in.StoreBlock(ctx, in.BlockID(plain), plain, repo.CodecZstd)
	return errors.Join(err, in.Close(ctx, nil))
}

func newRepository(t *testing.T) (*repo.Repository, *memory.Store) {
	t.Helper()
	store := memory.New()
	r, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, store
}

func point(machine string, n int) *sourcetest.Point {
	data := make([]byte, 20_000)
	for i := range data {
		data[i] = byte(i*n + i>>8 + len(machine))
	}
	return &sourcetest.Point{
		Machine: sourcetest.Machine(machine), Native: fmt.Sprint(machine, n), Created: time.Unix(int64(n)*3600, 0),
		Objects: []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}},
	}
}

func planOf(from *registry.Source, r *repo.Repository, request plan.Request) plan.Plan {
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	return plan.Make(points, r.Has, request)
}

// One machine's trouble is its own, whatever it is and wherever in the order it comes.
func TestTroubleStaysWithItsMachine(t *testing.T) {
	for what, trouble := range map[string]func(*sourcetest.Point){
		"cannot be opened": func(p *sourcetest.Point) { p.OpenError = backup.ErrVanished },
		"cannot be read": func(p *sourcetest.Point) {
			p.OnRead = func(int, int64, int) (int, error) { return 0, errors.New("bad") }
		},
		"changes": func(p *sourcetest.Point) { p.Revalidated = backup.ErrChanged },
		"has bad extents": func(p *sourcetest.Point) {
			p.Objects[0].Extents = func(*backup.Base) []backup.Extent { return []backup.Extent{{Offset: 5, Length: 1}} }
		},
		"cannot be written down": func(p *sourcetest.Point) { p.Created = time.Date(10_001, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		for bad := range 3 {
			r, _ := newRepository(t)
			points := []*sourcetest.Point{point("a", 1), point("b", 1), point("c", 1)}
			trouble(points[bad])
			from := sourcetest.Open(t, points...)
			var mu sync.Mutex
			finished := map[job.Outcome]int{}
			report, err := job.Copy(t.Context(), from, r, planOf(from, r, plan.Request{All: true}), job.Options{Finished: func(s job.StepReport) {
				mu.Lock()
				defer mu.Unlock()
				finished[s.Outcome]++
			}})
			told := 1
			if what == "cannot be written down" { // it is listed as broken, so its copy never begins
				told = 0
			}
			if err != nil || report.Copied() != 2 || report.Failed() != 1 || finished[job.OutcomeCopied] != 2 || finished[job.OutcomeFailed] != told {
				t.Errorf("%s, %d: copied %d, failed %d, %v, told %v", what, bad, report.Copied(), report.Failed(), err, finished)
			}
			for i, p := range points {
				if r.Has(p.ID()) != (i != bad) {
					t.Errorf("%s: %s is there: %v", what, p.Native, i != bad)
				}
			}
		}
	}
}

// When the repository cannot be written the copy ends, and says of every point what became of it.
func TestRepositoryThatCannotBeWritten(t *testing.T) {
	wrong := errors.New("no more")
	for _, from := range []memory.Op{memory.OpCreate, memory.OpCommit, memory.OpPut} {
		r, store := newRepository(t)
		source := sourcetest.Open(t, point("a", 1), point("b", 1), point("b", 2))
		store.SetFault(func(op memory.Op, _ string) error {
			if op == from {
				return wrong
			}
			return nil
		})
		report, err := job.Copy(t.Context(), source, r, planOf(source, r, plan.Request{All: true}), job.Options{})
		if !errors.Is(err, wrong) || report.Copied() != 0 {
			t.Errorf("%s: %v, copied %d", from, err, report.Copied())
		}
		for _, step := range report.Steps {
			if step.Outcome != job.OutcomeFailed && step.Outcome != job.OutcomeNotReached {
				t.Errorf("%s: %s is %s", from, step.Point.ID.Short(), step.Outcome)
			}
		}
		store.SetFault(nil)
		report, err = job.Copy(t.Context(), source, r, planOf(source, r, plan.Request{All: true}), job.Options{})
		if err != nil || report.Copied() != 3 {
			t.Errorf("%s, then: %v, copied %d", from, err, report.Copied())
		}
		if rest := planOf(source, r, plan.Request{All: true}).Copies(); len(rest) != 0 {
			t.Errorf("%d points are to be copied though all were", len(rest))
		}
	}
}

func TestCancelledCopy(t *testing.T) {
	r, _ := newRepository(t)
	first, second, third := point("a", 1), point("b", 1), point("c", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	second.OnRead = func(_ int, _ int64, n int) (int, error) { cancel(); return n, nil }
	from := sourcetest.Open(t, first, second, third)
	report, err := job.Copy(ctx, from, r, planOf(from, r, plan.Request{All: true}), job.Options{})
	if !errors.Is(err, context.Canceled) || !r.Has(first.ID()) || r.Has(second.ID()) || r.Has(third.ID()) {
		t.Errorf("%v: %v %v %v", err, r.Has(first.ID()), r.Has(second.ID()), r.Has(third.ID()))
	}
	if report.Copied() != 1 || report.Failed() != 0 || report.Steps[2].Outcome != job.OutcomeNotReached || third.Opened.Load() != 0 {
		t.Errorf("copied %d, failed %d, the last is %s", report.Copied(), report.Failed(), report.Steps[2].Outcome)
	}
}
