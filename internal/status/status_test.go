package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/status"
)

// site is a catalog with a job "offsite" from "pve" to "vault", every day at 22:00.
type site struct {
	testing.TB
	catalog   *catalog.Catalog
	resources policy.Resources
	now       time.Time
	asked     int
	troubles  []status.Trouble
}

const siteYAML = `{kind: Repository, name: pve, location: /mnt/pve/dump}
---
{kind: Repository, name: vault, location: /mnt/usb/vault}
---
kind: Job
name: offsite
source: {repositories: [pve]}
target: {repository: vault}
schedule: {every: 1d, at: "22:00"}
rpo: 26h
`

// newSite has the clock at noon of 10 March; the job was enabled at noon of the first.
func newSite(t testing.TB, yaml string) *site {
	t.Helper()
	s := &site{TB: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	var err error
	s.catalog, err = catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{
		Now: func() time.Time { return s.now }, Asked: func(string) { s.asked++ },
	})
	s.must(err)
	t.Cleanup(func() { s.must(s.catalog.Close()) })
	s.resources, err = policy.Parse(policy.File{Name: "site.yaml", Content: []byte(yaml)})
	s.must(err)
	for _, j := range s.resources.Jobs {
		s.must(s.catalog.Jobs.Enable(t.Context(), j.Name))
	}
	s.now = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func machine(n int) backup.Machine {
	key := backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(100+n), fmt.Sprintf("00000000-0000-4000-8000-%012d", n), "")
	return backup.Machine{Key: key, Name: fmt.Sprintf("vm%d", n)}
}

func machines(n int) (all []backup.Machine) {
	for i := range n {
		all = append(all, machine(i))
	}
	return all
}

// selects notes the machines of a job at a time.
func (s *site) selects(of string, at time.Time, n int) {
	s.Helper()
	s.at(at, func() { s.must(s.catalog.Jobs.Select(s.Context(), of, machines(n))) })
}

// at does something at another time.
func (s *site) at(at time.Time, do func()) {
	now := s.now
	s.now = at
	do()
	s.now = now
}

// point is a copy that a job has of a machine.
func point(machineNumber int, created time.Time, of string) catalog.MirrorPoint {
	m := machine(machineNumber)
	return catalog.MirrorPoint{
		ID: backup.NewPointID(m.Key, created.String()), Machine: &m, Created: created, State: backup.StateComplete, Size: 1 << 30,
		Claims: []catalog.MirrorClaim{{Job: of}},
	}
}

func (s *site) mirror(repository string, points ...catalog.MirrorPoint) {
	s.Helper()
	s.must(s.catalog.Mirror.Replace(s.Context(), repository, catalog.Head{RepositoryID: "4711", Number: 1, Checksum: "a"}, sequence(points)))
}

