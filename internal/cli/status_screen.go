package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/policy"
)

// How much of everything is shown: what matters fits on one screen, and --json has all.
const (
	rowsShown = 10
	nameShown = 32
)

// screen is what ferry status prints, line by line.
type screen struct {
	status api.Status
	width  int // of the terminal in characters; 0: lines are as long as they are
	lines  []string
}

// statusLines says how everything stands: first in one line whether all is well, then what is not, what runs, what waits, what
// comes next, and how full repositories are. Parts without anything to say are left out.
func statusLines(status api.Status, width int) []string {
	s := &screen{status: status, width: width}
	s.add(s.fold(headline(status), 0))
	s.tooOld()
	s.alarms()
	s.notes()
	s.running()
	s.waiting()
	s.toCopy()
	s.next()
	s.repositories()
	s.add("", "as of "+status.At.Local().Format("2006-01-02 15:04:05 MST"))
	return s.lines
}

func (s *screen) add(lines ...string) {
	for _, line := range lines {
		s.lines = append(s.lines, strings.Split(line, "\n")...)
	}
}

func (s *screen) fold(text string, at int) string { return fold(text, at, s.width) }

// section prints a title and rows below it, and what is left out of them.
func (s *screen) section(title []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	left := 0
	if len(rows) > rowsShown {
		left, rows = len(rows)-rowsShown, rows[:rowsShown]
	}
	s.add("")
	s.add(aligned(append([][]string{title}, rows...), s.width)...)
	if left > 0 {
		s.add(fmt.Sprintf("… and %s", counted(left, "other")))
	}
}

// level of a status is that of its worst alarm: critical, warning or empty.
func level(status api.Status) string {
	if len(status.Alarms) == 0 {
		return ""
	}
	return status.Alarms[0].Level
}

// headline says in one line whether all is well, or what is not.
func headline(status api.Status) string {
	if level(status) == "" {
		return wellText(status)
	}
	return strings.ToUpper(level(status)) + ": " + strings.Join(troubles(status), "; ")
}

// wellText is the headline without alarms. What has not been tried yet is not called well.
func wellText(status api.Status) string {
	if len(status.Jobs) == 0 {
		return "No jobs yet: ferry apply -f FILE (docs/jobs.md)"
	}
	var idle, off []string
	for _, of := range status.Jobs {
		switch {
		case of.Last == nil:
			idle = append(idle, of.Name)
		case !of.Enabled:
			off = append(off, of.Name)
		}
	}
	switch {
	case len(idle) > 0:
		return "No alarms, but not everything has run yet: " + named("job", idle)
	case status.WithoutCopy > 0:
		return fmt.Sprintf("No alarms, but %s no copy yet", have(status.WithoutCopy, "machine"))
	case len(off) > 0:
		return "No alarms, but not everything is enabled: " + named("job", off)
	}
	text := fmt.Sprintf("All is well: %s", counted(status.MachinesTotal, "copy"))
	if status.MachinesTotal != 1 {
		text = fmt.Sprintf("All is well: %s copies", count(status.MachinesTotal))
	}
	if oldest, ok := oldestCopy(status); ok {
		text += ", the oldest of " + oldest.Machine.Name + ", " + lasted(status.At.Sub(oldest.Created)) + " old"
	}
	return text
}

// oldestCopy is the oldest copy of a machine that has not gone for good. It need not be the first that is too old: jobs allow
// different ages.
func oldestCopy(status api.Status) (oldest api.Copy, found bool) {
	for _, c := range status.Machines {
		if c.Point != "" && c.Retired.IsZero() && (!found || c.Created.Before(oldest.Created)) {
			oldest, found = c, true
		}
	}
	return oldest, found
}

