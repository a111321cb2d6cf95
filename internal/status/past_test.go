package status_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// idle are more sessions in a row than are looked back at whose window was closed all the time, every ten minutes from a time on.
func (s *site) idle(from time.Time) {
	s.Helper()
	for range 12 {
		lease := s.begin("offsite", from)
		from = from.Add(10 * time.Minute)
		s.at(from, func() {
			target := fmt.Sprintf(`{"result": "waiting", "ended": %q, "sources": [], "target": {"name": "vault", "state": "ready", "id": "4711"}}`, from.Format(time.RFC3339))
			s.must(s.catalog.Sessions.SetReport(s.Context(), lease, []byte(target)))
			s.must(s.catalog.Sessions.End(s.Context(), lease, catalog.SessionExpired, "the window is closed", catalog.Counts{"copied": 0, "targetRead": 1}))
		})
	}
}

// hourly is a site whose job is to run every hour, but is not enabled, so that no interval is late. It has two machines with young copies.
func hourly(t *testing.T) *site {
	s := newSite(t, strings.Replace(siteYAML, `every: 1d, at: "22:00"`, `every: 1h`, 1))
	s.selects("offsite", day(9, 22), 2)
	s.mirror("vault", point(0, day(9, 21), "offsite"), point(1, day(9, 21), "offsite"))
	s.must(s.catalog.Jobs.Disable(t.Context(), "offsite"))
	return s
}

// What sessions with a closed window do not look at, stays as the last one found it that did.
func TestClosedWindowSaysNothingOfSources(t *testing.T) {
	yaml := strings.Replace(siteYAML, "repositories: [pve]", "repositories: [pve, nas]", 1) + "---\n{kind: Repository, name: nas, location: /mnt/nas/dump}\n"
	s := newSite(t, yaml)
	s.selects("offsite", day(9, 22), 2)
	s.mirror("vault", point(0, day(9, 21), "offsite"))
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{
		Sources: append(sources("pve"), job.SourceState{Name: "nas", State: job.StateUnreadable, Reason: "I/O error"}),
		Alarms:  []job.Alarm{{Kind: job.AlarmOther, Text: "machine vm7 is now called vm8"}, {Kind: job.AlarmDamage, Text: "healed since"}},
		Tasks: []job.Task{
			{Machine: job.TaskMachine{ID: machine(0).Key.String()}, Behind: `what helps: at: "22:30"`},
			{Machine: job.TaskMachine{ID: machine(1).Key.String()}, Mapped: &job.MappedCopy{Point: "4711", Created: day(9, 20)}},
		},
	})
	want := func() {
		t.Helper()
		got := s.wantAlarms(
			"warning source offsite: source nas is unreadable: I/O error, since 03-09 23:00",
			"warning session offsite: machine vm7 is now called vm8, since 03-09 23:00",
		)
		for _, c := range got.Machines {
			if vm0 := c.Machine.Name == "vm0"; vm0 != (c.Note != "") || vm0 == (c.Point == "4711") || c.TooOld {
				t.Errorf("%+v", c)
			}
		}
		for _, r := range got.Repositories {
			if state := map[string]string{"nas": "unreadable", "pve": "ready", "vault": "ready"}[r.Name]; r.State != state {
				t.Errorf("%s is %q, not %s", r.Name, r.State, state)
			}
		}
	}
	s.idle(day(10, 0))
	want()
	// Nor does one that can read none of them say anything of machines.
	s.ran("offsite", day(10, 4), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Reason: "no source can be read", Sources: []job.SourceState{
		{Name: "pve", State: job.StateMissing, Reason: "is the disk mounted?"}, {Name: "nas", State: job.StateUnreadable, Reason: "I/O error"},
	}})
	s.idle(day(10, 6))
	got := s.wantAlarms(
		"critical failed offsite: the last session that came to its end failed: no source can be read, since 03-10 05:00",
		"warning source offsite: source pve is missing: is the disk mounted?, since 03-10 05:00",
		"warning source offsite: source nas is unreadable: I/O error, since 03-10 05:00",
		"warning session offsite: machine vm7 is now called vm8, since 03-09 23:00",
	)
	if got.TooOld > 0 {
		t.Errorf("%+v", got.Machines)
	}
	// When they are back, that is over.
	s.ran("offsite", day(10, 8), catalog.SessionExpired, job.Session{Result: job.ResultWaits, Sources: sources("pve", "nas")})
	for _, c := range s.wantAlarms().Machines {
		if vm1 := c.Machine.Name == "vm1"; c.Note != "" || vm1 != (c.Point == "") {
			t.Errorf("%+v", c)
		}
	}
}

