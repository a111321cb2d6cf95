package job_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// seeded is a lab whose target has points of the machine "old" that were copied by hand, and whose job maps them to "a".
func seeded(t *testing.T, days ...int) *lab {
	t.Helper()
	l := newLab(t)
	for _, n := range days {
		l.points = append(l.points, day("old", n))
	}
	by := l.setup
	l.setup.Job = policy.Job{Name: "manual", Schedule: policy.Schedule{Mode: policy.Manual}, Lookup: policy.Lookup{Backfill: policy.BackfillAll}}
	l.run(job.ResultDone)
	l.setup, l.points = by, nil
	l.setup.Job.Target.Map = []policy.Mapping{{Machine: "a", Backup: policy.BackupRef{Job: "manual", Machine: "old"}}}
	return l
}

// The points of a backup that is mapped are the job's: claimed in its first session, and counted by its rules, slots and alarms
// together with those that it copies under the machine's new id.
func TestMappedPointsAreTheJobs(t *testing.T) {
	l := seeded(t, 1, 2, 9) // the weeks of 1 and 8 March
	weekly := policy.Retention{Points: 2}
	weekly.Tiers[policy.Weekly].Keep = 4
	l.setup.Job.Retention, l.setup.Job.RPO = weekly, 48*time.Hour
	l.points = append(l.points, day("a", 9), day("a", 10))
	l.now = time.Date(2026, 3, 10, 22, 0, 0, 0, time.UTC)
	e := l.explain()
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 2 claimed, 0 failed, 0 removed")
	if newest := s.Tasks[0].Mapped; newest == nil || newest.Created.Day() != 10 {
		t.Errorf("mapped %+v", newest)
	}
	if len(s.Tasks) != 1 || s.Tasks[0].Machine.Name != "a" || len(s.Alarms) != 0 {
		t.Errorf("%v\n%s", s.Alarms, l.describe(s))
	}
	var claims []string
	for _, step := range e.Plan.Steps(plan.ActionClaim) {
		claims = append(claims, step.Point.Created.Format("02")+" "+strings.Join(step.Slots, ","))
	}
	if want := []string{"01 weekly:2026-03-01", "09 weekly:2026-03-08"}; !slices.Equal(claims, want) {
		t.Errorf("claims %q", claims)
	}
	target := l.target()
	for _, entry := range target.Entries() {
		claim, mine := job.ClaimOf(target, "offsite", entry.ID)
		switch entry.Created.Day() {
		case 1:
			mine = mine && slices.Equal(claim.Flags, []string{"weekly:2026-03-01"})
		case 2:
			mine = !mine
		case 9:
			mine = mine && slices.Equal(claim.Flags, []string{"weekly:2026-03-08"})
		case 10: // its week has a point already, of the old id
			mine = mine && slices.Equal(claim.Flags, []string{"none"})
		}
		if !mine {
			t.Errorf("point of %s: %+v", entry.Created, claim)
		}
	}
	l.wantCounts(l.run(job.ResultDone), "0 copied, 0 claimed, 0 failed, 0 removed")
	// The newest copy of the machine is of the old id: no alarm, as long as that is young enough.
	l.points = l.points[:1]
	l.now = l.now.AddDate(0, 0, 3)
	if s := l.run(job.ResultDone); len(s.Alarms) != 1 || !strings.Contains(s.Alarms[0].Text, "machine a (") {
		t.Errorf("alarms %q", s.Alarms)
	}
}

// A job whose target.map cannot be followed fails the machine, and copies nothing of it.
func TestMapThatFindsNothingFailsTheMachine(t *testing.T) {
	l := seeded(t, 1)
	l.setup.Job.Target.Map[0].Backup.Machine = "ole"
	l.points = append(l.points, day("a", 2), day("b", 2))
	s := l.run(job.ResultPartly)
	l.wantCounts(s, "1 copied, 0 claimed, 1 failed, 0 removed")
	if task := s.Tasks[0]; task.State != job.TaskFailed || !strings.Contains(task.Reason, "target.map of a to manual/ole: the target has no such backup") {
		t.Errorf("%+v", task)
	}
}
