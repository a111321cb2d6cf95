package job_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
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
	// If it is the jobs that it needs that are too large, it leaves itself there.
	l.setup.Needed = []repo.NeededJob{{Job: "first", Document: l.setup.Document}}
	l.setup.Document = "kind: Job\n"
	l.run(job.ResultDone)
	records, _, err := l.target().Jobs(t.Context())
	if err != nil || len(records) != 1 || records[0].Document != "kind: Job\n" || len(records[0].Needed) != 0 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

// What a rule removed comes back with backfill once the rules have widened, though the job holds newer points: all of it, also after an
// interruption, and beside the newest, which does not wait for it. What another job gave up stays so.
func TestWidenedRulesBringBack(t *testing.T) {
	l := newLab(t)
	l.setup.Job.Retention = policy.Retention{Days: 7}
	l.setup.Job.Retention.Tiers[policy.Weekly].Keep = 1
	l.setup.Job.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}, At: 22 * 60}
	other := l.setup
	other.Job.Name, other.Job.Retention = "other", policy.Retention{Points: 1}
	for n := range 20 {
		l.now = time.Date(2026, 3, n+1, 11, 0, 0, 0, time.UTC)
		extra := day("a", n+1)
		extra.Native, extra.Created = fmt.Sprint("extra", n), l.now.Add(-time.Hour)
		l.points = append(l.points, extra)
		if s := job.Run(t.Context(), other); s.Copied() != 1 {
			t.Fatalf("the other job: %s", l.describe(s))
		}
		l.now = l.now.Add(12 * time.Hour)
		l.points = append(l.points, day("a", n+1))
		l.wantNewest(l.run(job.ResultDone))
	}
	held := func() (n int) {
		target := l.target()
		for _, p := range l.points {
			if _, mine := job.ClaimOf(target, "offsite", p.ID()); mine {
				n++
			}
		}
		return n
	}
	before := held()
	if before > 10 {
		t.Fatalf("%d points are held by rules of 7 days", before)
	}
	l.setup.Job.Retention.Days, l.setup.Job.Lookup.Backfill = 30, policy.BackfillAll
	l.now = l.now.AddDate(0, 0, 1)
	e := l.explain()
	slots := map[backup.PointID][]string{}
	for _, step := range e.Plan.Steps(plan.ActionCopy) {
		slots[step.Point.ID] = step.Slots
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l.points[5].OnRead = func(_ int, _ int64, n int) (int, error) { cancel(); return n, nil }
	if s := job.Run(ctx, l.setup); s.Result != job.ResultInterrupted {
		t.Fatalf("%s\n%s", s.Result, l.describe(s))
	}
	l.points[5].OnRead = nil
	l.points = append(l.points, day("a", 21))
	s := l.run(job.ResultDone)
	if missing := 21 - held(); missing != 0 || s.Removed() > 0 || len(slots) != 20-before {
		t.Errorf("%d were held, %d were to come back, %d are missing\n%s", before, len(slots), missing, l.describe(s))
	}
	target := l.target()
	for id, want := range slots {
		if claim, _ := job.ClaimOf(target, "offsite", id); fmt.Sprint(claim.Flags) != fmt.Sprint(job.FlagsOf(want)) {
			t.Errorf("%s has flags %v, planned %v", id.Short(), claim.Flags, want)
		}
	}
	l.wantCounts(l.run(job.ResultDone), "0 copied, 0 claimed, 0 failed, 0 removed")
}

// wantNewest wants that the session has copied one point, or claimed it.
func (l *lab) wantNewest(s *job.Session) {
	l.t.Helper()
	if s.Copied()+s.Claimed() != 1 {
		l.t.Fatal(l.describe(s))
	}
}

// While points come back the interval's own is waited for, and taken: they do not use the interval up.
func TestWhatComesBackDoesNotUseTheIntervalUp(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2), day("a", 3))
	l.setup.Job.Retention, l.setup.Job.Schedule = policy.Retention{Points: 1}, policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}, At: 13 * 60}
	all := l.points
	for n := range all {
		l.points = all[:n+1]
		l.now = time.Date(2026, 3, n+1, 13, 0, 0, 0, time.UTC)
		l.wantNewest(l.run(job.ResultDone))
	}
	l.setup.Job.Retention, l.setup.Job.Lookup.Backfill = policy.Retention{Points: 5}, policy.BackfillAll
	l.now = l.now.AddDate(0, 0, 1)
	s := l.run(job.ResultDone)
	l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 0 removed")
	if !s.Awaited[all[0].Machine.Key] {
		t.Error("the first point that appears is not the interval's")
	}
	l.points = append(slices.Clone(all[:3]), day("a", 4))
	l.now = l.now.Add(time.Hour)
	l.setup.Host.Again = true
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
}