// A job that selects nothing has nothing to copy, also while its window is closed.
func TestClosedWindowOfAJobWithoutMachines(t *testing.T) {
	s := newSite(t, siteYAML)
	s.mirror("vault", point(0, day(9, 23), "offsite"))
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{Sources: sources("pve")})
	s.idle(day(10, 0))
	s.wantLag(api.Lag{Rate: api.Unknown, Limit: 24 * 3600})
}

// Sessions that failed, as a whole or with some machines, are told of until one has come further, however many came to nothing meanwhile.
func TestFailuresOutlastSessionsThatCameToNothing(t *testing.T) {
	reasons := map[catalog.SessionState]string{catalog.SessionFailed: "critical failed offsite: the last %s failed", catalog.SessionPartial: "warning failed offsite: the last %s did not succeed with all machines"}
	for state, text := range reasons {
		s := hourly(t)
		failed := job.Session{Reason: "2 of 2 machines failed", Sources: sources("pve")}
		one := fmt.Sprintf(text, "session that came to its end") + ": 2 of 2 machines failed, since 03-10 00:00"
		s.ran("offsite", day(9, 23), state, failed)
		s.idle(day(10, 0))
		s.wantAlarms(one)
		s.ran("offsite", day(10, 2), catalog.SessionStopped, job.Session{Result: job.ResultInterrupted, Sources: sources("pve")})
		s.ran("offsite", day(10, 3), catalog.SessionExpired, job.Session{Result: job.ResultWaits, Sources: sources("pve")})
		s.wantAlarms(one)
		s.ran("offsite", day(10, 4), state, failed)
		s.wantAlarms(fmt.Sprintf(text, "2 sessions that came to their end") + "; the last: 2 of 2 machines failed, since 03-10 00:00")
		lease := s.begin("offsite", day(10, 5))
		s.must(s.catalog.Sessions.End(t.Context(), lease, catalog.SessionStopped, "", catalog.Counts{"copied": 1}))
		s.wantAlarms()
		for i := range 12 {
			s.ran("offsite", day(10, 6+i), state, failed)
		}
		s.wantAlarms(fmt.Sprintf(text, "10 or more sessions") + "; the last: 2 of 2 machines failed, since 03-10 09:00")
	}
}

// Nor does one that was stopped, or whose time ended, before it came to the machines that failed, whatever it copied of others.
func TestFailuresOutlastSessionsThatCameToOtherMachines(t *testing.T) {
	task := func(n int, state job.TaskState) job.Task {
		points := []job.TaskPoint{}
		if state == job.TaskCopied {
			points = append(points, job.TaskPoint{Action: plan.ActionCopy, Outcome: job.OutcomeCopied})
		}
		return job.Task{Machine: job.TaskMachine{ID: machine(n).Key.String()}, State: state, Points: points}
	}
	for _, early := range []catalog.SessionState{catalog.SessionStopped, catalog.SessionExpired} {
		s := hourly(t)
		s.ran("offsite", day(9, 22), catalog.SessionPartial, job.Session{
			Reason: "1 of 2 machines failed", Sources: sources("pve"), Tasks: []job.Task{task(0, job.TaskCopied), task(1, job.TaskFailed)},
		})
		s.ran("offsite", day(9, 23), early, job.Session{Sources: sources("pve"), Tasks: []job.Task{task(0, job.TaskCopied), task(1, job.TaskNotReached)}})
		s.wantAlarms("warning failed offsite: the last session that came to its end did not succeed with all machines: 1 of 2 machines failed, since 03-09 23:00")
		s.ran("offsite", day(10, 0), early, job.Session{Sources: sources("pve"), Tasks: []job.Task{task(0, job.TaskNotReached), task(1, job.TaskCopied)}})
		s.wantAlarms()

		s = hourly(t)
		s.ran("offsite", day(9, 22), catalog.SessionPartial, job.Session{
			Reason: "1 of 2 machines failed", Sources: sources("pve"), Tasks: []job.Task{task(0, job.TaskCopied), task(1, job.TaskFailed)},
		})
		s.ran("offsite", day(9, 23), early, job.Session{Sources: sources("pve"), Tasks: []job.Task{task(0, job.TaskCopied), task(2, job.TaskNotReached)}})
		s.wantAlarms() // the job has it no more
	}
}

