package job_test

import (
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
)

// A clock that was wrong for two sessions, behind or ahead, does not move the job's intervals. One that was behind
// does not bring turns of its schedules again either.
func TestClockThatWasWrong(t *testing.T) {
	for what, wrong := range map[string]time.Time{
		"behind": time.Date(2020, 1, 1, 0, 17, 0, 0, time.UTC),
		"ahead":  time.Date(2030, 1, 1, 0, 17, 0, 0, time.UTC),
	} {
		l := newLab(t, day("a", 1))
		l.setup.Job.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Elapsed: 4 * time.Hour}}
		l.setup.Job.FullFromSource = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 7}}
		anchor := l.run(job.ResultDone).Nominal
		l.now = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed") // its first turn
		right := l.now.Add(time.Hour)
		for n := range 2 {
			l.now = wrong.Add(time.Duration(n) * time.Hour)
			if s := l.run(job.ResultDone); what == "behind" && s.Copied() > 0 {
				t.Errorf("behind: read again\n%s", l.describe(s))
			}
		}
		l.now = right
		s := l.run(job.ResultDone)
		if what == "ahead" { // a turn that was noted for a time to come counts for nothing
			l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
			s = l.run(job.ResultDone)
		}
		l.wantCounts(s, "0 copied, 0 claimed, 0 failed, 0 removed")
		if moved := s.Nominal.Sub(anchor) % (4 * time.Hour); moved != 0 {
			t.Errorf("%s: the intervals moved by %s", what, moved)
		}
	}
}

// A job that first ran by a clock that was ahead counts from one time too, which stays.
func TestFirstRunByAClockThatWasAhead(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Elapsed: 4 * time.Hour}}
	right := l.now
	l.now = right.AddDate(10, 0, 0)
	l.run(job.ResultDone)
	l.now = right
	anchor := l.run(job.ResultDone).Nominal
	l.now = right.Add(9 * time.Hour)
	if at := l.run(job.ResultDone).Nominal; !at.Equal(anchor.Add(8 * time.Hour)) {
		t.Errorf("the interval begins at %s, the first at %s", at, anchor)
	}
}
