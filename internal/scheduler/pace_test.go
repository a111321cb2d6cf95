package scheduler

import (
	"testing"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/mover"
)

// Copies at once take their time once, what is waited for between them or behind them takes none, and what an earlier attempt kept
// does not count again.
func TestPace(t *testing.T) {
	began := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	var p pace
	attempt := func(from, took, noted int, kept, total int64, err error) {
		progress := &mover.Progress{}
		progress.Total.Store(total)
		progress.Kept.Store(total / 2)
		one := &task{progress: progress, row: catalog.Task{Progress: catalog.Progress{Kept: kept, Attempt: began.Add(time.Duration(from) * time.Second)}}}
		p.add(one, job.StepReport{Err: err, Result: mover.Result{Took: time.Duration(took) * time.Second}}, began.Add(time.Duration(noted)*time.Second))
	}
	for _, c := range []struct {
		from, took, noted int
		kept, total       int64
		err               error
		bytes             int64
		spent             int
	}{
		{0, 10, 40, 0, 100, nil, 100, 10},                  // is committed later
		{20, 10, 30, 0, 100, nil, 200, 20},                 // behind a pause
		{5, 10, 30, 30, 100, nil, 270, 25},                 // in part beside the first; 30 were kept
		{0, 30, 30, 0, 10, nil, 280, 30},                   // beside all
		{40, 0, 50, 20, 100, catalog.ErrNotFound, 310, 40}, // failed, 50 are kept, of which 30 are new
		{60, 0, 55, 0, 100, catalog.ErrNotFound, 310, 40},  // the clock was set
	} {
		attempt(c.from, c.took, c.noted, c.kept, c.total, c.err)
		if spent := p.spent(); p.bytes != c.bytes || spent != time.Duration(c.spent)*time.Second {
			t.Errorf("%+v: %d bytes in %s", c, p.bytes, spent)
		}
	}
}