// A session that failed before it came to its sources has failed until one has come to them, and one without a target until that is there.
func TestFailureBeforeTheSources(t *testing.T) {
	s := hourly(t)
	s.ran("offsite", day(9, 22), catalog.SessionFailed, job.Session{Result: job.ResultAborted, Reason: "the pre-job script failed"})
	s.ran("offsite", day(9, 23), catalog.SessionFailed, job.Session{Result: job.ResultAborted, Reason: "the pre-job script failed"})
	s.idle(day(10, 0))
	s.wantAlarms("critical failed offsite: the last 2 sessions that came to their end were aborted; the last: the pre-job script failed, since 03-09 23:00")
	s.ran("offsite", day(10, 2), catalog.SessionExpired, job.Session{Result: job.ResultWaits, Sources: sources("pve")})
	s.wantAlarms()
	s.ran("offsite", day(10, 3), catalog.SessionDone, job.Session{Sources: sources("pve")})
	offline := job.TargetState{Name: "vault", State: job.StateOffline, Reason: "is the disk mounted?"}
	s.ran("offsite", day(10, 4), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Target: offline})
	s.ran("offsite", day(10, 5), catalog.SessionStopped, job.Session{Result: job.ResultInterrupted, Target: offline})
	s.wantAlarms("critical target offsite: target vault is offline: is the disk mounted?, since 03-10 05:00")
	s.ran("offsite", day(10, 6), catalog.SessionStopped, job.Session{Result: job.ResultInterrupted, Target: job.TargetState{Name: "vault"}})
	s.wantAlarms("critical target offsite: target vault is offline: is the disk mounted?, since 03-10 05:00")
	s.idle(day(10, 7))
	s.wantAlarms()
}

// Nights in which no server ran end no alarm.
func TestIntervalsThatWereNotRunEndNoAlarm(t *testing.T) {
	s := hourly(t)
	s.ran("offsite", day(9, 10), catalog.SessionPartial, job.Session{Reason: "1 of 2 machines failed"})
	var missed []time.Time
	for i := range 12 {
		missed = append(missed, day(9, 12+i))
	}
	s.must(s.catalog.Sessions.RecordNotRun(t.Context(), "offsite", missed, "no server ran"))
	s.begin("offsite", day(10, 0))
	s.wantAlarms(
		"warning not-run offsite: its last interval was not run: no server ran, since 03-09 23:00",
		"warning failed offsite: the last session did not succeed with all machines: 1 of 2 machines failed, since 03-09 11:00",
	)
}

// What is damaged in a target is told while it is away, and after a session that was stopped, and no longer once it was seen without damage.
func TestDamageInATargetThatIsAway(t *testing.T) {
	s := hourly(t)
	damaged := "critical damage offsite: one point cannot be restored whole, since 03-09 23:00"
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{
		Target: job.TargetState{Name: "vault", State: job.StateReady, Unverified: 3}, Sources: sources("pve"), Alarms: []job.Alarm{{Kind: job.AlarmDamage, Text: "one point cannot be restored whole"}},
	})
	s.ran("offsite", day(9, 23), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Target: job.TargetState{Name: "vault", State: job.StateOffline}})
	s.wantAlarms("critical target offsite: target vault is offline: , since 03-10 00:00", damaged)
	s.ran("offsite", day(10, 0), catalog.SessionStopped, job.Session{Result: job.ResultInterrupted, Sources: sources("pve")})
	if r := s.wantAlarms(damaged).Repositories[1]; r.Unverified != 3 {
		t.Errorf("%+v", r)
	}
	s.idle(day(10, 1))
	s.wantAlarms()
}