func sequence(points []catalog.MirrorPoint) iter.Seq2[catalog.MirrorPoint, error] {
	return func(yield func(catalog.MirrorPoint, error) bool) {
		for _, p := range points {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// ran is a session of a job that began at a boundary, and ended an hour later with a report.
func (s *site) ran(of string, boundary time.Time, state catalog.SessionState, report job.Session) {
	s.Helper()
	lease := s.begin(of, boundary)
	report.Job, report.Ended = of, boundary.Add(time.Hour)
	if report.Target == (job.TargetState{}) {
		report.Target = job.TargetState{Name: "vault", State: job.StateReady, ID: "4711"}
	}
	text, err := json.Marshal(report)
	s.must(err)
	s.at(report.Ended, func() {
		s.must(s.catalog.Sessions.SetReport(s.Context(), lease, text))
		s.must(s.catalog.Sessions.End(s.Context(), lease, state, report.Reason, counts(report)))
	})
}

// sources are some that could be read.
func sources(names ...string) (states []job.SourceState) {
	for _, name := range names {
		states = append(states, job.SourceState{Name: name, State: job.StateReady})
	}
	return states
}

// counts are those by which a job stands.
func counts(report job.Session) catalog.Counts {
	counts := catalog.Counts{"copied": int64(report.Copied()), "sources": int64(len(report.Sources)), "sourcesRead": int64(report.SourcesRead())}
	if report.TargetRead() {
		counts["targetRead"] = 1
	}
	return counts
}

func (s *site) begin(of string, boundary time.Time) (lease catalog.SessionLease) {
	s.Helper()
	s.at(boundary, func() {
		var err error
		_, lease, err = s.catalog.Sessions.Begin(s.Context(), catalog.NewSession{Job: of, Boundary: boundary}, "me", catalog.MaxLease)
		s.must(err)
	})
	return lease
}

func (s *site) status() api.Status {
	s.Helper()
	got, err := status.Of(s.Context(), s.catalog, s.resources, s.now, status.Options{Version: "1.2.3", Machines: -1, Troubles: s.troubles})
	s.must(err)
	return got
}

func (s *site) wantAlarms(want ...string) api.Status {
	s.Helper()
	got := s.status()
	var told []string
	for _, a := range got.Alarms {
		line := fmt.Sprintf("%s %s %s: %s", a.Level, a.Kind, a.Job, a.Text)
		if a.Machine != nil {
			line = fmt.Sprintf("%s %s %s %s: %s", a.Level, a.Kind, a.Job, a.Machine.Name, a.Text)
		}
		told = append(told, line+", since "+a.Since.Format("01-02 15:04"))
	}
	if !slices.Equal(told, want) {
		s.Errorf("alarms:\n%s\nwant:\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	return got
}

func day(n, hour int) time.Time { return time.Date(2026, 3, n, hour, 0, 0, 0, time.UTC) }

// A copy that is too old, or none where there has been time to make one, is an alarm; a young machine, one that is retired and
// one with a good copy are none.
func TestAgesOfCopies(t *testing.T) {
	s := newSite(t, siteYAML)
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{})
	s.selects("offsite", day(2, 12), 5)
	s.selects("offsite", day(9, 22), 6) // the last is new
	retired, err := s.catalog.Machines.Retire(t.Context(), machine(4).Key, true)
	s.must(err)
	damaged, foreign := point(2, day(10, 1), "offsite"), point(1, day(10, 1), "attic")
	damaged.Damaged = true
	s.mirror("vault",
		point(0, day(9, 10), "offsite"), point(0, day(2, 10), "offsite"), // exactly as old as is allowed
		point(1, day(9, 9), "offsite"), foreign,
		point(2, day(3, 9), "offsite"), damaged,
		point(4, day(3, 9), "offsite"))
	got := s.wantAlarms(
		"critical rpo offsite vm3: it has no copy, since 03-03 14:00",
		"critical rpo offsite vm2: its newest copy is of 2026-03-03T09:00:00Z, older than 26h, which rpo allows, since 03-04 11:00",
		"critical rpo offsite vm1: its newest copy is of 2026-03-09T09:00:00Z, older than 26h, which rpo allows, since 03-10 11:00",
		"critical damage offsite: points of it in repository vault that cannot be restored whole: 1; ferry verify lists what is damaged, since 03-10 12:00",
	)
	var order []string
	for _, c := range got.Machines {
		order = append(order, c.Machine.Name)
		if c.LagPoints != api.Unknown || c.LagBytes != api.Unknown || c.RPO != 26*3600 {
			t.Errorf("%+v", c)
		}
	}
	if text := strings.Join(order, " "); text != "vm3 vm2 vm1 vm5 vm4 vm0" {
		t.Errorf("order %s", text)
	}
	if c := got.Machines[4]; !c.Retired.Equal(retired.Since) || !c.Purge.IsZero() || !got.Machines[5].Retired.IsZero() {
		t.Errorf("retired %s, purged %s", c.Retired, c.Purge)
	}
	if got.TooOld != 3 || got.MachinesTotal != 6 || got.WithoutCopy != 2 {
		t.Errorf("too old %d, in all %d, without a copy %d, %+v", got.TooOld, got.MachinesTotal, got.WithoutCopy, got.Machines[4])
	}
	// Those that are too old are listed whatever the limit, the others up to it.
	for limit, want := range map[int]int{0: 3, 2: 3, 4: 4, 100: 6} {
		few, err := status.Of(t.Context(), s.catalog, s.resources, s.now, status.Options{Machines: limit})
		if s.must(err); len(few.Machines) != want || few.MachinesTotal != 6 {
			t.Errorf("with limit %d there are %d of %d machines", limit, len(few.Machines), few.MachinesTotal)
		}
	}
}

// What a target holds that was never looked at is not known: that is no proof that there is no copy.
func TestTargetThatWasNeverRead(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(2, 12), 1)
	s.ran("offsite", day(9, 22), catalog.SessionFailed, job.Session{Result: job.ResultWaits, Reason: "target offline: nothing there",
		Target: job.TargetState{Name: "vault", State: job.StateOffline, Reason: "nothing there"}})
	got := s.wantAlarms(
		"critical rpo offsite vm0: what the target holds of it is not known, since 03-03 14:00",
		"critical target offsite: target vault is offline: nothing there, since 03-09 23:00",
	)
	if got.WithoutCopy != 0 || got.Machines[0].Note != "what the target holds is not known yet" {
		t.Errorf("%+v", got)
	}
}

// A job that was only just made is not switched off: the server has not come to it yet.
func TestNewJobIsNotSwitchedOff(t *testing.T) {
	s := newSite(t, siteYAML)
	s.must(s.catalog.Jobs.Forget(t.Context(), "offsite"))
	if got := s.status().Jobs[0]; !got.Enabled || got.Waits != "the server to come to it" {
		t.Errorf("%+v", got)
	}
}

// A job that has not run when it should have is an alarm once it is late, unless it runs or is switched off.
func TestNotRun(t *testing.T) {
	s := newSite(t, siteYAML)
	s.ran("offsite", day(8, 22), catalog.SessionDone, job.Session{})
	s.now = day(9, 22).Add(5 * time.Minute)
	s.wantAlarms()
	s.now = day(9, 23)
	s.wantAlarms("critical not-run offsite: its interval has not begun, since 03-09 22:00")
	s.now = day(11, 23) // of several that were missed the first counts
	s.wantAlarms("critical not-run offsite: its interval has not begun, since 03-09 22:00")
	s.must(s.catalog.Jobs.Disable(t.Context(), "offsite"))
	if got := s.wantAlarms(); got.Jobs[0].Enabled || got.Jobs[0].Waits != "to be enabled" {
		t.Errorf("%+v", got.Jobs[0])
	}
	s.must(s.catalog.Jobs.Enable(t.Context(), "offsite"))
	lease := s.begin("offsite", day(11, 22))
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "window"}, "the window is closed"))
	got := s.wantAlarms()
	if j := got.Jobs[0]; j.Running == 0 || j.Waits != "the window is closed" || len(got.Sessions) != 1 || got.Sessions[0].State != "waiting" || got.Sessions[0].WaitsFor != "window" {
		t.Errorf("%+v, %+v", j, got.Sessions)
	}
	s.must(s.catalog.Sessions.End(t.Context(), lease, catalog.SessionDone, "", nil))
	s.must(s.catalog.Sessions.RecordNotRun(t.Context(), "offsite", []time.Time{day(10, 22)}, "no server ran"))
	got = s.wantAlarms("warning not-run offsite: its last interval was not run: no server ran, since 03-10 22:00")
	if j := got.Jobs[0]; !j.Next.Equal(day(12, 22)) || j.Waits != "" || j.Last.State != "not run" || j.Schedule != "every day at 22:00 (UTC)" {
		t.Errorf("%+v", j)
	}
}

