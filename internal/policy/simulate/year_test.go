package simulate

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

//go:embed testdata/year.md
var yearTable string

var berlin = func() *time.Location {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	return zone
}()

const gigabyte = 1_000_000_000

// wall reads a time of the year 2028 in Berlin, "03-10 12:00", with the zone where that is not enough: "10-29 02:30 CET".
func wall(text string) time.Time {
	clock, name, named := strings.Cut(text, " C")
	at, err := time.ParseInLocation("2006-01-02 15:04", "2028-"+clock, berlin)
	if err != nil {
		panic(err)
	}
	for _, other := range []time.Time{at.Add(time.Hour), at.Add(-time.Hour)} {
		if zone, _ := at.Zone(); named && zone != "C"+name && other.Format("15:04") == at.Format("15:04") {
			at = other
		}
	}
	return at
}

// shown is an instant as the table writes it.
func shown(at time.Time) string {
	at = at.In(berlin)
	text := at.Format("01-02 15:04")
	for _, other := range []time.Time{at.Add(time.Hour), at.Add(-time.Hour)} {
		if other.Format("15:04") == at.Format("15:04") {
			return text + at.Format(" MST")
		}
	}
	return text
}

func span(from, to string) Span { return Span{wall(from), wall(to)} }

// everyDay are points at a time of day, complete some minutes later.
func everyDay(name, clock string, last string, minutes int, changed int64) []Point {
	var points []Point
	for day := wall("01-01 " + clock); !day.After(wall(last)); day = day.AddDate(0, 0, 1) {
		points = append(points, point(name, len(points), day, minutes, changed, 40*24*time.Hour))
	}
	return points
}

func everyHour(name string, minutes int, changed int64) []Point {
	var points []Point
	for at := wall("01-01 00:05"); at.Before(wall("12-31 23:59")); at = at.Add(time.Hour) {
		points = append(points, point(name, len(points), at, minutes, changed, 20*24*time.Hour))
	}
	return points
}

func point(name string, n int, created time.Time, minutes int, changed int64, life time.Duration) Point {
	id := backup.PointID{}
	copy(id[:], fmt.Sprintf("%s %06d", name, n))
	return Point{ID: id, Created: created, Complete: created.Add(time.Duration(minutes) * time.Minute), Gone: created.Add(life), Changed: changed}
}

// alter changes the point that was created at a time.
func alter(points []Point, created string, change func(*Point)) {
	i := slices.IndexFunc(points, func(p Point) bool { return p.Created.Equal(wall(created)) })
	change(&points[i])
}

func lockedUntil(until string) func(*Point) {
	return func(p *Point) { p.Complete = wall(until) }
}

