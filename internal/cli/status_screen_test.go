package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ferry/internal/api"
)

// night is two in the morning of 24 November.
var night = time.Date(2026, 11, 24, 2, 14, 5, 0, time.UTC)

func ago(d time.Duration) time.Time { return night.Add(-d) }

func machineOf(name string) api.Machine {
	return api.Machine{ID: "proxmox/100/3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", Name: name}
}

// copyOf is a machine's copy of an age; 0: there is none.
func copyOf(name string, old time.Duration) api.Copy {
	c := api.Copy{Job: "offsite", Machine: machineOf(name), RPO: 26 * 3600, LagPoints: api.Unknown, LagBytes: api.Unknown, TooOld: old == 0 || old > 26*time.Hour}
	if old > 0 {
		c.Point, c.Created = strings.Repeat("ab", 32), ago(old)
	}
	return c
}

func wellStatus() api.Status {
	return api.Status{
		At: night, Version: "0.1.0", MachinesTotal: 120, Machines: []api.Copy{copyOf("db1", 5*time.Hour), copyOf("web01", 4*time.Hour)},
		Jobs: []api.Job{
			{Name: "offsite", Enabled: true, Schedule: "every day at 22:00 (UTC)", Target: "vault", Next: night.Add(19*time.Hour + 45*time.Minute),
				Last: &api.Session{State: "done", Ended: ago(2 * time.Hour)}},
			{Name: "near", Enabled: true, Schedule: "when a source has a new point", Target: "shelf", Waits: "a new point in the source",
				Last: &api.Session{State: "done", Ended: ago(30 * time.Minute)}},
		},
		Repositories: []api.Repository{
			{Name: "pve", State: "ready", Points: api.Unknown, Machines: api.Unknown, Stored: api.Unknown, Free: api.Unknown, Logical: api.Unknown},
			{Name: "vault", State: "ready", Points: 1234, Machines: 120, Logical: 90 << 40, Stored: 12 << 40, Free: 3 << 40, Full: night.AddDate(0, 2, 9), Forecast: "full in about 2 months"},
			{Name: "shelf", State: "ready", Points: 1, Machines: 1, Logical: 1 << 30, Stored: 1 << 29, Free: api.Unknown, Forecast: "its storage does not say what is left"},
		},
	}
}