// A session that waits raises an alarm of what the last one did not tell of: another source, or a target that it did not come to.
func TestWaitsForWhatTheLastSessionDidNotTellOf(t *testing.T) {
	yaml := strings.Replace(siteYAML, "repositories: [pve]", "repositories: [pve, nas]", 1) + "---\n{kind: Repository, name: nas, location: /mnt/nas/dump}\n"
	s := newSite(t, yaml)
	nas := "warning source offsite: source nas is unreadable: I/O error, since 03-10 23:00"
	s.ran("offsite", day(10, 22), catalog.SessionStopped, job.Session{Target: job.TargetState{Name: "vault"}, Sources: append(sources("pve"), job.SourceState{Name: "nas", State: job.StateUnreadable, Reason: "I/O error"})})
	lease := s.begin("offsite", day(11, 22))
	s.now = day(11, 23)
	for source, alarms := range map[string][]string{
		"nas": {nas},
		"pve": {nas, "warning source offsite: it does not answer, since 03-11 22:00"},
		"":    {nas, "warning source offsite: it does not answer, since 03-11 22:00"},
	} {
		s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "source", Source: source}, "it does not answer"))
		s.wantAlarms(alarms...)
	}
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: "offline", Reason: "is the disk mounted?"}, "target offline"))
	s.wantAlarms("warning target offsite: target vault is offline: is the disk mounted?, since 03-11 22:00", nas)
}

// A target is not away any more once a session works in it, which may take days. One that was full may still be.
func TestTargetThatCameBack(t *testing.T) {
	for state, back := range map[job.PlaceState]bool{job.StateOffline: true, job.StateFull: false} {
		s := newSite(t, siteYAML)
		s.ran("offsite", day(10, 22), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Target: job.TargetState{Name: "vault", State: state, Reason: "sic"}})
		lease := s.begin("offsite", day(11, 22))
		s.now = day(12, 12)
		alarms, is := []string{"critical target offsite: target vault " + state.Is() + ": sic, since 03-10 23:00"}, string(state)
		want := func() {
			t.Helper()
			if r := s.wantAlarms(alarms...).Repositories[1]; r.State != is {
				t.Errorf("%s is %s, not %s", r.Name, r.State, is)
			}
		}
		_, err := s.catalog.Sessions.Enter(t.Context(), lease, string(job.PhasePreScript))
		s.must(err)
		want()
		_, err = s.catalog.Sessions.Enter(t.Context(), lease, string(job.PhaseSynchronize))
		s.must(err)
		s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: string(state), Reason: "sic"}, "target"))
		want()
		s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{}, ""))
		if back {
			alarms, is = nil, "ready"
		}
		want()
	}
}

// What a job was changed not to have any more raises no alarm, though no session has ended since: a source, a machine, the target.
func TestWhatAJobNoLongerHasIsNoAlarm(t *testing.T) {
	yaml := strings.Replace(siteYAML, "repositories: [pve]", "repositories: [pve, nas]", 1) + "---\n{kind: Repository, name: nas, location: /mnt/nas/dump}\n---\n{kind: Repository, name: attic, location: /attic}\n"
	s := newSite(t, yaml)
	s.selects("offsite", day(2, 12), 1)
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{
		Sources: append(sources("pve"), job.SourceState{Name: "nas", State: job.StateMissing, Reason: "sic"}), Alarms: []job.Alarm{{Kind: job.AlarmDamage, Text: "one point"}},
	})
	s.mirror("vault")
	s.wantAlarms(
		"critical rpo offsite vm0: it has no copy, since 03-03 14:00",
		"critical damage offsite: one point, since 03-09 23:00",
		"warning source offsite: source nas is missing: sic, since 03-09 23:00",
	)
	change := func(from, to string) {
		t.Helper()
		yaml = strings.Replace(yaml, from, to, 1)
		var err error
		s.resources, err = policy.Parse(policy.File{Name: "site.yaml", Content: []byte(yaml)})
		s.must(err)
	}
	change("repositories: [pve, nas]", "repositories: [pve]")
	change("rpo: 26h", "rpo: 26h\nselect: {include: [\"*\"], exclude: [\"vm0\"]}")
	if got := s.wantAlarms("critical damage offsite: one point, since 03-09 23:00"); got.MachinesTotal != 0 {
		t.Errorf("%+v", got.Machines)
	}
	s.ran("offsite", day(10, 0), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Target: job.TargetState{Name: "vault", State: job.StateOffline, Reason: "sic"}})
	change("repository: vault}", "repository: attic}")
	s.wantAlarms()
	lease := s.begin("offsite", day(10, 22))
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: "offline", Reason: "is the disk mounted?"}, "target offline"))
	s.wantAlarms("warning target offsite: target attic is offline: is the disk mounted?, since 03-10 22:00")
}

