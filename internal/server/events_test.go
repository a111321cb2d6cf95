package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/client"
	"ferry/internal/scheduler"
)

// sessionReport is what a session of the fixture left.
const sessionReport = `{"result":"done","ended":"2026-11-25T00:00:00Z","target":{"name":"vault","state":"ready","verified":"2026-11-24T00:00:00Z","unverified":3}}`

// sessionOf begins a session with a phase and a task. end ends it.
func sessionOf(t *testing.T, f *fixture) (id int64, end func()) {
	t.Helper()
	ctx := context.Background()
	session, lease, err := f.Catalog.Sessions.Begin(ctx, catalog.NewSession{Job: "offsite"}, "test", time.Minute)
	must(t, err)
	phase, err := f.Catalog.Sessions.Enter(ctx, lease, "synchronize")
	must(t, err)
	machine := backup.Machine{Key: backup.NewMachineKey(backup.PlatformProxmox, "100", "", ""), Name: "web\x1b[31m01"}
	_, err = f.Catalog.Tasks.Enqueue(ctx, lease, []catalog.NewTask{{Machine: machine, Source: "pve", Target: "vault"}})
	must(t, err)
	return session.ID, func() {
		must(t, f.Catalog.Sessions.Leave(ctx, lease, phase, catalog.PhaseDone, "", catalog.Counts{"copied": 1}))
		must(t, f.Catalog.Sessions.SetReport(ctx, lease, []byte(sessionReport)))
		must(t, f.Catalog.Sessions.End(ctx, lease, catalog.SessionDone, "", catalog.Counts{"copied": 1, "readBytes": 4096, "targetRead": 1}))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// subscribed waits until somebody follows a session, and returns where its events go.
func (d *double) subscribed(t *testing.T, session int64, nth int) chan scheduler.Event {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		d.mu.Lock()
		channels := d.channels[session]
		d.mu.Unlock()
		if len(channels) >= nth {
			return channels[nth-1]
		}
		time.Sleep(time.Millisecond) // a real socket lies between
	}
	t.Fatal("nobody follows")
	return nil
}

func TestSessions(t *testing.T) {
	f := newFixture(t)
	id, end := sessionOf(t, f)
	var session api.Session
	f.read(f.expect(200, "GET", "/v1/sessions/"+itoa(int(id)), ""), &session)
	if session.State != "running" || len(session.Phases) != 1 || len(session.Tasks) != 1 || session.Report != nil {
		t.Errorf("%+v", session)
	}
	if name := session.Tasks[0].Machine.Name; strings.Contains(name, "\x1b") || !strings.HasPrefix(name, "web") {
		t.Errorf("the name of a machine is %q", name)
	}
	end()
	f.read(f.expect(200, "GET", "/v1/sessions/"+itoa(int(id)), ""), &session)
	if session.State != "done" || session.Phases[0].Counts["copied"] != 1 || string(session.Report) != sessionReport {
		t.Errorf("%+v with report %s", session, session.Report)
	}
	second, endSecond := sessionOf(t, f)
	endSecond()
	for query, want := range map[string][]int64{
		"": {second, id}, "?limit=1": {second}, "?limit=1&before=" + itoa(int(second)): {id}, "?job=offsite": {second, id}, "?job=other": {},
	} {
		var list []api.Session
		f.read(f.expect(200, "GET", api.PathSessions+query, ""), &list)
		var got []int64
		for _, s := range list {
			got = append(got, s.ID)
		}
		if asJSON(got) != asJSON(want) && len(got)+len(want) > 0 {
			t.Errorf("%s: %v, not %v", query, got, want)
		}
	}
}

// Who follows a session first hears how it stands, then what happens, at last that it has ended.
func TestEvents(t *testing.T) {
	f := newFixture(t)
	id, end := sessionOf(t, f)
	path := filepath.Join(socketFolder(t), "s")
	f.served(t, path)
	heard := make(chan api.Event)
	ended := make(chan error, 1)
	go func() {
		ended <- client.New(path).Follow(context.Background(), id, func(e api.Event) error {
			heard <- e
			return nil
		})
	}()
	first := <-heard
	if first.Kind != api.EventSession || len(first.Session.Tasks) != 1 || len(first.Session.Phases) != 1 {
		t.Errorf("first: %+v", first)
	}
	events := f.scheduler.subscribed(t, id, 1)
	events <- scheduler.Event{Kind: scheduler.EventTask, Task: &catalog.Task{ID: 5, Progress: catalog.Progress{Done: 3, Total: 9}}}
	if e := <-heard; e.Kind != api.EventTask || e.Task.ID != 5 || e.Task.Done != 3 || e.Session != nil {
		t.Errorf("a task: %+v", e)
	}
	events <- scheduler.Event{Kind: scheduler.EventPhase, Phase: &catalog.Phase{Name: "transform", State: catalog.PhaseRunning}}
	if e := <-heard; e.Kind != api.EventPhase || e.Phase.Name != "transform" {
		t.Errorf("a phase: %+v", e)
	}
	// Another process takes the session over: it is looked at again, and followed again.
	close(events)
	if e := <-heard; e.Kind != api.EventSession || !e.Session.Ended.IsZero() {
		t.Errorf("taken over: %+v", e)
	}
	events = f.scheduler.subscribed(t, id, 2)
	end()
	close(events)
	if e := <-heard; e.Kind != api.EventSession || e.Session.Ended.IsZero() {
		t.Errorf("at the end: %+v", e)
	}
	if e := <-heard; e.Kind != api.EventEnd || e.Session.State != "done" {
		t.Errorf("the end: %+v", e)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// When the server ends, who follows is sent away at once and told that there is no server.
func TestFollowersLeaveWithTheServer(t *testing.T) {
	f := newFixture(t)
	id, _ := sessionOf(t, f)
	path := filepath.Join(socketFolder(t), "s")
	stop := f.served(t, path)
	ended := make(chan error, 1)
	var once sync.Once
	heard := make(chan struct{})
	go func() {
		ended <- client.New(path).Follow(context.Background(), id, func(api.Event) error {
			once.Do(func() { close(heard) })
			return nil
		})
	}()
	<-heard
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, client.ErrNoServer) {
		t.Errorf("%v", err)
	}
}

// stalled takes so many writes, then waits for as long as the test says, and fails.
type stalled struct {
	http.ResponseWriter
	mu      sync.Mutex
	written strings.Builder
	takes   int
	stalls  chan struct{}
	goesOn  chan struct{}
}

func (s *stalled) Header() http.Header { return http.Header{} }
func (s *stalled) WriteHeader(int)     {}
func (s *stalled) Flush()              {}

func (s *stalled) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takes--; s.takes < 0 {
		close(s.stalls)
		<-s.goesOn
	}
	return s.written.Write(p)
}

// Who reads more slowly than events come is cut off, rather than shown a session with holes; nobody waits for them meanwhile.
func TestSlowFollowersAreCutOff(t *testing.T) {
	f := newFixture(t)
	id, _ := sessionOf(t, f)
	slow := &stalled{takes: 1, stalls: make(chan struct{}), goesOn: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		ended <- f.follow(context.Background(), &follower{slow, http.NewResponseController(slow)}, id)
	}()
	events := f.scheduler.subscribed(t, id, 1)
	task := scheduler.Event{Kind: scheduler.EventTask, Task: &catalog.Task{ID: 5}}
	events <- task
	<-slow.stalls
	lost := 0
	for range 2 * cap(events) {
		select { // as the scheduler does
		case events <- task:
		default:
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("nothing was lost: the test tests nothing")
	}
	slow.takes = 1000
	close(slow.goesOn)
	if err := <-ended; !errors.Is(err, errTooSlow) {
		t.Errorf("%v", err)
	}
}

// The stream's form is that of server-sent events.
func TestEventsAreServerSentEvents(t *testing.T) {
	f := newFixture(t)
	id, end := sessionOf(t, f)
	end()
	a := f.expect(200, "GET", "/v1/sessions/"+itoa(int(id))+"/events", "")
	if a.header.Get("Content-Type") != "text/event-stream" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.header)
	}
	events := strings.Split(strings.TrimSuffix(a.body, "\n\n"), "\n\n")
	if len(events) != 2 {
		t.Fatalf("%q", a.body)
	}
	for i, kind := range []string{api.EventSession, api.EventEnd} {
		lines := strings.Split(events[i], "\n")
		if len(lines) != 2 || lines[0] != "event: "+kind || !strings.HasPrefix(lines[1], "data: {") {
			t.Errorf("%q", events[i])
		}
		var e api.Event
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[1], "data: ")), &e); err != nil || e.Kind != kind {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// Where nothing happens, something is sent now and then.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{ending: make(chan struct{})}
		to := &stalled{takes: 1000}
		ended := make(chan error)
		go func() {
			ended <- s.tellEvents(context.Background(), &follower{to, http.NewResponseController(to)}, make(chan scheduler.Event))
		}()
		time.Sleep(4*heartbeat + time.Second)
		close(s.ending)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := to.written.String(); got != strings.Repeat(": nothing new\n\n", 4) {
			t.Errorf("%q", got)
		}
	})
}
