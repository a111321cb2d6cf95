package job_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
)

// called is a point of a machine that has another name than its id says.
func called(id, name string, n int, labels ...string) *sourcetest.Point {
	p := day(id, n)
	p.Machine.Name, p.Machine.Labels = name, labels
	return p
}

// selecting is a job of the machines 1, called web01, and 2, called db01, that has copied both, and whose source has newer points since:
// of the first under the name and with the labels that are given.
func selecting(t *testing.T, includes []policy.Selector, name string, labels ...string) *lab {
	l := newLab(t, called("1", "web01", 1, "prod"), called("2", "db01", 1, "prod"))
	l.setup.Job.Select.Include, l.setup.Job.RPO = includes, 26*time.Hour
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	l.points = append(l.points, called("1", name, 2, labels...), called("2", "db01", 2, "prod"))
	l.now = l.now.AddDate(0, 0, 1)
	return l
}

// names of the machines that the session's job has.
func names(s *job.Session) string {
	var names []string
	for _, m := range s.Selected {
		names = append(names, m.Name)
	}
	return strings.Join(names, " ")
}

func (l *lab) wantAlarms(s *job.Session, wanted ...string) {
	l.t.Helper()
	if len(s.Alarms) != len(wanted) {
		l.t.Fatalf("alarms %q, want %d", s.Alarms, len(wanted))
	}
	for i, want := range wanted {
		if !strings.Contains(s.Alarms[i].Text, want) {
			l.t.Errorf("alarm %q, want %q", s.Alarms[i].Text, want)
		}
	}
}

// A machine that is called otherwise in its source, or has lost its label, is not selected any more. That is an alarm with both names, and
// the machine stays one of the job's, whose copies can grow too old, until it is included again, excluded, or said to have gone.
func TestMachineDropsOutOfTheSelection(t *testing.T) {
	const renamed = "machine web01 (image/fake/1) is now called web-01, which nothing in select.include matches as web01 did"
	both := []policy.Selector{"web01", "db01"}
	t.Run("renamed", func(t *testing.T) {
		l := selecting(t, both, "web-01")
		if e := l.explain(); len(e.Plan.Alarms) != 1 || !strings.Contains(e.Plan.Alarms[0], renamed) {
			t.Errorf("explained: %q", e.Plan.Alarms)
		}
		s := l.run(job.ResultDone)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if l.wantAlarms(s, renamed); names(s) != "db01 web-01" {
			t.Errorf("selected %s", names(s))
		}
		l.points = append(l.points, called("1", "web-01", 3), called("2", "db01", 3, "prod"))
		l.now = l.now.AddDate(0, 0, 1)
		l.wantAlarms(l.run(job.ResultDone), renamed, "machine web-01 (image/fake/1): its newest copy is of 2026-03-01")
	})
	t.Run("the label is lost", func(t *testing.T) {
		l := selecting(t, []policy.Selector{"label=prod"}, "web01", "lab")
		l.wantAlarms(l.run(job.ResultDone), "machine web01 (image/fake/1) has not got the label any more by which label=prod selected it")
	})
	t.Run("a pattern", func(t *testing.T) {
		l := selecting(t, []policy.Selector{"web*", "db*"}, "www01")
		l.wantAlarms(l.run(job.ResultDone), "is now called www01, which nothing in select.include matches as web* did")
	})
	for what, say := range map[string]func(*policy.Select){
		"included by id":       func(s *policy.Select) { s.Include = []policy.Selector{"image/fake/1", "db01"} },
		"included by its name": func(s *policy.Select) { s.Include = []policy.Selector{"db01", "web-01"} },
		"taken out":            func(s *policy.Select) { s.Include = []policy.Selector{"db01"} },
		"excluded": func(s *policy.Select) {
			s.Include, s.Exclude = []policy.Selector{"web0*", "db01"}, []policy.Selector{"web-01"}
		},
		"excluded as it was": func(s *policy.Select) {
			s.Include, s.Exclude = []policy.Selector{"web0*", "db01"}, []policy.Selector{"web01"}
		},
	} {
		l := selecting(t, both, "web-01")
		say(&l.setup.Job.Select)
		s := l.run(job.ResultDone)
		in := strings.HasPrefix(what, "included")
		if l.wantAlarms(s); strings.Contains(names(s), "web") != in || s.Copied() == 2 != in {
			t.Errorf("%s: selected %s, %d copied", what, names(s), s.Copied())
		}
	}
	l := selecting(t, both, "web-01")
	if _, _, err := job.Retire(t.Context(), l.setup, "web01", true); err != nil {
		t.Fatal(err)
	}
	l.wantAlarms(l.run(job.ResultDone))
}

// While a source is not listed nobody knows under which name it has a machine; the machine stays the job's.
func TestMachineMayBeInWhatIsNotListed(t *testing.T) {
	l := selecting(t, []policy.Selector{"web01", "db01", "mail"}, "web-01")
	l.wantAlarms(l.run(job.ResultDone), "select.include names mail, and no source has such a machine", "is now called web-01")
	l.setup.Sources = append(l.setup.Sources, job.Place{
		Origin: origin(t, "second"), Open: func(context.Context) (*registry.Source, error) { return nil, errors.New("input/output error") },
	})
	s := l.run(job.ResultDone)
	if l.wantAlarms(s); names(s) != "db01 web-01" || !slices.ContainsFunc(s.Warnings, func(text string) bool { return strings.Contains(text, "nothing which is listed has: mail") }) {
		t.Errorf("selected %s, warnings %q", names(s), s.Warnings)
	}
}

// A machine that was selected, and never copied, drops out of the selection as one does that has copies: for as long as it is there.
func TestMachineWithoutCopyDropsOutOfTheSelection(t *testing.T) {
	web := called("1", "web01", 1)
	web.OpenError = backup.ErrBroken
	l := newLab(t, web, called("2", "db01", 1))
	l.setup.Job.Select.Include = []policy.Selector{"web*", "db*"}
	l.wantAlarms(l.run(job.ResultPartly))
	web.Machine.Name = "www01"
	for range 2 {
		s := l.run(job.ResultDone)
		if l.wantAlarms(s, "machine web01 (image/fake/1) is now called www01"); names(s) != "db01 www01" {
			t.Errorf("selected %s", names(s))
		}
	}
	l.points = l.points[1:]
	s := l.run(job.ResultDone)
	if l.wantAlarms(s); names(s) != "db01" {
		t.Errorf("selected %s", names(s))
	}
}

// What select.include names and no source has is an alarm, with what may be meant; a pattern that matches nothing is a warning: such
// machines may come. A machine that has been copied and is in no source any more is missing, and neither.
func TestNamesThatFindNothing(t *testing.T) {
	l := newLab(t, called("1", "web01", 1), called("2", "db01", 1))
	l.setup.Job.Select.Include = []policy.Selector{"web1", "db01", "mail*"}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	l.wantAlarms(s, "select.include names web1, and no source has such a machine: did you mean web01?")
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "select.include has mail*, which matches no machine") {
		t.Errorf("warnings %q", s.Warnings)
	}
	l.setup.Job.Select.Include = []policy.Selector{"web01", "db*"}
	l.wantAlarms(l.run(job.ResultDone))
	l.points = l.points[:1]
	if s = l.run(job.ResultDone); len(s.Alarms)+len(s.Warnings) > 0 || names(s) != "web01 db01" {
		t.Errorf("missing: alarms %q, warnings %q, selected %s", s.Alarms, s.Warnings, names(s))
	}
}
