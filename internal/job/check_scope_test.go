package job_test

import (
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// The health check of a job looks at all of its target: what it finds damaged of another job's points is told as places in
// the target, and is an alarm with its points in the next session of that one, which checks nothing.
func TestHealthCheckCoversTheWholeTarget(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.run(job.ResultDone)
	ours := l.store.Names("packs/")
	other := l.setup
	l.setup.Job.Name, l.points = "attic", []*sourcetest.Point{day("b", 2)}
	l.run(job.ResultDone)
	for _, name := range l.store.Names("packs/") {
		if strings.Contains(strings.Join(ours, " "), name) {
			continue
		}
		if err := l.store.Tamper(name, func(content []byte) []byte { content[len(content)/3] ^= 1; return content }); err != nil {
			t.Fatal(err)
		}
	}
	l.now, l.setup = l.now.AddDate(0, 0, 31), other
	l.points = []*sourcetest.Point{day("a", 1)}
	l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
	s := l.run(job.ResultDone)
	phase := s.Phase(job.PhaseHealthCheck)
	if phase.Counts["packs"] != int64(len(l.store.Names("packs/"))) || phase.Counts["points"] != 2 || phase.State != job.PhaseWarned || phase.Counts["damagedPoints"] != 1 {
		t.Errorf("%+v", phase)
	}
	if s.Damage.Points != 0 || s.Damage.Places == 0 || len(s.Alarms) != 1 || !strings.HasPrefix(s.Alarms[0].Text, "damaged places in the target") {
		t.Errorf("damage %+v, alarms %v", s.Damage, s.Alarms)
	}
	l.setup.Job.Name, l.setup.Job.HealthCheck = "attic", policy.HealthCheck{}
	l.points = []*sourcetest.Point{day("b", 3), day("c", 1)}
	if s = l.run(job.ResultDone); s.Damage.Points != 1 || len(s.Alarms) != 1 || s.Alarms[0].Kind != job.AlarmDamage {
		t.Errorf("damage %+v, alarms %v", s.Damage, s.Alarms)
	}
}

// A health check whose budget is used up says how far it came, and is gone on with by later sessions until everything is proven; what
// was never proven comes first, then the oldest proof.
func TestHealthCheckGoesOnUntilAllIsProven(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.run(job.ResultDone)
	l.setup.Job.HealthCheck = policy.HealthCheck{Level: "points", Upkeep: policy.Upkeep{
		Schedule: policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}, Budget: time.Minute,
	}}
	l.now = l.now.AddDate(0, 0, 31)
	l.run(job.ResultDone)
	proven := l.store.Names("packs/")
	l.points = append(l.points, day("a", 2))
	l.now = l.now.Add(time.Hour)
	l.run(job.ResultDone)
	packs := l.store.Names("packs/")
	total := int64(0)
	for _, name := range packs {
		info, err := l.store.Stat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size
	}
	l.setup.Checking = func(*repo.VerifyProgress) { l.now = l.now.Add(time.Minute) } // the budget
	l.now = l.now.AddDate(0, 0, 31)
	began := l.now
	fresh := int64(0)
	for turn := range packs {
		s := l.run(job.ResultDone)
		phase := s.Phase(job.PhaseHealthCheck)
		checked, left := phase.Counts["checkedBytes"], phase.Counts["unreadBytes"]
		if phase.Counts["packs"] != 1 || phase.Counts["freshBytes"] != fresh || fresh+checked+left != total {
			t.Fatalf("turn %d: %+v of %d", turn, phase, total)
		}
		if never := len(packs) - len(proven); turn < never && l.target().Proven(t.Context())[0].Never != never-turn-1 {
			t.Errorf("turn %d did not prove a pack that was never proven", turn)
		}
		fresh += checked
		switch more := turn < len(packs)-1; {
		case more != strings.Contains(phase.Reason, "its budget is used up"):
			t.Errorf("turn %d: %s", turn, phase.Reason)
		case turn > 0 && more && !strings.Contains(phase.Reason, "before that since "+began.Format("2006-01-02 15:04")):
			t.Errorf("turn %d: %s", turn, phase.Reason)
		}
	}
	if left := l.target().Proven(t.Context())[0]; left.Never != 0 || left.Oldest.Before(began.Add(-time.Second)) {
		t.Errorf("%+v", left)
	}
	if phase := l.run(job.ResultDone).Phase(job.PhaseHealthCheck); phase.State != job.PhaseSkipped {
		t.Errorf("checked again: %+v", phase)
	}
}