// What keeps the server from its work is an alarm before all others. That a job's sources cannot be looked at is one unless its last session has
// told that.
func TestTroubles(t *testing.T) {
	s := newSite(t, siteYAML)
	s.troubles = []status.Trouble{{Text: "what sessions do cannot be noted: disk\nfull", Since: day(10, 9)}, {Job: "offsite", Text: "the sources of job offsite cannot be looked at", Since: day(10, 10)}}
	s.ran("offsite", day(9, 22), catalog.SessionFailed, job.Session{Sources: sources("pve"), Reason: "it broke"})
	serverText := `critical server : what sessions do cannot be noted: disk%0Afull, since 03-10 09:00`
	s.wantAlarms(serverText, "critical failed offsite: the last session failed: it broke, since 03-09 23:00", "warning source offsite: the sources of job offsite cannot be looked at, since 03-10 10:00")
	s.ran("offsite", day(10, 11), catalog.SessionDone, job.Session{Sources: []job.SourceState{{Name: "pve", State: job.StateOffline, Reason: "it is away"}}})
	s.wantAlarms(serverText, "warning source offsite: source pve is offline: it is away, since 03-10 12:00")
}

// What was asked for is late counted from then, not from the boundary before.
func TestAskedFor(t *testing.T) {
	s := newSite(t, siteYAML)
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{})
	s.must(s.catalog.Jobs.Ask(t.Context(), "offsite"))
	s.wantAlarms()
	s.now = s.now.Add(time.Hour)
	s.wantAlarms("critical not-run offsite: its interval has not begun, since 03-10 12:00")
}

