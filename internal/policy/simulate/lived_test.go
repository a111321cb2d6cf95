package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	jobs "ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/scheduler"
	"ferry/internal/storage/memory"
)

// server lives a world: the real scheduler over sources, links and targets in memory.
type server struct {
	t       *testing.T
	world   World
	catalog *catalog.Catalog
	places  map[string]*place
	targets map[string]*memory.Store

	*scheduler.Scheduler
	owner int
	leave context.CancelFunc
	ended chan error

	mu     sync.Mutex
	events []Event
	spans  map[string][]Span // of sessions, in the world's time
	missed map[string][]int  // how many intervals were not run before each
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// now is the time by the server's clock.
func (s *server) now() time.Time {
	now := time.Now()
	return now.Add(s.world.ahead(now))
}

func (s *server) tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// Enabled, Handle, WithAttrs and WithGroup make the server hear what its scheduler logs.
func (s *server) Enabled(context.Context, slog.Level) bool { return true }

func (s *server) Handle(_ context.Context, r slog.Record) error {
	said := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		said[a.Key] = a.Value.String()
		return true
	})
	switch of := said["job"]; {
	case r.Message == "session begins":
		s.mu.Lock()
		s.spans[of] = append(s.spans[of], Span{From: time.Now()})
		s.missed[of] = append(s.missed[of], notRun(said["why"]))
		s.mu.Unlock()
	case r.Message == "session ended":
		s.mu.Lock()
		s.spans[of][len(s.spans[of])-1].To = time.Now()
		s.mu.Unlock()
	case r.Message == "session waits" && said["kind"] == string(jobs.WaitWindow):
		for _, m := range s.places[of].machines {
			s.tell(Event{At: time.Now(), Job: of, Machine: m.Name, Kind: WaitsForWindow, Point: -1})
		}
	case r.Level >= slog.LevelError:
		s.t.Errorf("%s: %s %v", shown(time.Now()), r.Message, said)
	}
	return nil
}

// notRun is how many intervals got no session, by what is said of the one that catches up.
func notRun(why string) (count int) {
	_, text, some := strings.Cut(why, "not run: ")
	if _, err := fmt.Sscanf(text, "%d intervals", &count); err != nil && some {
		return 1
	}
	return count
}

func (s *server) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *server) WithGroup(string) slog.Handler      { return s }

// put writes down a resource.
func (s *server) put(kind, name, document string) {
	s.t.Helper()
	_, err := s.catalog.Resources.Put(s.t.Context(), kind, name, document, 0)
	s.must(err)
}

func newServer(t *testing.T, w World) *server {
	s := &server{t: t, world: w, places: map[string]*place{}, targets: map[string]*memory.Store{}, spans: map[string][]Span{}, missed: map[string][]int{}}
	var err error
	s.catalog, err = catalog.Open(t.Context(), filepath.Join(scratch(t), "catalog.db"), catalog.Options{Now: s.now})
	s.must(err)
	for _, j := range w.Jobs {
		s.places[j.Name], s.targets[j.Name] = newPlace(j, s.now, s.tell), memory.New()
		s.targets[j.Name].SetClock(s.now)
		r, err := repo.Init(t.Context(), s.targets[j.Name], repo.Environment{Now: s.now}, repo.Options{BlockSize: blockSize})
		s.must(err)
		s.must(r.Close())
	}
	return s
}

// scratch is a folder in memory, if there is such a place.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "ferry-year-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// enable applies a job and its repositories.
func (s *server) enable(j Job) {
	for _, name := range []string{"from-" + j.Name, "to-" + j.Name} {
		s.put("Repository", name, repositoryOf(name))
	}
	s.put("Job", j.Name, documentOf(j.Name))
	if s.Scheduler != nil {
		s.Changed()
	}
}

func (s *server) prepare(_ context.Context, resources policy.Resources, name string) (jobs.Setup, error) {
	of, _ := resources.Job(name)
	setup := jobs.Setup{Job: of.Effective(), Document: "kind: Job\n", Copy: jobs.Options{Codec: mover.CodecNone}}
	for _, origin := range resources.Origins(of) {
		setup.Sources = append(setup.Sources, jobs.Place{Origin: origin, Open: s.places[name].open})
	}
	into, _ := resources.Repository(of.Target.Repository)
	setup.Target = jobs.Goal{Name: into.Name, Location: "memory", Open: func(ctx context.Context) (*repo.Repository, error) {
		return repo.Open(ctx, s.targets[name], repo.Environment{Now: s.now})
	}}
	return setup, nil
}