// A target that fills up is an alarm, until no job copies to it any more.
func TestTargetThatFillsUp(t *testing.T) {
	s := newSite(t, siteYAML+"---\n{kind: Repository, name: attic, location: /attic}\n")
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{})
	for n := range 5 {
		s.must(s.catalog.Figures.Record(t.Context(), "vault", catalog.Figure{At: day(5+n, 12), FreeBytes: int64(10 - n)}))
	}
	for free, want := range map[string]string{
		"target: {repository: vault}": "warning space : repository vault: full in about 5 days, since 03-10 12:00",
		"target: {repository: attic}": "",
	} {
		var err error
		s.resources, err = policy.Parse(policy.File{Name: "site.yaml", Content: []byte(strings.Replace(siteYAML, "target: {repository: vault}", free, 1) + "---\n{kind: Repository, name: attic, location: /attic}\n")})
		s.must(err)
		if want == "" {
			s.wantAlarms()
		} else {
			s.wantAlarms(want)
		}
	}
}

// Damaged points that a target has for others than its jobs are an alarm as long as they are damaged: no session tells of them.
func TestDamagedPointsOfNoJob(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(9, 22), 1)
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{Sources: sources("pve")})
	young, own, manual, gone := point(0, day(9, 22), "offsite"), point(0, day(2, 10), "offsite"), point(0, day(3, 10), "manual"), point(1, day(3, 10), "attic")
	own.Damaged, manual.Damaged, gone.Damaged = true, true, true
	own.Claims = append(own.Claims, catalog.MirrorClaim{Job: "attic"})
	s.mirror("vault", young, own, manual, gone)
	s.mirror("pve", gone)
	text := "points of it in repository vault that cannot be restored whole: %d; ferry verify lists what is damaged, since 03-10 12:00"
	s.wantAlarms("critical damage attic: "+fmt.Sprintf(text, 2), "critical damage manual: "+fmt.Sprintf(text, 1), "critical damage offsite: "+fmt.Sprintf(text, 1))
	gone.Damaged, own.Damaged, manual.Damaged = false, false, false
	s.mirror("vault", young, own, manual, gone)
	s.wantAlarms()
}

// What another job's session found of a job's points since its own last one is told at once: its next one may be far, or never come. What it
// told itself is not told twice.
func TestDamagedPointsThatAnotherJobFound(t *testing.T) {
	for _, schedule := range []string{`{every: 1d, at: "22:00"}`, "{mode: immediate}", "{mode: manual}"} {
		for _, enabled := range []bool{true, false} {
			s := newSite(t, strings.Replace(siteYAML, `{every: 1d, at: "22:00"}`, schedule, 1))
			s.selects("offsite", day(9, 22), 2)
			if !enabled {
				s.must(s.catalog.Jobs.Disable(t.Context(), "offsite"))
			}
			s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{Sources: sources("pve")})
			bad := point(1, day(9, 21), "offsite")
			bad.Damaged = true
			s.mirror("vault", point(0, day(9, 21), "offsite"), bad)
			s.wantAlarms("critical damage offsite: points of it in repository vault that cannot be restored whole: 1; ferry verify lists what is damaged, since 03-10 12:00")
			s.ran("offsite", day(9, 23), catalog.SessionDone, job.Session{Sources: sources("pve"), Alarms: []job.Alarm{{Kind: job.AlarmDamage, Text: "one point cannot be restored whole"}}})
			s.wantAlarms("critical damage offsite: one point cannot be restored whole, since 03-10 00:00")
		}
	}
}