// What the last session came to counts until another one has ended; ages are counted as of now, not as it said.
func TestLastSession(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(9, 22), 2)
	s.mirror("vault", point(0, day(9, 21), "offsite"), point(1, day(9, 21), "offsite"))
	s.ran("offsite", day(6, 22), catalog.SessionDone, job.Session{})
	s.ran("offsite", day(7, 22), catalog.SessionPartial, job.Session{Reason: "1 of 2 machines failed"})
	s.ran("offsite", day(8, 22), catalog.SessionPartial, job.Session{Reason: "1 of 2 machines failed"})
	s.must(s.catalog.Sessions.RecordNotRun(t.Context(), "offsite", []time.Time{day(5, 22)}, "the server was down"))
	s.ran("offsite", day(9, 22), catalog.SessionPartial, job.Session{
		Result: job.ResultPartly, Reason: "1 of 2 machines failed",
		Sources: []job.SourceState{{Name: "pve", State: job.StateUnreadable, Reason: "I/O error"}, {Name: "nas", State: job.StateReady}},
		Alarms: []job.Alarm{
			{Kind: job.AlarmAge, Text: "machine vm1 (x): it has no copy"},
			{Kind: job.AlarmDamage, Text: "machine vm0 (x): points that cannot be restored whole: 1, of 2026-03-01 12:00 UTC (0123), damaged: 1 place; ferry verify lists what is damaged"},
			{Kind: job.AlarmOther, Text: "nothing is removed: more than half of the machines have gone"},
		},
		Tasks: []job.Task{{Machine: job.TaskMachine{ID: machine(1).Key.String()}, Behind: `what helps: at: "22:30"`}},
	})
	got := s.wantAlarms(
		"critical damage offsite: machine vm0 (x): points that cannot be restored whole: 1, of 2026-03-01 12:00 UTC (0123), damaged: 1 place; ferry verify lists what is damaged, since 03-09 23:00",
		"warning failed offsite: the last 3 sessions did not succeed with all machines; the last: 1 of 2 machines failed, since 03-07 23:00",
		"warning source offsite: source pve is unreadable: I/O error, since 03-09 23:00",
		"warning session offsite: nothing is removed: more than half of the machines have gone, since 03-09 23:00",
	)
	if note := got.Machines[1].Note; note != `always one interval behind: what helps: at: "22:30"` {
		t.Errorf("note %q", note)
	}
	want := api.Repository{Name: "pve", Location: "/mnt/pve/dump", State: "unreadable", Reason: "I/O error", Seen: day(9, 23), Points: -1, Machines: -1, Logical: -1, Stored: -1, Free: -1, Unverified: -1, Orphaned: []api.Orphaned{}}
	if !reflect.DeepEqual(got.Repositories[0], want) {
		t.Errorf("%+v", got.Repositories[0])
	}
	if r := got.Repositories[1]; r.State != "ready" || r.ID != "4711" {
		t.Errorf("%+v", r)
	}
}

// A session whose time ended while machines waited raises no alarm, nor does it end that of machines that failed before, unless it has
// copied something.
func TestWaitingIsNoAlarm(t *testing.T) {
	s := newSite(t, strings.Replace(siteYAML, `every: 1d, at: "22:00"`, `every: 1h`, 1))
	s.selects("offsite", day(9, 22), 2)
	s.mirror("vault", point(0, day(9, 21), "offsite"), point(1, day(9, 21), "offsite"))
	waited := job.Session{Result: job.ResultWaits, Reason: "1 of 2 machines wait: vm0", Sources: sources("pve")}
	next := 0
	ended := func(state catalog.SessionState, report job.Session, want ...string) {
		t.Helper()
		s.ran("offsite", day(10, next), state, report)
		next++
		s.now = day(10, next).Add(time.Minute)
		s.wantAlarms(want...)
	}
	ended(catalog.SessionExpired, waited)
	ended(catalog.SessionFailed, job.Session{Result: job.ResultFailed, Reason: "2 of 2 machines failed: vm0, vm1"}, "critical failed offsite: the last session failed: 2 of 2 machines failed: vm0, vm1, since 03-10 02:00")
	ended(catalog.SessionExpired, waited)
	failed := "warning failed offsite: the last session%s did not succeed with all machines: 1 of 2 machines failed: vm1, since 03-10 04:00"
	ended(catalog.SessionPartial, job.Session{Result: job.ResultPartly, Reason: "1 of 2 machines failed: vm1"}, fmt.Sprintf(failed, ""))
	ended(catalog.SessionExpired, waited, fmt.Sprintf(failed, " that came to its end"))
	lease := s.begin("offsite", day(10, next))
	s.must(s.catalog.Sessions.End(t.Context(), lease, catalog.SessionExpired, waited.Reason, catalog.Counts{"copied": 1}))
	if got := s.wantAlarms(); got.Jobs[0].Last.State != "expired" {
		t.Errorf("the last session: %+v", got.Jobs[0].Last)
	}
}