// begin starts a scheduler, as a process of its own would.
func (s *server) begin() {
	s.owner++
	s.Scheduler = scheduler.New(s.catalog, scheduler.Options{
		Prepare: s.prepare, Owner: fmt.Sprint("server ", s.owner), Sole: true, Log: slog.New(s), Now: s.now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	s.leave, s.ended = cancel, make(chan error, 1)
	of := s.Scheduler
	go func() { s.ended <- of.Run(ctx) }()
}

func (s *server) end() {
	if s.leave == nil {
		return
	}
	s.leave()
	s.must(<-s.ended)
	s.leave = nil
}

// live lets the world's time pass.
func (s *server) live() {
	time.Sleep(time.Until(s.world.From))
	for _, edge := range append(s.world.edges(), s.world.To) {
		important := edge.Equal(s.world.To)
		for _, d := range s.world.Down {
			important = important || d.From.Equal(edge) || d.To.Equal(edge)
		}
		for _, j := range s.world.Jobs {
			important = important || j.Enabled.Equal(edge)
		}
		if !important {
			continue
		}
		time.Sleep(time.Until(edge))
		for _, j := range s.world.Jobs {
			if j.Enabled.Equal(edge) {
				s.enable(j)
			}
		}
		switch down := s.world.down(edge); {
		case down:
			s.end()
		case s.leave == nil && edge.Before(s.world.To):
			s.begin()
		}
	}
	s.end()
}

// whenIn is the world's time of an instant by the server's clock, within a span.
func (s *server) whenIn(in Span, clock time.Time) time.Time {
	ahead := []time.Duration{0}
	for _, skew := range s.world.Clock {
		ahead = append(ahead, skew.Ahead)
	}
	for _, a := range ahead {
		if at := clock.Add(-a); s.world.ahead(at) == a && !at.Before(in.From) && !at.After(in.To) {
			return at
		}
	}
	return in.To
}

// record adds to the events what the catalog keeps of the sessions.
func (s *server) record(of Job) {
	ctx := s.t.Context()
	var sessions []catalog.Session
	for before := int64(0); ; {
		some, err := s.catalog.Sessions.Of(ctx, of.Name, before, 1000)
		s.must(err)
		sessions = append(sessions, some...)
		if len(some) == 0 {
			break
		}
		before = some[len(some)-1].ID
	}
	slices.Reverse(sessions)
	n, passed := 0, 0
	for _, session := range sessions {
		if session.State == catalog.SessionNotRun {
			passed++
			continue
		}
		// Those that a clock which was wrong had passed over are run after all, and no longer recorded.
		span, missed := s.spans[of.Name][n], max(s.missed[of.Name][n], passed)
		passed = 0
		if n++; span.To.IsZero() {
			span.To = s.world.To
		}
		var report jobs.Session
		if !session.Ended.IsZero() {
			text, err := s.catalog.Sessions.Report(ctx, session.ID)
			s.must(err)
			s.must(json.Unmarshal(text, &report))
		}
		if of.Schedule.Mode == policy.Periodic {
			begins := session.Boundary
			if begins.IsZero() { // it had run already, by a clock that was wrong
				begins = report.Nominal
			}
			s.tell(Event{At: span.From, Job: of.Name, Kind: Interval, Point: -1, Begins: begins, Missed: policy.Missed{Count: missed}})
		}
		s.recordSession(ctx, of, session, &report, span)
	}
}

func (s *server) recordSession(ctx context.Context, of Job, session catalog.Session, report *jobs.Session, span Span) {
	at := s.places[of.Name]
	find := func(id backup.PointID) (machine string, place int) {
		for _, m := range at.machines {
			if place, is := m.placed[id]; is {
				return m.Name, place
			}
		}
		panic("no such point")
	}
	tasks, err := s.catalog.Tasks.Of(ctx, session.ID)
	s.must(err)
	got := map[string]bool{}
	for _, task := range tasks {
		if task.State == catalog.TaskDone {
			machine, place := find(*task.Point)
			got[machine] = true
			s.tell(Event{At: s.whenIn(span, task.Ended), Job: of.Name, Machine: machine, Kind: Stored, Point: place})
		}
	}
	var removed time.Time
	for _, phase := range report.Phases {
		if phase.Name != jobs.PhaseTransform || phase.Counts["removed"] == 0 {
			continue
		}
		if !removed.IsZero() {
			s.must(fmt.Errorf("session %d removed points before the copies and after them: which went when its report does not say", session.ID))
		}
		removed = phase.Ended
	}
	for _, task := range report.Tasks {
		for _, p := range task.Points {
			if p.Action == plan.ActionRemove && p.Outcome == jobs.OutcomeCopied {
				id, err := backup.ParsePointID(p.Point)
				s.must(err)
				machine, place := find(id)
				s.tell(Event{At: s.whenIn(span, removed), Job: of.Name, Machine: machine, Kind: Removed, Point: place})
			}
		}
	}
	for _, m := range at.machines {
		if !got[m.Name] && of.Schedule.Mode == policy.Periodic {
			s.tell(Event{At: span.To, Job: of.Name, Machine: m.Name, Kind: GotNothing, Point: -1})
		}
		for _, warning := range report.Warnings {
			if strings.Contains(warning, "machine "+m.Name+" ") {
				s.tell(Event{At: s.firstCopy(of.Name, m.Name, span), Job: of.Name, Machine: m.Name, Kind: Warned, Point: -1, Reason: warning})
			}
		}
	}
}

// firstCopy is when the first copy of a machine began in a span, at which what was passed over for it is told.
func (s *server) firstCopy(job, machine string, in Span) time.Time {
	for _, e := range s.events {
		if e.Job == job && e.Machine == machine && e.Kind == Copies && in.has(e.At) {
			return e.At
		}
	}
	return in.From
}

// stretches are the parts of the year that the real scheduler lives: those in which something happens. Jobs that were there before
// are enabled at the first noon.
var stretches = []struct{ name, from, to, jobs string }{
	{"the beginning", "01-01 00:00", "01-06 12:00", "mirror nightly archive"},
	{"a lock and an outage", "02-05 00:00", "02-10 18:00", "nightly archive"},
	{"a leap day", "02-28 00:00", "03-01 12:00", "nightly"},
	{"a clock that is fast", "03-09 00:00", "03-13 18:00", "nightly archive"},
	{"a missing hour", "03-25 00:00", "03-27 12:00", "nightly archive"},
	{"a lock that was left", "04-08 00:00", "04-09 18:00", "archive"},
	{"a broken point", "05-06 00:00", "05-07 18:00", "archive"},
	{"a clock that is slow", "05-14 00:00", "05-15 22:30", "mirror nightly archive"},
	{"a locked night", "06-12 00:00", "06-15 18:00", "nightly"},
	{"days without a server", "07-03 00:00", "07-06 18:00", "mirror nightly"},
	{"weeks without a server", "08-04 00:00", "08-22 06:00", "nightly archive"},
	{"a source that is offline", "09-12 00:00", "09-14 12:00", "nightly"},
	{"locked hours", "09-20 00:00", "09-20 18:00", "mirror"},
	{"an hour's lock that was left", "10-04 00:00", "10-04 18:00", "mirror"},
	{"an hour that comes twice", "10-28 00:00", "10-30 12:00", "mirror nightly archive"},
	{"a slow link", "11-05 00:00", "11-08 12:00", "nightly"},
	{"a point that goes", "11-04 00:00", "11-12 18:00", "archive"},
}

// again are rows that come about a little after their minute, or before it, and by how much at most: when copies end for others, or at a boundary, what was
// on its way is carried again. Those are blocks of 150 MB, for each of which the slow link, shared by two, takes 5 minutes more. Nothing is lost by that.
// A copy that goes on begins while the reads of the one before drain: until then, three blocks of a link in three parts at most, its machine has two of
// them instead of the half, so it can come about by up to two blocks early.
var again = map[string]struct{ early, late time.Duration }{
	"11-07 04:50 nightly web stored 11-06 22:30":  {early: 11 * time.Minute, late: 31 * time.Minute}, // two blocks, six at most, and the look
	"11-07 20:56 nightly mail stored 11-06 23:00": {early: 2 * time.Minute},
}

// The real scheduler and the real sessions live what happens in the year as it is simulated, and what the table says comes about.
func TestYearLived(t *testing.T) {
	warm(t)
	checked, lived := 0, 0
	for _, of := range stretches {
		t.Run(of.name, func(t *testing.T) {
			if testing.Short() && of.name != "a missing hour" {
				t.Skip("it takes long")
			}
			lived++
			w := theYear().stretch(of.from, of.to, of.jobs)
			events, simulated := live(t, w), eventsOf(w, decided())
			holds(t, w, events)
			compareDays(t, w, events, simulated)
			// Without what hangs on what was before the stretch.
			rows := slices.DeleteFunc(w.rows(t), func(r row) bool { return len(w.unlike([]row{r}, simulated)) > 0 })
			checked += len(rows)
			for i, r := range rows {
				slack := again[strings.Join([]string{r.when, r.job, r.machine, r.what}, " ")]
				// Sources are looked at once a minute; and of what was interrupted up to six blocks are carried again, which half the usual link
				// takes half a minute for, each. Two may come early there, too.
				rows[i].early, rows[i].late = max(slack.early, time.Minute), max(slack.late, 4*time.Minute)
			}
			for _, wrong := range w.unlike(rows, events) {
				t.Error(wrong)
			}
			if t.Failed() {
				for _, e := range events {
					t.Log(shown(e.At), e.Job, e.Machine, w.words(e))
				}
			}
		})
	}
	if t.Logf("%d rows", checked); lived == len(stretches) && checked < 50 {
		t.Errorf("only %d rows of the table were lived", checked)
	}
}

// stretch is a part of the world in which its jobs begin anew.
func (w World) stretch(from, to, jobs string) World {
	w.From, w.To = wall(from), wall(to)
	w.Jobs = slices.DeleteFunc(slices.Clone(w.Jobs), func(j Job) bool { return !strings.Contains(jobs, j.Name) })
	for i := range w.Jobs {
		j := &w.Jobs[i]
		if noon := w.From.Add(12 * time.Hour); j.Enabled.Before(w.From) {
			j.Enabled = noon
			j.Machines = slices.Clone(j.Machines)
			first := int64(12 * gigabyte) // so that first copies are over soon
			if j.Name == "archive" {
				first *= 2
			}
			for n := range j.Machines {
				j.Machines[n].Whole = min(j.Machines[n].Whole, first)
			}
		}
	}
	return w
}

// live has the real scheduler live a world, and returns what happened in it.
func live(t *testing.T, w World) (events []Event) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, w)
		s.live()
		for _, j := range w.Jobs {
			s.record(j)
		}
		s.must(s.catalog.Close())
		events = s.events
		for name, p := range s.places {
			t.Logf("%s: %d sessions, its sources were listed %d times", name, len(s.spans[name]), p.lists)
		}
	})
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events
}