// troubles are the alarms in short, of each kind once, the worst first.
func troubles(status api.Status) []string {
	jobs := map[string][]string{}
	var order []string
	for _, alarm := range status.Alarms {
		kind := alarm.Kind + alarm.Level
		if jobs[kind] == nil {
			order = append(order, kind)
		}
		if !slices.Contains(jobs[kind], alarm.Job) {
			jobs[kind] = append(jobs[kind], alarm.Job)
		}
	}
	var texts []string
	for _, kind := range order {
		of := named("job", jobs[kind])
		texts = append(texts, map[string]string{
			"servercritical":  "the server cannot do its work",
			"rpocritical":     tooOldText(status.TooOld, of),
			"not-runcritical": of + " did not begin when due", "not-runwarning": "an interval of " + of + " was not run",
			"failedcritical": of + " failed", "failedwarning": of + " failed in part",
			"targetcritical": "the target of " + of + " is not ready", "targetwarning": "the target of " + of + " is not ready",
			"sourcewarning":  "a source of " + of + " is not ready",
			"damagecritical": "copies of " + of + " are damaged", "sessionwarning": of + " needs a look",
			"spacecritical": "a repository is almost full", "spacewarning": "a repository fills up",
			"lagwarning": of + " falls behind",
		}[kind])
	}
	return texts
}

// named lists things of a kind: "job a", "jobs a and b", "3 jobs".
func named(kind string, names []string) string {
	switch len(names) {
	case 1:
		return kind + " " + names[0]
	case 2:
		return kind + "s " + names[0] + " and " + names[1]
	}
	return counted(len(names), kind)
}

func have(n int, thing string) string {
	if n == 1 {
		return "1 " + thing + " has"
	}
	return counted(n, thing) + " have"
}

func tooOldText(n int, of string) string {
	if n == 1 {
		return "1 copy of " + of + " is too old"
	}
	return count(n) + " copies of " + of + " are too old"
}

// tooOld lists the machines whose copies are older than allowed, the worst first.
func (s *screen) tooOld() {
	var rows [][]string
	for _, c := range s.status.Machines {
		if !c.TooOld {
			break
		}
		newest, old := "none", ""
		if c.Point != "" {
			newest, old = minute(c.Created), lasted(s.status.At.Sub(c.Created))
		}
		rows = append(rows, []string{short(machineName(c.Machine)), short(c.Job), newest, old, policy.FormatDuration(time.Duration(c.RPO) * time.Second), copyNote(c)})
	}
	s.section([]string{"TOO OLD", "job", "newest copy", "age", "allowed", ""}, rows)
}

// copyNote says how a copy stands to the machine's sources.
func copyNote(c api.Copy) string {
	var notes []string
	if !c.Missing.IsZero() {
		notes = append(notes, "in no source since "+minute(c.Missing))
	}
	if c.LagPoints > 0 {
		notes = append(notes, counted(int(c.LagPoints), "newer point")+" at its source, "+size(c.LagBytes))
	}
	return readable(strings.Join(notes, "; "))
}

// alarms lists those that are not of single machines' ages.
func (s *screen) alarms() {
	var rows [][]string
	for _, a := range s.status.Alarms {
		if a.Kind != "rpo" {
			rows = append(rows, []string{a.Level, short(a.Job), minute(a.Since), readable(a.Text)})
		}
	}
	s.section([]string{"ALARMS", "job", "since", ""}, rows)
}

// running lists the machines that are worked on, and sessions that do something else.
func (s *screen) running() {
	var rows [][]string
	busy := map[int64]bool{}
	for _, t := range s.status.Running {
		busy[t.Session] = true
		rows = append(rows, append([]string{short(machineName(t.Machine)), short(t.Job)}, progressCells(t, s.status.At)...))
	}
	for _, session := range s.status.Sessions {
		if !busy[session.ID] && session.State == "running" {
			phase := session.Phase
			if phase == "" {
				phase = "begins"
			}
			rows = append(rows, []string{"", short(session.Job), "", phase, "", "since " + minute(session.Began)})
		}
	}
	s.section([]string{"RUNNING", "job", "", "", "", ""}, rows)
}

// progressCells are percent, bytes, rate and estimate of a task: by this attempt, since there may have been a night before it, and what it found
// kept took no time.
func progressCells(t api.Task, now time.Time) []string {
	spent := now.Sub(t.AttemptBegan)
	if t.Total <= 0 || t.AttemptBegan.IsZero() || spent <= 0 {
		return []string{"", "in progress", "", "since " + minute(t.Began)}
	}
	cells := []string{fmt.Sprintf("%d %%", min(100, t.Done*100/t.Total)), size(t.Done) + " of " + size(t.Total), "", ""}
	if rate := float64(t.Done-t.Resumed) / spent.Seconds(); rate > 0 {
		cells[2] = size(int64(rate)) + "/s"
		cells[3] = "about " + lasted(time.Duration(float64(t.Total-t.Done)/rate*float64(time.Second))) + " left"
	}
	return cells
}