// A copy that a machine has under another id, by target.map, is one: the catalog has it for the other machine.
func TestMappedCopies(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(8, 22), 2)
	s.mirror("vault", point(5, day(9, 21), "offsite"))
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{Sources: sources("pve"), Tasks: []job.Task{
		{Machine: job.TaskMachine{ID: machine(0).Key.String()}, Mapped: &job.MappedCopy{Point: "4711", Created: day(9, 21)}},
	}})
	for _, held := range s.status().Machines {
		if mapped := held.Machine.ID == machine(0).Key.String(); mapped != (held.Point == "4711") || mapped == held.TooOld {
			t.Errorf("%+v", held)
		}
	}
}

// A machine is missing if no source has it any more, since the last of them lacked it.
func TestMissingMachines(t *testing.T) {
	s := newSite(t, strings.Replace(siteYAML, "{repositories: [pve]}", "{repositories: [pve, xen]}", 1)+"---\n{kind: Repository, name: xen, location: /mnt/xen}\n")
	s.selects("offsite", day(9, 22), 3)
	saw := func(repository string, at time.Time, seen ...backup.Machine) {
		s.at(at, func() { s.must(s.catalog.Machines.Saw(t.Context(), repository, seen)) })
	}
	saw("pve", day(3, 0), machine(0), machine(1), machine(2))
	saw("xen", day(3, 0), machine(0), machine(1))
	saw("pve", day(4, 0), machine(0))
	saw("xen", day(5, 0), machine(0))
	missing := map[string]time.Time{}
	s.mirror("vault", point(0, day(9, 22), "offsite"), point(1, day(9, 23), "offsite"), point(2, day(9, 23), "offsite"))
	if few, err := status.Of(t.Context(), s.catalog, s.resources, day(10, 0), status.Options{Machines: 2}); err != nil || few.Machines[0].Missing.IsZero() || few.Machines[1].Missing.IsZero() {
		t.Errorf("of all machines those that are missing are not the first: %+v, %v", few.Machines, err)
	}
	for _, c := range s.status().Machines {
		missing[c.Machine.Name] = c.Missing
	}
	if !missing["vm0"].IsZero() || !missing["vm1"].Equal(day(5, 0)) || !missing["vm2"].Equal(day(4, 0)) {
		t.Errorf("missing since %v", missing)
	}
}

// Where a source is the target of another job, it is known how far copies lag behind it.
func TestLag(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(9, 22), 2)
	s.mirror("vault", point(0, day(8, 1), "offsite"), point(1, day(9, 1), "offsite"))
	s.mirror("pve", point(0, day(8, 1), "near"), point(0, day(9, 1), "near"), point(0, day(10, 1), "near"), point(1, day(9, 1), "near"))
	for _, c := range s.status().Machines {
		if want := map[string]int64{"vm0": 2, "vm1": 0}[c.Machine.Name]; c.LagPoints != want || c.LagBytes != want<<30 {
			t.Errorf("%+v", c)
		}
	}
}

// What runs and what waits, with names as they can be shown.
func TestWork(t *testing.T) {
	s := newSite(t, siteYAML)
	lease := s.begin("offsite", day(9, 22))
	evil := machine(0)
	evil.Name = "vm\x1b[2J"
	tasks := []catalog.NewTask{}
	for i, m := range []backup.Machine{evil, machine(1), machine(2)} {
		tasks = append(tasks, catalog.NewTask{Machine: m, Source: "pve", Target: "vault", Order: int64(i)})
	}
	_, err := s.catalog.Tasks.Enqueue(t.Context(), lease, tasks)
	s.must(err)
	rows, err := s.catalog.Tasks.Of(t.Context(), lease.ID)
	s.must(err)
	claimed, err := s.catalog.Tasks.Take(t.Context(), rows[0].ID, "me", time.Minute)
	s.must(err)
	_, err = s.catalog.Tasks.Renew(t.Context(), &claimed.Lease, time.Minute, catalog.Progress{Done: 5, Total: 10, Read: 4, Written: 3, Kept: 2})
	s.must(err)
	got := s.status()
	if len(got.Running) != 1 || got.Running[0].Machine.Name != "vm%1B[2J" || got.Running[0].Done != 5 || got.Running[0].Written != 3 || got.Running[0].Kept != 2 {
		t.Errorf("running %+v", got.Running)
	}
	if len(got.Waiting) != 1 || got.Waiting[0] != (api.Wait{Job: "offsite", Kind: "slot", Reason: "a free slot", Tasks: 2}) {
		t.Errorf("waiting %+v", got.Waiting)
	}
	jobs, err := status.Jobs(t.Context(), s.catalog, s.resources, s.now)
	if s.must(err); len(jobs) != 1 || jobs[0].Running != lease.ID {
		t.Errorf("jobs %+v", jobs)
	}
}

