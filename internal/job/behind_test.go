package job_test

import (
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/source/sourcetest"
)

// Points that come shortly after each interval began are copied a day late every day, and explain says so; what it names
// helps.
func TestAlwaysOneIntervalBehind(t *testing.T) {
	l := newLab(t)
	l.setup.Job.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}, At: 11*60 + 40}
	var all []*sourcetest.Point
	for n := 1; n < 9; n++ {
		all = append(all, day("a", n))
	}
	live := func(day, hour, minute int) {
		l.now = time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC)
		l.points = nil
		for _, p := range all {
			if !p.Created.After(l.now) {
				l.points = append(l.points, p)
			}
		}
	}
	behind := func() string { return l.explain().Plan.Machines[0].Behind }
	for n := 2; n < 6; n++ {
		live(n, 11, 40)
		s := l.run(job.ResultDone)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if n == 5 && s.Tasks[0].Behind == "" {
			t.Errorf("the session does not tell: %+v", s.Tasks)
		}
		if text := behind(); (text == "") != (n < 5) {
			t.Errorf("on day %d: %q", n, text)
		}
	}
	live(5, 13, 0)
	if text := behind(); !strings.HasSuffix(text, `23h40m old, and the next one came up to 20m after it began; what helps: lookup: forward, which waits for it, or at: "12:15"`) {
		t.Errorf("%q", text)
	}
	// A whole read of what is there is no interval that took a point.
	l.setup.Full = true
	l.run(job.ResultDone)
	l.setup.Full = false
	if behind() == "" {
		t.Error("a whole read hides it")
	}
	l.setup.Job.Schedule.At = 12*60 + 15
	live(6, 12, 15)
	l.run(job.ResultDone)
	if text := behind(); text != "" {
		t.Errorf("after the cure: %q", text)
	}
}
