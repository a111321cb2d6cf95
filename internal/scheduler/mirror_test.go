package scheduler

import (
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// A session that has seen less of the target than another does not put what was before in place of what the mirror says.
func TestMirrorIsNotPutBack(t *testing.T) {
	ctx := t.Context()
	known := emptyCatalog(t)
	s := &Scheduler{catalog: known, options: Options{Now: time.Now}}
	store := memory.New()
	early, err := repo.Init(ctx, store, repo.Environment{}, repo.Options{BlockSize: 4096})
	must(t, err)
	defer early.Close()
	must(t, s.noteTarget(ctx, "vault", early))
	late, err := repo.Open(ctx, store, repo.Environment{})
	must(t, err)
	defer late.Close()
	from := sourcetest.Open(t, &sourcetest.Point{Machine: sourcetest.Machine("a"), Native: "a1", Created: time.Now(), Objects: []sourcetest.Object{{Name: "vda", Data: make([]byte, 8192), Access: source.AccessRandom}}})
	defer from.Close()
	_, err = job.Copy(ctx, from, late, plan.Plan{Steps: []plan.Step{{Point: from.Points[0].Point, Action: plan.ActionCopy}}}, job.Options{})
	must(t, err)
	must(t, s.noteTarget(ctx, "vault", late))
	must(t, s.noteTarget(ctx, "vault", early))
	points, err := known.Mirror.All(ctx, "vault")
	must(t, err)
	if len(points) != 1 || points[0].State != backup.StateComplete {
		t.Errorf("the mirror has %+v", points)
	}
}