// Nothing is null in the JSON of an empty server.
func TestNothing(t *testing.T) {
	s := newSite(t, "{kind: Repository, name: pve, location: /mnt/pve/dump}\n")
	text, err := json.Marshal(s.status())
	if s.must(err); strings.Contains(string(text), "null") {
		t.Errorf("%s", text)
	}
}

// What is asked of the catalog does not depend on how many machines and points there are.
func TestQuestionsDoNotGrow(t *testing.T) {
	asked := func(machines, points int) int {
		s := newSite(t, siteYAML)
		s.fill(machines, points)
		s.asked = 0
		if got := s.status(); got.MachinesTotal != machines || got.TooOld != machines {
			t.Errorf("%d machines, %d too old", got.MachinesTotal, got.TooOld)
		}
		return s.asked
	}
	if few, many := asked(2, 2), asked(100, 10); few != many || few > 20 {
		t.Errorf("%d questions for few machines, %d for many", few, many)
	}
}

// fill has machines with points each, the newest too old.
func (s *site) fill(n, points int) {
	s.Helper()
	s.selects("offsite", day(2, 12), n)
	s.must(s.catalog.Mirror.Replace(context.Background(), "vault", catalog.Head{RepositoryID: "4711", Number: 1, Checksum: "a"}, func(yield func(catalog.MirrorPoint, error) bool) {
		for i := range n {
			for k := range points {
				if !yield(point(i, day(8, 1).Add(-time.Duration(k)*time.Hour), "offsite"), nil) {
					return
				}
			}
		}
	}))
	report := job.Session{Result: job.ResultPartly}
	for _, m := range machines(n) {
		report.Tasks = append(report.Tasks, job.Task{Machine: job.TaskMachine{ID: m.Key.String(), Name: m.Name}, Points: []job.TaskPoint{{Reasons: []string{"the newest", "kept: there are no rules"}}}})
	}
	s.ran("offsite", day(9, 22), catalog.SessionPartial, report)
	s.must(s.catalog.Machines.Saw(s.Context(), "pve", machines(n)))
	for at := day(1, 0); at.Before(s.now); at = at.Add(time.Hour) {
		s.must(s.catalog.Figures.Record(s.Context(), "vault", catalog.Figure{At: at, FreeBytes: 1 << 40}))
	}
}

// BenchmarkStatus is a look at 2,000 machines with 50 points each.
func BenchmarkStatus(b *testing.B) {
	s := newSite(b, siteYAML)
	s.fill(2000, 50)
	for b.Loop() {
		s.status()
	}
}

// A repository is as the session that waits for it finds it, and no longer as the last one did that ended.
func TestTargetThatIsWaitedFor(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(10, 22), 1)
	s.ran("offsite", day(10, 22), catalog.SessionDone, job.Session{})
	lease := s.begin("offsite", day(11, 22))
	state := func(alarms ...string) string {
		t.Helper()
		for _, r := range s.wantAlarms(alarms...).Repositories {
			if r.Name == "vault" {
				return r.State + " " + r.Reason
			}
		}
		return "not listed"
	}
	s.now = day(11, 23)
	if got := state(); got != "ready " {
		t.Errorf("before anything is waited for: %s", got)
	}
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: "offline", Reason: "is the disk mounted?"}, "target offline: is the disk mounted?"))
	if got := state("warning target offsite: target vault is offline: is the disk mounted?, since 03-11 22:00"); got != "offline is the disk mounted?" {
		t.Errorf("while it is waited for: %s", got)
	}
	s.now = day(12, 4) // by then the machine should have had a copy
	state("critical rpo offsite vm0: what the target holds of it is not known, since 03-12 00:00",
		"warning target offsite: target vault is offline: is the disk mounted?, since 03-11 22:00")
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{}, ""))
	s.now = day(11, 23)
	if got := state(); got != "ready " {
		t.Errorf("when it is there: %s", got)
	}
}

