package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/scheduler"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// lab is a catalog on SQLite, sources and targets in memory, and a scheduler over them. All goes by the clock of the bubble.
type lab struct {
	t       *testing.T
	path    string // of the catalog
	catalog *catalog.Catalog
	targets map[string]*memory.Store
	log     *slog.Logger
	slots   int

	*scheduler.Scheduler
	owner int
	leave context.CancelFunc
	ended chan error

	mu sync.Mutex
	// points are those of each source; edit changes how they are listed; prepareErr is what preparing a session gives, and
	// targetErr opening a target. looks counts listings of sources, each of which takes listing.
	points                map[string][]*sourcetest.Point
	edit                  func(*registry.Source)
	prepareErr, targetErr error
	looks                 int
	listing               time.Duration
	// jump is how far the clock is from the bubble's.
	jump time.Duration
}

// inBubble runs a test with a lab in which time passes only when all wait.
func inBubble(t *testing.T, test func(l *lab)) {
	warm(t)
	synctest.Test(t, func(t *testing.T) {
		l := &lab{
			t: t, points: map[string][]*sourcetest.Point{}, targets: map[string]*memory.Store{}, log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), slots: 2,
		}
		l.another()
		defer func() { l.must(l.catalog.Close()) }()
		l.repository("pve")
		l.target("vault")
		defer func() {
			if l.leave != nil {
				l.end()
			}
		}()
		test(l)
	})
}

// warmed is true once what all repositories of a process share was made: it must not be a bubble's.
var warmed bool

func warm(t *testing.T) {
	if warmed {
		return
	}
	warmed = true
	l := &lab{t: t, points: map[string][]*sourcetest.Point{}}
	l.add("a")
	store := memory.New()
	r, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: 4096})
	l.must(err)
	defer r.Close()
	for _, codec := range []mover.Codec{mover.CodecS2, mover.CodecZstd} {
		p := l.add("a")
		from := sourcetest.Open(t, p)
		_, err := job.Copy(t.Context(), from, r, plan.Plan{Steps: []plan.Step{{Point: from.Points[0].Point, Action: plan.ActionCopy}}}, job.Options{Codec: codec})
		l.must(err)
	}
	_, err = r.Verify(t.Context(), nil)
	l.must(err)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Logf("%s %s", time.Now().Format("01-02 15:04:05"), text)
	return len(text), nil
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.jump)
}

