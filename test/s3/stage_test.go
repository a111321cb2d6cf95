//go:build integration

package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/storage/s3"
)

// stage is a bucket that processes use at once, each through a proxy of its own that pauses it, on a clock that is put forward
// by more than the grace and every lease while one of them is paused for long.
type stage struct {
	t      *testing.T
	bucket string
	clock  clock
	pauses *repotest.Pauses

	mu sync.Mutex
	// slept is how often a process was paused for long.
	slept int
	// made says of files who first wrote them, deleted who first deleted them.
	made    map[string]string
	deleted map[string]act
	turns   []*turn
}

// act is who did something, and when by the clock.
type act struct {
	who string
	at  time.Time
}

// longer than the grace, and than every lease.
const longer = 25 * time.Hour

// process is one of them: what it asks of the server waits while it is paused.
type process struct {
	stage *stage
	name  string
	// pausedOnce in so many requests; 0: never. longOnce of these pauses in so many is long.
	pausedOnce, longOnce int
	// location leads through its proxy; cache is a folder.
	location, cache string

	forward http.Handler
	mu      sync.Mutex
	awake   *sync.Cond
	asleep  bool
}

// process starts a proxy.
func (s *stage) process(name string, pausedOnce, longOnce int) *process {
	p := &process{stage: s, name: name, pausedOnce: pausedOnce, longOnce: longOnce, cache: s.t.TempDir()}
	p.awake = sync.NewCond(&p.mu)
	forward := onward()
	forward.ModifyResponse = s.clock.shift
	p.forward = forward
	server := httptest.NewServer(p)
	s.t.Cleanup(server.Close)
	p.location = "s3+" + server.URL + "/" + s.bucket + "/vault"
	return p
}

// open opens the repository as a process that has just begun.
func (p *process) open() (*repo.Repository, error) {
	location, err := s3.ParseLocation(p.location)
	if err != nil {
		return nil, err
	}
	store, err := s3.Open(location, s3.Options{Pause: time.Millisecond})
	if err != nil {
		return nil, err
	}
	r, err := repo.Open(p.stage.t.Context(), store, repo.Environment{CacheDir: p.cache, Now: p.stage.clock.now, Program: p.name, OwnsStore: true})
	if err != nil {
		err = errors.Join(err, store.Close())
	}
	return r, err
}

// way is what a pause comes upon.
type way int

const (
	// before the server is asked: after a long pause the request is too old for it.
	before way = iota
	// after it has done what it was asked.
	after
	// unasked: the connection ends during the pause, and the server was not asked.
	unasked
	// unheard: it ends, and the server has done what it was asked.
	unheard
	ways
)

// ServeHTTP hands a request on, and may pause the process at it.
func (p *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := p.stage
	p.wait()
	pause, long, what := false, false, way(0)
	if p.pausedOnce > 0 && s.pauses.Call(p.pausedOnce) {
		pause, long, what = true, s.pauses.Draw(p.longOnce) == 0, way(s.pauses.Draw(int(ways)))
	}
	if pause && (what == before || what == unasked) {
		p.sleep(long)
		if what == unasked {
			panic(http.ErrAbortHandler)
		}
		if long {
			w.Header().Set("Date", s.clock.now().UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>RequestTimeTooSkewed</Code><Message>a test</Message></Error>`)
			return
		}
	}
	answer, name, asked := httptest.NewRecorder(), strings.TrimPrefix(r.URL.Path, "/"+s.bucket+"/vault/"), time.Now()
	p.forward.ServeHTTP(answer, r)
	if answer.Code < 300 {
		s.note(p, r.Method, name, asked)
	}
	if pause && (what == after || what == unheard) {
		p.sleep(long)
		if what == unheard {
			panic(http.ErrAbortHandler)
		}
	}
	p.wait()
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// note what was done to a file that the server was asked for at a time of its own.
func (s *stage) note(p *process, method, name string, asked time.Time) {
	at := s.clock.shifted(asked)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch method {
	case http.MethodPut:
		if s.made[name] == "" {
			s.made[name] = p.name
		}
	case http.MethodDelete:
		if _, again := s.deleted[name]; !again {
			s.deleted[name] = act{p.name, at}
		}
	}
}

// wait until the process is not paused.
func (p *process) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.asleep {
		p.awake.Wait()
	}
}

// sleep pauses the process while others make some calls; for long: until the clock was put forward a few times, too.
func (p *process) sleep(long bool) {
	p.mu.Lock()
	if p.asleep { // another call of it was paused just now
		for p.asleep {
			p.awake.Wait()
		}
		p.mu.Unlock()
		return
	}
	p.asleep = true
	p.mu.Unlock()
	s := p.stage
	calls, enough := s.pauses.Draw(200), func() bool { return true }
	if long {
		s.mu.Lock()
		s.slept++
		s.mu.Unlock()
		until := s.clock.now().Add(time.Duration(1+s.pauses.Draw(3)) * longer)
		enough = func() bool {
			s.clock.forward(longer + time.Hour)
			return s.clock.now().After(until)
		}
	}
	s.pauses.Wait(calls, enough)
	p.mu.Lock()
	p.asleep = false
	p.awake.Broadcast()
	p.mu.Unlock()
}

// turn is one of a reclaim, or a compact, by the clock. It has not ended while ended is zero.
type turn struct {
	what, who    string
	began, ended time.Time
}

// upkeep does what only one does at a time. It is true if it was not refused; a refusal must name one that ran.
func (p *process) upkeep(what string, do func(*repo.Repository) error) bool {
	s := p.stage
	r, err := p.open()
	if err != nil {
		s.t.Errorf("%s: open: %v", p.name, err)
		return false
	}
	defer r.Close()
	mine := &turn{what: what, who: p.name, began: s.clock.now()}
	s.mu.Lock()
	s.turns = append(s.turns, mine)
	s.mu.Unlock()
	err = do(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	mine.ended = s.clock.now()
	inUse, refused := errors.AsType[*repo.InUseError](err)
	if !refused {
		if err != nil {
			s.t.Errorf("%s: %v", p.name, err)
		}
		return true
	}
	host, _ := os.Hostname()
	known := false
	for _, other := range s.turns {
		known = known || other != mine && other.what == inUse.What && other.who == inUse.Program && !inUse.Since.Before(other.began) &&
			(other.ended.IsZero() || !other.ended.Before(mine.began) && !other.ended.Before(inUse.Since))
	}
	if !known || inUse.Host != host || inUse.PID != os.Getpid() {
		s.t.Errorf("%s was refused because of one that did not run: %+v", p.name, inUse)
	}
	return false
}
