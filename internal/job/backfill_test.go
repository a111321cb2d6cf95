package job_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
)

// A backfill of more points than could be named in what the job leaves begins, and goes on.
func TestBackfillOfManyPoints(t *testing.T) {
	l := newLab(t)
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	data := point("m", 1).Objects[0].Data[:4096]
	reads := 0
	const machines, each = 180, 100
	for n := range machines * each {
		p := day(fmt.Sprintf("m%03d", n/each), 1)
		p.Native, p.Created, p.Objects[0].Data = fmt.Sprint(n), l.now.Add(time.Duration(n%each-each)*time.Hour), data
		p.OnRead = func(_ int, _ int64, n int) (int, error) {
			if reads++; reads == 5 {
				cancel()
			}
			return n, nil
		}
		l.points = append(l.points, p)
	}
	s := job.Run(ctx, l.setup)
	if s.Result != job.ResultInterrupted || s.Copied() == 0 || len(s.Warnings) > 0 {
		t.Fatalf("%s: %s, %d copied, warnings %q", s.Result, s.Reason, s.Copied(), s.Warnings)
	}
	// The first machine's is finished by the next session, though the job holds points of it by then, and with a newer one.
	l.points = append(l.points[:each:each], day("m000", 2))
	l.now = l.now.AddDate(0, 0, 1)
	l.wantCounts(l.run(job.ResultDone), fmt.Sprintf("%d copied, 0 claimed, 0 failed, 0 removed", each+1-s.Copied()))
}

// A backfill whose points are gone, or would not be kept, is over: the machine is looked up as ever.
func TestBackfillEnds(t *testing.T) {
	for what, end := range map[string]func(*lab){
		"gone":     func(l *lab) { l.points = l.points[:1] },
		"not kept": func(l *lab) { l.setup.Job.Retention = policy.Retention{Points: 1} },
	} {
		l := newLab(t, day("a", 1), day("a", 2), day("a", 3))
		l.now = time.Date(2026, 3, 3, 20, 0, 0, 0, time.UTC)
		l.setup.Job.Lookup.Backfill = policy.BackfillAll
		ctx, cancel := context.WithCancel(t.Context())
		l.points[1].OnRead = func(_ int, _ int64, n int) (int, error) { cancel(); return n, nil }
		job.Run(ctx, l.setup)
		end(l)
		newest := day("a", 4)
		l.points = append(l.points, newest)
		l.now = l.now.AddDate(0, 0, 1)
		s := l.run(job.ResultDone)
		if _, mine := job.ClaimOf(l.target(), "offsite", newest.ID()); !mine {
			t.Errorf("%s: the newest point was not copied\n%s", what, l.describe(s))
		}
		l.wantCounts(l.run(job.ResultDone), "0 copied, 0 claimed, 0 failed, 0 removed")
	}
}

// A job that is too large to be left in the target copies nevertheless, and says so.
func TestTooLargeToLeave(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Document = strings.Repeat("# a comment\n", 100_000)
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "too large") {
		t.Errorf("warnings %q", s.Warnings)
	}
}
