package job_test

import (
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
)

// The report of a session that another process began has what that copied: what it had finished, and what it had stored without
// coming to note it. What it had not is reported by this process alone.
func TestReportOfASessionThatWasTakenUp(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.run(job.ResultDone) // by the first process
	l.points = append(l.points, day("c", 1))
	var earlier []job.EarlierCopy
	for _, p := range l.points {
		earlier = append(earlier, job.EarlierCopy{PlannedCopy: job.PlannedCopy{Machine: p.Machine, Point: p.ID(), Created: p.Created, Source: "pve", Target: "vault"}, Attempts: 1})
	}
	earlier[0].Done, earlier[0].Read, earlier[0].Written, earlier[0].Took = true, 7, 5, 3*time.Second
	earlier = append(earlier, job.EarlierCopy{PlannedCopy: job.PlannedCopy{Machine: l.points[2].Machine, Point: backup.PointID{1}}}) // it has vanished
	l.setup.Host.Began, l.setup.Host.Earlier = l.now.Add(-time.Hour), earlier
	s := l.run(job.ResultDone)
	l.wantCounts(s, "3 copied, 0 claimed, 0 failed, 0 removed")
	if !s.Began.Equal(l.now.Add(-time.Hour)) || len(s.Tasks) != 3 {
		t.Fatalf("began %s\n%s", s.Began, l.describe(s))
	}
	for _, task := range s.Tasks {
		if task.State != job.TaskCopied || len(task.Points) != 1 {
			t.Errorf("%+v", task)
		}
		if p := task.Points[0]; task.Machine.Name == "a" && (p.ReadBytes != 7 || p.StoredBytes != 5 || p.Seconds != 3) {
			t.Errorf("%+v", p)
		}
	}
}