func leftLocked(grew string) func(*Point) {
	return func(p *Point) { p.Complete, p.Grew = time.Time{}, wall(grew) }
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// yearJobs are the settings of the jobs of the year, as people write them.
var yearJobs = map[string]string{
	"mirror": `
schedule: {mode: immediate, timeZone: Europe/Berlin}
bandwidth: [{limit: 40Mbit/s, when: "mon-fri 08:00-18:00"}]
retention: {points: 24, weekly: {keep: 4}}`,
	"nightly": `
schedule: {every: 1d, at: "22:00", timeZone: Europe/Berlin}
lookup: forward
window: {allow: ["mon-fri 20:00-06:00", "sat,sun 00:00-24:00"]}
retention: {days: 14}`,
	"archive": `
schedule: {every: 7d, at: "02:30", timeZone: Europe/Berlin}
retention: {points: 2, weekly: {keep: 4}, monthly: {keep: 12}, quarterly: {keep: 4}, yearly: {keep: 3}}`,
}

// documentOf is a job of the year in YAML, and repositoryOf one of its repositories.
func documentOf(job string) string {
	return fmt.Sprintf("kind: Job\nname: %s\nsource: {repositories: [from-%s]}\ntarget: {repository: to-%s}%s\n", job, job, job, yearJobs[job])
}

func repositoryOf(name string) string {
	return fmt.Sprintf("kind: Repository\nname: %s\nlocation: /%s\n", name, name)
}

// jobOf is a job of the year by its settings.
func jobOf(name, enabled string, machines ...Machine) Job {
	text := strings.Join([]string{documentOf(name), repositoryOf("from-" + name), repositoryOf("to-" + name)}, "---\n")
	of, _ := must(policy.Parse(policy.File{Name: name, Content: []byte(text)})).Job(name)
	of = of.Effective()
	return Job{
		Name: name, Enabled: wall(enabled), Link: 10_000_000, Machines: machines,
		Schedule: of.Schedule, Lookup: of.Lookup, Window: of.Window, Bandwidth: of.Bandwidth, Retention: of.Retention,
	}
}

// theYear is the world of testdata/year.md.
func theYear() World {
	db, web := everyHour("db", 5, 1_200_000_000), everyDay("web", "22:30", "12-31 22:30", 20, 6*gigabyte)
	mail, erp := everyDay("mail", "23:00", "11-20 23:00", 30, 12*gigabyte), everyDay("erp", "01:00", "12-31 01:00", 30, 3*gigabyte)
	alter(erp, "02-06 01:00", lockedUntil("02-06 09:20"))
	alter(erp, "04-09 01:00", leftLocked("04-09 01:20"))
	alter(erp, "05-07 01:00", func(p *Point) { p.Broken = true })
	alter(web, "06-13 22:30", lockedUntil("06-15 00:30"))
	alter(db, "09-20 10:05", lockedUntil("09-20 13:40"))
	alter(db, "10-04 10:05", leftLocked("10-04 10:20"))
	alter(erp, "11-12 01:00", func(p *Point) { p.Gone = wall("11-12 02:50") })

	mirror := jobOf("mirror", "01-01 12:00", Machine{Name: "db", Whole: 60 * gigabyte, Points: db})
	nightly := jobOf("nightly", "01-03 10:00", Machine{Name: "web", Whole: 30 * gigabyte, Points: web}, Machine{Name: "mail", Whole: 546 * gigabyte, Points: mail})
	nightly.Slow = []Slow{{span("11-06 12:00", "11-07 20:50"), 500_000}}
	nightly.Offline = []Span{span("09-12 20:00", "09-13 21:00")}
	archive := jobOf("archive", "01-01 12:00", Machine{Name: "erp", Whole: 90 * gigabyte, Points: erp})
	return World{
		From: wall("01-01 00:00"), To: wall("12-31 23:00"), Jobs: []Job{mirror, nightly, archive},
		Down:  []Span{span("02-10 09:30", "02-10 15:00"), span("07-03 20:00", "07-06 10:00"), span("08-05 12:00", "08-21 09:00")},
		Clock: []Skew{{span("03-10 12:00", "03-10 14:00"), 3 * 24 * time.Hour}, {span("05-15 12:00", "05-15 15:00"), -2 * 24 * time.Hour}},
	}
}

func (w World) machine(job, name string) Machine {
	for _, j := range w.Jobs {
		for _, m := range j.Machines {
			if j.Name == job && m.Name == name {
				return m
			}
		}
	}
	panic(job + " has no machine " + name)
}

// words are an event as the table writes it.
func (w World) words(e Event) string {
	switch {
	case e.Kind == Interval:
		text := "interval from " + shown(e.Begins)
		if e.Missed.Count > 0 {
			text += ", not run: " + strconv.Itoa(e.Missed.Count)
		}
		return text
	case e.Point >= 0 && e.Kind != GoesOn:
		return string(e.Kind) + " " + shown(w.machine(e.Job, e.Machine).Points[e.Point].Created)
	}
	return string(e.Kind)
}

// row is a row of the table. What it says may come about a little before or after its minute.
type row struct {
	when, job, machine, what string
	early, late              time.Duration
}

func rowsOf(t testing.TB) []row {
	t.Helper()
	_, table, _ := strings.Cut(yearTable, "## What must happen")
	var rows []row
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 || strings.HasPrefix(cells[1], "-") || cells[1] == " when " {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[5] == "" {
			t.Fatalf("row %q has no derivation", line)
		}
		rows = append(rows, row{when: cells[1], job: cells[2], machine: cells[3], what: cells[4]})
	}
	if len(rows) < 60 {
		t.Fatalf("only %d rows", len(rows))
	}
	return rows
}

// rows are those of the table that are about the world.
func (w World) rows(t testing.TB) []row {
	t.Helper()
	return slices.DeleteFunc(rowsOf(t), func(r row) bool {
		minute := wall(r.when)
		return minute.Before(w.From) || !minute.Before(w.To) || !slices.ContainsFunc(w.Jobs, func(j Job) bool { return j.Name == r.job })
	})
}

// mismatches are the rows that events do not fulfil.
func mismatches(t testing.TB, w World, events []Event) []string {
	t.Helper()
	return w.unlike(w.rows(t), events)
}

// unlike are those of some rows that events do not fulfil.
func (w World) unlike(rows []row, events []Event) []string {
	var wrong []string
	for _, r := range rows {
		minute := wall(r.when)
		var then []string
		held := map[int]bool{}
		for _, e := range events {
			if e.Job != r.job || e.Machine != r.machine || e.At.After(minute.Add(59*time.Second+r.late)) {
				continue
			}
			switch e.Kind {
			case Stored:
				held[e.Point] = true
			case Removed:
				delete(held, e.Point)
			}
			if !e.At.Before(minute.Add(-r.early)) {
				then = append(then, w.words(e))
			}
		}
		if what, ok := strings.CutPrefix(r.what, "keeps "); ok {
			var names []string
			for place, p := range w.machine(r.job, r.machine).Points {
				if held[place] {
					names = append(names, shown(p.Created))
				}
			}
			if all := strings.Join(names, ", "); what != all && what != strconv.Itoa(len(names)) {
				wrong = append(wrong, fmt.Sprintf("%s %s %s: keeps %d: %s, want %s", r.when, r.job, r.machine, len(names), all, what))
			}
			continue
		}
		if !slices.Contains(then, r.what) {
			wrong = append(wrong, fmt.Sprintf("%s %s %s: %s, want %s", r.when, r.job, r.machine, then, r.what))
		}
	}
	return wrong
}

func eventsOf(w World, r rules) []Event {
	var events []Event
	run(w, r, func(e Event) { events = append(events, e) })
	return events
}

// lived are the events of the year.
var lived = sync.OnceValue(func() []Event { return eventsOf(theYear(), decided()) })

func TestYear(t *testing.T) {
	w, events := theYear(), lived()
	t.Logf("%d events", len(events))
	for _, wrong := range mismatches(t, w, events) {
		t.Error(wrong)
	}
}
