package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// Copies grow old in just those sessions that copy nothing: the alarm is raised whatever has become of the sources and of the
// copies, and not for what the job leaves out.
func TestAgeAlarmNeedsNoSource(t *testing.T) {
	for name, trouble := range map[string]func(*lab){
		"empty":      func(l *lab) { l.points = nil },
		"missing":    func(l *lab) { l.sourceErr = fmt.Errorf("no folder: %w", os.ErrNotExist) },
		"unreadable": func(l *lab) { l.sourceErr = errors.New("input/output error") },
		"pruned":     func(l *lab) { l.points = []*sourcetest.Point{day("b", 5)} },
		"the target takes nothing": func(l *lab) {
			l.points = append(l.points[:1], day("b", 5))
			l.store.SetFault(func(op memory.Op, _ string) error {
				if op == memory.OpCommit {
					return errors.New("input/output error")
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, day("a", 1), day("out", 1))
			l.setup.Job.RPO = 48 * time.Hour
			l.run(job.ResultDone)
			l.now = time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
			l.setup.Job.Select.Exclude = []policy.Selector{"out"}
			trouble(l)
			s := job.Run(t.Context(), l.setup)
			var ages []job.Alarm
			for _, alarm := range s.Alarms {
				if strings.Contains(alarm.Text, "rpo") || strings.Contains(alarm.Text, "machine out") {
					ages = append(ages, alarm)
				}
			}
			if want := "machine a (image/fake/a): its newest copy is of 2026-03-01 12:00 UTC, older than 2d, which rpo allows"; len(ages) != 1 || ages[0] != (job.Alarm{Kind: job.AlarmAge, Text: want}) {
				t.Errorf("%s: alarms %q", s.Result, s.Alarms)
			}
			if failed := s.Result == job.ResultFailed; failed != (name == "the target takes nothing") {
				t.Errorf("%s: %s", s.Result, s.Reason)
			}
		})
	}
}

// Of a machine of which nothing can be read it is told which that is, and why; of a damaged copy, whose it is and of when.
func TestDamageIsNamed(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
	l.run(job.ResultDone)
	ids := []string{l.points[0].ID().Short(), l.points[1].ID().Short()}
	lost := l.target().Pseudonym(l.points[1].Machine.Key).String()
	spoilPacks(t, l.store)
	for _, name := range l.store.Names("points/" + lost) {
		if err := l.store.Tamper(name, func(content []byte) []byte { return content[:len(content)/2] }); err != nil {
			t.Fatal(err)
		}
	}
	l.points = []*sourcetest.Point{day("c", 31)}
	l.now = l.now.AddDate(0, 0, 31)
	s := job.Run(t.Context(), l.setup)
	if s.Damage.Points != 2 || len(s.Alarms) != 3 || s.Alarms[0].Kind != job.AlarmOther || s.Alarms[1].Kind != job.AlarmDamage || s.Alarms[2].Kind != job.AlarmDamage || // the first is that the machines have gone from the source
		!strings.HasPrefix(s.Alarms[1].Text, "machine a (image/fake/a): points that cannot be restored whole: 1, of 2026-03-01 12:00 UTC ("+ids[0]+"), damaged: ") ||
		!strings.HasPrefix(s.Alarms[2].Text, "machine "+lost+": points that cannot be restored whole: 1, of 2026-03-01 12:00 UTC ("+ids[1]+"), damaged: its own file") {
		t.Errorf("damage %+v, alarms %q", s.Damage, s.Alarms)
	}
	for _, want := range []string{
		"of 1 machines in the target no point can be read, and they are left as they are: machine " + lost + ", point " + ids[1] + ": ",
		"damaged places without a good copy: ",
		"machine a, point " + ids[0] + ", vda, bytes 4096 to 19999: ",
	} {
		if !slices.ContainsFunc(s.Warnings, func(text string) bool { return strings.Contains(text, want) }) {
			t.Errorf("no warning %q in %q", want, s.Warnings)
		}
	}
}

// However many alarms there are the script after the job is told of them: the first in a variable, all on its standard input.
func TestScriptIsToldOfManyAlarms(t *testing.T) {
	const machines = 2000
	var points []*sourcetest.Point
	for n := range machines {
		points = append(points, day(fmt.Sprintf("%s%04d", strings.Repeat("x", 60), n), 1))
	}
	l := newLab(t, points...)
	l.setup.Job.RPO = time.Hour
	l.lockedWhile(func() bool { return true })
	told := filepath.Join(t.TempDir(), "told")
	l.setup.Job.Scripts.Post = policy.Script{Run: []string{"/bin/sh", "-c", `echo "$FERRY_ALARMS" > ` + told + "; cat > /dev/null"}, Timeout: time.Minute}
	s := l.run(job.ResultWaits)
	if post := s.Phase(job.PhasePostScript); post.State != job.PhaseDone || len(s.Alarms) != machines {
		t.Fatalf("%+v, %d alarms", post, len(s.Alarms))
	}
	content, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	last := len(lines) - 1
	if len(content) < 31<<10 || len(content) > 33<<10 || lines[last] != fmt.Sprintf("... and %d more: see standard input", machines-last) || lines[last-1] != s.Alarms[last-1].Text {
		t.Errorf("%d lines, %d bytes, %q", len(lines), len(content), lines[last-1:])
	}
}

// closedWindow is one that is closed at noon.
func closedWindow(t *testing.T) policy.Window {
	t.Helper()
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return window
}

// The script after the job is told when the job ended; the session as it is printed also counts that script's time.
func TestScriptIsToldWhenTheJobEnded(t *testing.T) {
	l := newLab(t, day("a", 1))
	told := filepath.Join(t.TempDir(), "told")
	l.setup.Job.Scripts.Post = policy.Script{Run: []string{"/bin/sh", "-c", "cat > " + told}, Timeout: time.Minute}
	ended := l.now.Add(time.Hour)
	l.setup.Copy.Finished = func(job.StepReport) { l.now = ended }
	s := l.run(job.ResultDone)
	content, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	var got job.Session
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Ended.Equal(ended) || !s.Ended.Equal(ended) || got.Phase(job.PhasePostScript) != nil {
		t.Errorf("told that it ended %s, %s at the end; it was at %s; %+v", got.Ended, s.Ended, ended, got.Phases)
	}
}

// A script before the job that fails night after night does not silence the alarm: the target is looked at, and no more.
func TestAgeAlarmAfterAnAbort(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.RPO = 48 * time.Hour
	l.run(job.ResultDone)
	l.now = time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	l.setup.Job.Scripts.Pre = policy.Script{Run: []string{"/bin/false"}, OnFailure: policy.FailureAborts}
	before := l.store.Names("")
	s := l.run(job.ResultAborted)
	if len(s.Alarms) != 1 || !strings.Contains(s.Alarms[0].Text, "its newest copy is of 2026-03-01 12:00 UTC, older than 2d") {
		t.Errorf("alarms %q", s.Alarms)
	}
	if after := l.store.Names(""); !slices.Equal(before, after) {
		t.Errorf("%d files instead of %d", len(after), len(before))
	}
	l.setup.Target.Open = func(context.Context) (*repo.Repository, error) { return nil, repo.ErrNoRepository }
	if s = l.run(job.ResultAborted); len(s.Alarms) != 0 || s.Target.State != job.StateOffline {
		t.Errorf("%+v, alarms %q", s.Target, s.Alarms)
	}
}

// A session tells how old the oldest proof of its target is, and how much was never proven.
func TestVerificationIsTold(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
	if s := l.run(job.ResultDone); !s.Target.Verified.IsZero() || s.Target.Unverified == 0 {
		t.Errorf("before anything was verified: %+v", s.Target)
	}
	l.now = l.now.AddDate(0, 2, 0)
	if s := l.run(job.ResultDone); s.Target.Verified.IsZero() || s.Target.Unverified != 0 {
		t.Errorf("after all was: %+v\n%s", s.Target, l.describe(s))
	}
}