// Sources that are waited for cannot be read, whatever the last session found.
func TestSourcesThatAreWaitedFor(t *testing.T) {
	s := newSite(t, siteYAML)
	s.ran("offsite", day(10, 22), catalog.SessionDone, job.Session{Sources: []job.SourceState{{Name: "pve", State: job.StateReady}}})
	lease := s.begin("offsite", day(11, 22))
	s.now = day(11, 23)
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "source", State: "missing"}, "source pve is missing: no such folder"))
	for _, r := range s.wantAlarms("warning source offsite: source pve is missing: no such folder, since 03-11 22:00").Repositories {
		if got := r.State + " " + r.Reason; r.Name == "pve" && got != "missing source pve is missing: no such folder" {
			t.Error(got)
		}
	}
}

// Of several sources of which one does not answer, the others are as they were.
func TestOneSourceThatIsWaitedFor(t *testing.T) {
	yaml := strings.Replace(siteYAML, "repositories: [pve]", "repositories: [pve, nas]", 1) + "---\n{kind: Repository, name: nas, location: /mnt/nas/dump}\n"
	s := newSite(t, yaml)
	s.ran("offsite", day(10, 22), catalog.SessionDone, job.Session{
		Sources: []job.SourceState{{Name: "pve", State: job.StateReady}, {Name: "nas", State: job.StateReady}},
	})
	lease := s.begin("offsite", day(11, 22))
	s.now = day(11, 23)
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "source", Source: "pve"}, "source pve is unreadable: it does not answer since 22:30"))
	for _, r := range s.status().Repositories {
		if want := map[string]job.PlaceState{"nas": job.StateReady, "pve": job.StateUnreadable}[r.Name]; want != "" && r.State != string(want) {
			t.Errorf("%s is %s, not %s: %s", r.Name, r.State, want, r.Reason)
		}
	}
}

// A target that a session did without is critical, also while the next one waits for it.
func TestTargetThatDidNotCome(t *testing.T) {
	s := newSite(t, siteYAML)
	s.ran("offsite", day(10, 22), catalog.SessionFailed, job.Session{Result: job.ResultWaits,
		Target: job.TargetState{Name: "vault", State: job.StateOffline, Reason: "is the disk mounted?"}})
	lease := s.begin("offsite", day(11, 22))
	s.now = day(11, 23)
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: "offline", Reason: "is the disk mounted?"}, "target offline: is the disk mounted?"))
	s.wantAlarms("critical target offsite: target vault is offline: is the disk mounted?, since 03-10 23:00")
	s.must(s.catalog.Sessions.End(t.Context(), lease, catalog.SessionDone, "", nil))
	s.ran("offsite", day(12, 22), catalog.SessionStopped, job.Session{Result: job.ResultInterrupted,
		Target: job.TargetState{Name: "vault", State: job.StateOffline, Reason: "is the disk mounted?"}})
	s.now = day(13, 0)
	s.wantAlarms("warning target offsite: target vault is offline: is the disk mounted?, since 03-12 23:00")
}

// A repository's verification is that of the last session which could read it.
func TestVerification(t *testing.T) {
	s := newSite(t, siteYAML)
	s.selects("offsite", day(9, 22), 1)
	s.now = day(13, 0)
	vault := func() string {
		t.Helper()
		for _, r := range s.status().Repositories {
			if r.Name == "vault" {
				return fmt.Sprint(r.Verified.Format("01-02"), " ", r.Unverified)
			}
		}
		return "not listed"
	}
	if got := vault(); got != "01-01 -1" {
		t.Errorf("before a session: %s", got)
	}
	ready := job.TargetState{Name: "vault", State: job.StateReady, ID: "4711", Verified: day(2, 3), Unverified: 7}
	s.ran("offsite", day(9, 22), catalog.SessionDone, job.Session{Target: ready})
	if got := vault(); got != "03-02 7" {
		t.Errorf("after a session: %s", got)
	}
	s.ran("offsite", day(10, 22), catalog.SessionFailed, job.Session{Target: job.TargetState{Name: "vault", State: job.StateOffline}})
	if got := vault(); got != "03-02 7" {
		t.Errorf("when the last session could not look: %s", got)
	}
	s.ran("offsite", day(11, 22), catalog.SessionDone, job.Session{Target: ready})
	lease := s.begin("offsite", day(12, 22))
	s.must(s.catalog.Sessions.Wait(t.Context(), lease, catalog.Blocked{Kind: "target", State: "offline", Reason: "is the disk mounted?"}, "target offline: is the disk mounted?"))
	if got := vault(); got != "03-02 7" {
		t.Errorf("while it is away: %s", got)
	}
}