func badStatus() api.Status {
	s := wellStatus()
	mail, db, gone := copyOf("mail", 0), copyOf("db1", 52*time.Hour), copyOf("web-with-a-name-that-is-longer-than-anybody-wants", 30*24*time.Hour)
	db.Note = `always one interval behind: the points that the last 3 intervals took were up to 23h40m old; what helps: lookup: forward`
	gone.Missing = ago(20 * 24 * time.Hour)
	left := copyOf("old", 25*time.Hour)
	left.Retired, left.Purge, left.Missing = ago(30*24*time.Hour), night.AddDate(0, 2, 0), ago(20*24*time.Hour)
	behind := copyOf("web02", 25*time.Hour)
	behind.Note = `always one interval behind: what helps: at: "22:30"`
	away := copyOf("web03", 9*time.Hour)
	away.Missing = ago(8 * time.Hour)
	s.Machines = append([]api.Copy{mail, gone, db, away, behind, left}, s.Machines[1:]...)
	s.TooOld, s.WithoutCopy = 3, 1
	m := machineOf("mail")
	s.Alarms = []api.Alarm{
		{Level: "critical", Kind: "rpo", Job: "offsite", Machine: &m, Text: "it has no copy", Since: ago(24 * time.Hour)},
		{Level: "critical", Kind: "rpo", Job: "offsite", Machine: &m, Text: "…", Since: ago(24 * time.Hour)},
		{Level: "critical", Kind: "target", Job: "near", Text: "target shelf is offline: no Ferry repository at /mnt/usb/shelf; is the disk mounted?", Since: ago(3 * time.Hour)},
		{Level: "warning", Kind: "failed", Job: "offsite", Text: "the last 2 sessions did not succeed with all machines; the last: 1 of 120 machines failed: erp", Since: ago(26 * time.Hour)},
		{Level: "warning", Kind: "space", Text: "repository vault: full in about 9 days", Since: night},
	}
	s.Sessions = []api.Session{
		{ID: 41, Job: "offsite", State: "running", Phase: "synchronize", Began: ago(4 * time.Hour)},
		{ID: 42, Job: "near", State: "waiting", Reason: "target offline: no Ferry repository at /mnt/usb/shelf", Began: ago(4 * time.Hour)},
		{ID: 43, Job: "attic", State: "running", Phase: "health check", Began: ago(time.Hour)},
	}
	s.Running = []api.Task{
		{Session: 41, Job: "offsite", Machine: machineOf("web01"), State: "running", Began: ago(70 * time.Second), AttemptBegan: ago(70 * time.Second), Done: 123 << 28, Total: 300 << 28, Read: 1},
		{Session: 41, Job: "offsite", Machine: machineOf("web04"), State: "running", Began: ago(30 * time.Hour), AttemptBegan: ago(time.Minute), Done: 123 << 28, Total: 300 << 28, Resumed: 93 << 28},
		{Session: 41, Job: "offsite", Machine: machineOf("web05"), State: "running", Began: ago(30 * time.Hour), AttemptBegan: ago(time.Minute), Done: 20 << 28, Total: 300 << 28, Resumed: 93 << 28},
		{Session: 41, Job: "offsite", Machine: machineOf(""), State: "running", Began: ago(2 * time.Second), AttemptBegan: ago(2 * time.Second)},
	}
	s.Waiting = []api.Wait{
		{Job: "offsite", Reason: "a free slot", Tasks: 60},
		{Job: "offsite", Reason: "locked by its writer", Tasks: 1, Until: night.Add(6 * time.Minute)},
	}
	s.Jobs[0].Lag = &api.Lag{Points: 61, Bytes: 42 << 40 / 10, Rate: 45 << 20, CatchUp: 27*3600 + 660, Limit: 24 * 3600}
	s.Jobs[1].Lag = &api.Lag{Points: api.Unknown, Bytes: api.Unknown, Rate: api.Unknown, CatchUp: api.Unknown}
	s.Alarms = append(s.Alarms, api.Alarm{
		Level: "warning", Kind: "lag", Job: "offsite", Since: night,
		Text: "at the pace of its sessions it takes about 27h to copy what is still to copy, longer than 1d, which its schedule allows",
	})
	s.Jobs = append(s.Jobs, api.Job{Name: "attic", Schedule: "every sunday at 03:00 (UTC)"})
	s.Repositories[1].Forecast, s.Repositories[2].State = "full in about 9 days", "offline"
	return s
}

func manyStatus() api.Status {
	s := wellStatus()
	s.Machines = nil
	for n := range 25 {
		s.Machines = append(s.Machines, copyOf(fmt.Sprintf("vm%02d", n), 40*time.Hour-time.Duration(n)*time.Minute))
	}
	s.TooOld = 25
	s.Jobs[0].Lag = &api.Lag{Points: 25, Bytes: 25 << 30, Rate: api.Unknown, CatchUp: api.Unknown}
	s.Jobs[1].Lag = &api.Lag{Rate: api.Unknown}
	s.Repositories[0].State, s.Repositories[0].Seen, s.Repositories[2].State = "", ago(50*time.Hour), ""
	s.Alarms = []api.Alarm{{Level: "critical", Kind: "rpo", Job: "offsite"}, {Level: "critical", Kind: "rpo", Job: "near"}, {Level: "critical", Kind: "rpo", Job: "attic"}}
	return s
}