// waiting lists what work waits for, and until when.
func (s *screen) waiting() {
	var rows [][]string
	waits := map[string]bool{}
	for _, w := range s.status.Waiting {
		waits[w.Job] = true
		until := ""
		if w.Until.After(s.status.At) {
			until = "until " + minute(w.Until)
		}
		rows = append(rows, []string{short(w.Job), counted(int(w.Tasks), "machine"), until, readable(w.Reason)})
	}
	for _, session := range s.status.Sessions {
		if session.State == "waiting" && !waits[session.Job] {
			rows = append(rows, []string{short(session.Job), "", "", readable(session.Reason)})
		}
	}
	s.section([]string{"WAITING", "", "", "for"}, rows)
}

// toCopy lists what jobs have still to copy, and how long that takes.
func (s *screen) toCopy() {
	var rows [][]string
	for _, j := range s.status.Jobs {
		switch lag := j.Lag; {
		case lag == nil || lag.Points == 0 || j.Last == nil && lag.Points == api.Unknown: // that it has not run yet is told
		case lag.Points == api.Unknown:
			rows = append(rows, []string{short(j.Name), "not known", "", "its sources or its target were not listed yet"})
		default:
			rows = append(rows, []string{short(j.Name), counted(int(lag.Points), "point"), size(lag.Bytes), catchUpText(*lag)})
		}
	}
	s.section([]string{"TO COPY", "", "", ""}, rows)
}

// catchUpText says how long it takes to copy what is still to copy.
func catchUpText(lag api.Lag) string {
	switch {
	case lag.Rate == api.Unknown:
		return "how long that takes is not known: none of its last sessions has copied anything"
	case lag.CatchUp == api.Unknown:
		return "not in sight at " + size(lag.Rate) + "/s"
	}
	return "takes about " + lasted(time.Duration(lag.CatchUp)*time.Second) + " at " + size(lag.Rate) + "/s"
}

// next lists when intervals begin, and how the last ones went.
func (s *screen) next() {
	var rows [][]string
	for _, j := range s.status.Jobs {
		begins := minute(j.Next)
		switch {
		case !j.Enabled:
			begins = "not enabled"
		case j.Next.IsZero():
			begins = "waits"
		}
		last := "has not run yet"
		if j.Last != nil {
			last = "last " + j.Last.State + " " + minute(j.Last.Ended)
		}
		rows = append(rows, []string{short(j.Name), begins, j.Schedule, last})
	}
	s.section([]string{"NEXT", "begins", "", ""}, rows)
}

// repositories lists how full they are; of sources nothing is known but their state.
func (s *screen) repositories() {
	var rows [][]string
	for _, r := range s.status.Repositories {
		state := r.State
		switch {
		case state == "" && r.Seen.IsZero():
			state = "not seen yet"
		case state == "":
			state = "last seen " + minute(r.Seen)
		}
		row := []string{short(r.Name), state, "", ""}
		if r.Points != api.Unknown {
			row[2] = fmt.Sprintf("%s of %s", counted(int(r.Points), "point"), counted(int(r.Machines), "machine"))
			row[3] = known(r.Stored, "stored") + ", " + known(r.Free, "free") + "; " + r.Forecast
		}
		rows = append(rows, row)
	}
	s.section([]string{"REPOSITORIES", "", "", ""}, rows)
}

func known(bytes int64, what string) string {
	if bytes == api.Unknown {
		return what + " not known"
	}
	return size(bytes) + " " + what
}

// machineName is what a machine is called: its name, or its id if it has none. Both are encoded.
func machineName(m api.Machine) string {
	if m.Name != "" {
		return m.Name
	}
	return m.ID
}

// short cuts a name that would push everything else off the screen.
func short(name string) string {
	if runes := []rune(name); len(runes) > nameShown {
		return string(runes[:nameShown-1]) + "…"
	}
	return name
}

// minute is a local time to the minute; empty for none.
func minute(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04")
}

// lasted is a length of time as people say it: "35m", "28h", "4d 3h".
func lasted(d time.Duration) string {
	switch {
	case d < 0:
		return "0m"
	case d < 90*time.Second:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 90*time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 72*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	days := int(d.Hours()) / 24
	return fmt.Sprintf("%dd %dh", days, int(d.Hours())-24*days)
}