// compareDays compares what jobs hold at every noon.
func compareDays(t *testing.T, w World, events, simulated []Event) {
	t.Helper()
	for day := w.From.Add(12*time.Hour + 30*time.Minute); day.Before(w.To); day = day.AddDate(0, 0, 1) {
		for _, j := range w.Jobs {
			for _, m := range j.Machines {
				if real, wanted := heldAt(events, j.Name, m, day), heldAt(simulated, j.Name, m, day); !slices.Equal(real, wanted) {
					t.Errorf("%s: of %s %s the job holds %s, and simulated %s", shown(day), j.Name, m.Name, real, wanted)
				}
			}
		}
	}
}

// heldAt are the points of a machine that a job holds at a time, as the table writes them.
func heldAt(events []Event, job string, m Machine, at time.Time) (names []string) {
	held := map[int]bool{}
	for _, e := range events {
		switch {
		case e.Job != job || e.Machine != m.Name || e.At.After(at):
		case e.Kind == Stored:
			held[e.Point] = true
		case e.Kind == Removed:
			delete(held, e.Point)
		}
	}
	for _, place := range slices.Sorted(maps.Keys(held)) {
		names = append(names, shown(m.Points[place].Created))
	}
	return names
}

// warm makes what all repositories of a process share outside of the bubble.
func warm(t *testing.T) {
	store := memory.New()
	r, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: blockSize})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
}