// golden compares lines with a file of testdata/status; FERRY_WRITE_GOLDEN=1 writes it instead.
func golden(t *testing.T, name string, lines []string) {
	t.Helper()
	file, got := filepath.Join("testdata/status", name), strings.Join(lines, "\n")+"\n"
	if os.Getenv("FERRY_WRITE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestStatusScreen(t *testing.T) {
	young := wellStatus()
	young.Jobs[0].Last = nil
	for name, c := range map[string]struct {
		status api.Status
		width  int
	}{
		"well.txt": {wellStatus(), 0}, "bad.txt": {badStatus(), 0}, "bad-100.txt": {badStatus(), 100}, "many.txt": {manyStatus(), 0},
		"empty.txt": {api.Status{At: night}, 0}, "young.txt": {young, 80},
	} {
		lines := statusLines(c.status, c.width)
		golden(t, name, lines)
		for _, line := range lines {
			if c.width > 0 && len([]rune(line)) > c.width {
				t.Errorf("%s: a line of %d characters: %s", name, len([]rune(line)), line)
			}
			if strings.ContainsAny(line, "\x1b\t") || strings.TrimRight(line, " ") != line {
				t.Errorf("%s: %q", name, line)
			}
		}
		if len(lines) > 60 {
			t.Errorf("%s has %d lines", name, len(lines))
		}
	}
}

// What was to be removed by now, and waits for something, is not told as if it were to come.
func TestRetiredTextAfterItsTime(t *testing.T) {
	gone := api.Copy{Retired: night.AddDate(0, -3, 0), Purge: night}
	for at, want := range map[time.Time]string{
		night: "; its points are removed ", night.Add(time.Minute): "; its points are due for removal since ",
	} {
		if got := retiredText(gone, at); !strings.Contains(got, want+minute(night)) {
			t.Errorf("at %s: %s", at, got)
		}
	}
}

// perfdata is the form of performance data that monitoring systems read.
var perfdata = regexp.MustCompile(`^('[^'=]+'|[^'= ]+)=(U|-?[0-9.]+(s|B)?);([0-9.]*:?)?;([0-9.]*:?)?;[0-9.]*(;[0-9.]*)?$`)

func TestStatusCheckLine(t *testing.T) {
	warned := wellStatus()
	warned.Alarms = []api.Alarm{{Level: "warning", Kind: "session", Job: "offsite", Text: "a | b"}}
	var lines []string
	for _, c := range []struct {
		status api.Status
		code   int
	}{{wellStatus(), checkOK}, {warned, checkWarning}, {badStatus(), checkCritical}, {manyStatus(), checkCritical}, {api.Status{At: night}, checkWarning}} {
		line, code := checkLine(c.status)
		if code != c.code {
			t.Errorf("code %d, want %d: %s", code, c.code, line)
		}
		text, data, _ := strings.Cut(line, " | ")
		if strings.ContainsAny(text, "|\n") {
			t.Errorf("%q", text)
		}
		for _, field := range regexp.MustCompile(`('[^']*'|[^ '])+`).FindAllString(data, -1) {
			if !perfdata.MatchString(field) {
				t.Errorf("performance data %q", field)
			}
		}
		lines = append(lines, line)
	}
	golden(t, "check.txt", append(lines, unknownLine("no server | runs\nthere")))
}

func TestLasted(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0m", 0: "0s", 89 * time.Second: "89s", 90 * time.Second: "1m", 89 * time.Minute: "89m", 100 * time.Minute: "1h", 71 * time.Hour: "71h", 75 * time.Hour: "3d 3h",
	} {
		if got := lasted(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// What keeps the server from its work is no job's.
func TestHeadlineOfTheServer(t *testing.T) {
	s := wellStatus()
	s.Alarms = []api.Alarm{{Level: "critical", Kind: "server", Text: "what sessions do cannot be noted: disk full"}}
	if got := headline(s); got != "CRITICAL: the server cannot do its work" {
		t.Error(got)
	}
}

// A target that is waited for is a warning, one that did not come in its time is critical.
func TestHeadlineOfATargetThatIsAway(t *testing.T) {
	s := wellStatus()
	for level, want := range map[string]string{
		"warning": "WARNING: the target of jobs near and offsite is not ready", "critical": "CRITICAL: the target of jobs near and offsite is not ready",
	} {
		s.Alarms = []api.Alarm{{Level: level, Kind: "target", Job: "near"}, {Level: level, Kind: "target", Job: "offsite"}}
		if got := headline(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The oldest copy may be of a job that allows any age, behind one that is too old.
func TestOldestCopy(t *testing.T) {
	late, old := copyOf("late", 40*time.Hour), copyOf("old", 60*24*time.Hour)
	old.RPO, old.TooOld = 0, false
	got, found := oldestCopy(api.Status{Machines: []api.Copy{late, copyOf("none", 0), old}})
	if !found || got.Machine.Name != "old" {
		t.Errorf("%+v", got)
	}
}