// begin starts a scheduler, as a process of its own would.
func (l *lab) begin() {
	l.owner++
	l.Scheduler = scheduler.New(l.catalog, scheduler.Options{
		Prepare: l.prepare, Owner: fmt.Sprint("server ", l.owner), Sole: true, Slots: l.slots, Log: l.log, Now: l.now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	l.leave, l.ended = cancel, make(chan error, 1)
	of := l.Scheduler
	go func() { l.ended <- of.Run(ctx) }()
	synctest.Wait()
}

// another is an empty catalog, in place of the one before.
func (l *lab) another() {
	l.t.Helper()
	if l.catalog != nil {
		l.must(l.catalog.Close())
	}
	l.path = filepath.Join(l.t.TempDir(), "catalog.db")
	c, err := catalog.Open(l.t.Context(), l.path, catalog.Options{Now: l.now})
	l.must(err)
	l.catalog = c
}

// end ends the scheduler as a signal does.
func (l *lab) end() {
	l.t.Helper()
	l.leave()
	if err := <-l.ended; err != nil {
		l.t.Error(err)
	}
	l.leave = nil
}

// pass lets time pass.
func (l *lab) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (l *lab) put(kind, name, document string) {
	l.t.Helper()
	_, err := l.catalog.Resources.Put(l.t.Context(), kind, name, document, 0)
	l.must(err)
}

func (l *lab) repository(name string) {
	l.put("Repository", name, fmt.Sprintf("kind: Repository\nname: %s\nlocation: /%s\n", name, name))
}

func (l *lab) target(name string) {
	l.t.Helper()
	l.repository(name)
	l.targets[name] = memory.New()
	r, err := repo.Init(l.t.Context(), l.targets[name], repo.Environment{}, repo.Options{BlockSize: 4096})
	l.must(err)
	l.must(r.Close())
}

// job makes a job from pve to vault with further settings.
func (l *lab) job(name, settings string) {
	l.put("Job", name, fmt.Sprintf("kind: Job\nname: %s\nsource: {repositories: [pve]}\ntarget: {repository: vault}\n%s\n", name, settings))
}

func (l *lab) prepare(_ context.Context, resources policy.Resources, name string) (job.Setup, error) {
	of, there := resources.Job(name)
	if !there {
		return job.Setup{}, errors.New("no such job")
	}
	l.mu.Lock()
	err := l.prepareErr
	l.mu.Unlock()
	setup := job.Setup{Job: of.Effective(), Document: "kind: Job\n"}
	if err != nil {
		return setup, err
	}
	for _, origin := range resources.Origins(of) {
		setup.Sources = append(setup.Sources, job.Place{Origin: origin, Open: func(context.Context) (*registry.Source, error) {
			l.mu.Lock()
			takes := l.listing
			l.mu.Unlock()
			time.Sleep(takes)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.looks++
			opened := sourcetest.Open(l.t, l.points[origin.Repository.Name]...)
			if l.edit != nil {
				l.edit(opened)
			}
			return opened, nil
		}})
	}
	into, _ := resources.Repository(of.Target.Repository)
	setup.Target = job.Goal{Name: into.Name, Slots: into.Slots, Location: "memory", Open: func(ctx context.Context) (*repo.Repository, error) {
		l.mu.Lock()
		err := l.targetErr
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		return repo.Open(ctx, l.targets[of.Target.Repository], repo.Environment{})
	}}
	return setup, nil
}

// with changes the world while nobody looks.
func (l *lab) with(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// looked is how often sources were listed.
func (l *lab) looked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

// add adds a point to source pve, made now.
func (l *lab) add(machine string) *sourcetest.Point { return l.addSized(machine, 20_000) }

func (l *lab) addSized(machine string, size int) *sourcetest.Point {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i*len(l.points["pve"]) + i>>8 + i>>16 + len(machine))
	}
	p := &sourcetest.Point{
		Machine: sourcetest.Machine(machine), Native: fmt.Sprint(machine, " ", time.Now().UnixNano()), Created: time.Now(),
		Objects: []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}},
	}
	l.with(func() { l.points["pve"] = append(l.points["pve"], p) })
	return p
}

// sessions are those of a job, oldest first.
func (l *lab) sessions(of string) []catalog.Session {
	l.t.Helper()
	list, err := l.catalog.Sessions.Of(l.t.Context(), of, 0, 1000)
	l.must(err)
	slices.Reverse(list)
	return list
}

// notReady are the texts of what the scheduler is not ready for.
func (l *lab) notReady() string {
	var texts []string
	for _, trouble := range l.Ready() {
		texts = append(texts, trouble.Text)
	}
	return strings.Join(texts, ", ")
}

// last is the last session of a job, which must have the state wanted.
func (l *lab) last(of string, want catalog.SessionState) catalog.Session {
	l.t.Helper()
	list := l.sessions(of)
	if len(list) == 0 {
		l.t.Fatalf("job %s has no session", of)
	}
	last := list[len(list)-1]
	if last.State != want {
		l.t.Fatalf("the last session of %s is %s (%s), want %s", of, last.State, last.Reason, want)
	}
	return last
}

func (l *lab) report(session catalog.Session) (s job.Session) {
	l.t.Helper()
	text, err := l.catalog.Sessions.Report(l.t.Context(), session.ID)
	l.must(err)
	l.must(json.Unmarshal(text, &s))
	return s
}

// lock makes the points of a machine look locked until unlock is called.
func (l *lab) lock(machine string) (unlock func()) {
	l.with(func() {
		l.edit = func(s *registry.Source) {
			for i := range s.Points {
				if s.Points[i].Machine.Name == machine {
					s.Points[i].State, s.Points[i].Reason = backup.StateLocked, "it is being written"
					s.Points[i].Opener, s.Points[i].Files = nil, []source.FileIdentity{{ModTime: time.Now()}}
				}
			}
		}
	})
	return func() { l.with(func() { l.edit = nil }) }
}