// Of a machine that has gone for good it is told from when its points are removed: purgeAfter after it was said, or after its
// newest point if that is younger.
func TestRetiredMachines(t *testing.T) {
	s := newSite(t, siteYAML+"purgeAfter: 30d\n")
	s.selects("offsite", day(9, 22), 2)
	s.at(day(3, 0), func() { s.must(s.catalog.Machines.Saw(t.Context(), "pve", machines(2))) })
	s.at(day(5, 0), func() { s.must(s.catalog.Machines.Saw(t.Context(), "pve", machines(1))) })
	s.at(day(4, 12), func() {
		for _, m := range machines(2) {
			_, err := s.catalog.Machines.Retire(t.Context(), m.Key, true)
			s.must(err)
		}
	})
	s.mirror("vault", point(0, day(1, 10), "offsite"), point(1, day(1, 10), "offsite"))
	purge := func() (all []time.Time) {
		got := s.status()
		if got.TooOld != 0 || len(got.Machines) != 2 {
			t.Fatalf("%+v", got)
		}
		for _, c := range got.Machines {
			all = append(all, c.Purge)
		}
		slices.SortFunc(all, time.Time.Compare)
		return all
	}
	if all := purge(); !all[0].IsZero() || !all[1].Equal(day(4, 12).AddDate(0, 0, 30)) { // vm0 is still in a source
		t.Errorf("purged %v", all)
	}
	s.mirror("vault", point(0, day(1, 10), "offsite"), point(1, day(4, 13), "offsite"))
	if all := purge(); !all[1].Equal(day(4, 13).AddDate(0, 0, 30)) {
		t.Errorf("purged %v", all)
	}
}

// Of a repository that the last session did not come to it is known when it was last read.
func TestRepositoryThatWasSeenBefore(t *testing.T) {
	s := newSite(t, siteYAML)
	s.at(day(7, 23), func() {
		s.must(s.catalog.Machines.Saw(t.Context(), "pve", machines(2)))
		s.must(s.catalog.Figures.Record(t.Context(), "vault", catalog.Figure{At: day(7, 23).Add(time.Minute)}))
	})
	s.ran("offsite", day(9, 22), catalog.SessionFailed, job.Session{Target: job.TargetState{Name: "vault"}, Reason: "aborted before it looked"})
	s.resources.Repositories = append(s.resources.Repositories, policy.Repository{Name: "new", Location: "/new"})
	for i, want := range []time.Time{day(7, 23), day(7, 23).Add(time.Minute), {}} {
		if r := s.status().Repositories[i]; r.State != "" || !r.Seen.Equal(want) {
			t.Errorf("%s is %q, seen %s", r.Name, r.State, r.Seen)
		}
	}
	s.ran("offsite", day(10, 2), catalog.SessionDone, job.Session{Sources: []job.SourceState{{Name: "pve", State: job.StateReady}}})
	if r := s.status().Repositories[0]; r.State != "ready" || !r.Seen.Equal(day(10, 3)) {
		t.Errorf("%+v", r)
	}
}

// Points of a job that was deleted are told with its last retention, until it is applied again; those of a job that is there, or
// that nobody deleted, are not.
func TestOrphanedJobs(t *testing.T) {
	s := newSite(t, siteYAML)
	gone, err := s.catalog.Resources.Put(t.Context(), "Job", "attic", "kind: Job\nname: attic\nsource: {repositories: [away]}\ntarget: {repository: vault}\nretention: {days: 14}\n", 0)
	s.must(err)
	s.must(s.catalog.Resources.Delete(t.Context(), "Job", "attic", gone.Version))
	s.mirror("vault", point(0, day(9, 10), "offsite"), point(0, day(2, 10), "attic"), point(1, day(2, 10), "attic"), point(2, day(2, 10), "manual"))
	orphaned := func() []api.Orphaned {
		t.Helper()
		all := s.status().Repositories
		if len(all) != 2 || len(all[0].Orphaned) != 0 || all[0].Orphaned == nil {
			t.Fatalf("%+v", all)
		}
		return all[1].Orphaned
	}
	if got, want := orphaned(), (api.Orphaned{Job: "attic", Deleted: s.now, Points: 2, Retention: "{days: 14}"}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, err = s.catalog.Resources.Put(t.Context(), "Job", "attic", gone.Document, 0)
	s.must(err)
	if got := orphaned(); len(got) != 0 {
		t.Errorf("applied again: %+v", got)
	}
}
