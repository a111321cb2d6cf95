package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/api"
	"ferry/internal/client"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(ServerStart)
		moves := 0
		c.Watch(func() { moves++ })
		time.Sleep(time.Second)
		if now := c.Now(); !now.Equal(ServerStart.Add(time.Second)) {
			t.Errorf("after a second it is %s", now)
		}
		paused := make(chan error, 1)
		go func() { paused <- c.Pause(t.Context(), time.Hour) }()
		synctest.Wait()
		c.MoveTo(ServerStart.Add(30 * time.Minute))
		synctest.Wait()
		if len(paused) > 0 {
			t.Error("a pause of an hour ended after half of it")
		}
		c.MoveTo(ServerStart.Add(2 * time.Hour))
		synctest.Wait()
		if len(paused) != 1 {
			t.Fatal("a pause of an hour goes on after two")
		}
		if err := <-paused; err != nil {
			t.Error(err)
		}
		c.MoveTo(ServerStart)
		if now := c.Now(); !now.Equal(ServerStart.Add(2 * time.Hour)) {
			t.Errorf("it was moved back, to %s", now)
		}
		if moves != 3 {
			t.Errorf("who watches was told of %d moves", moves)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { paused <- c.Pause(ctx, time.Hour) }()
		synctest.Wait()
		cancel()
		if err := <-paused; !errors.Is(err, context.Canceled) {
			t.Errorf("a pause that was interrupted: %v", err)
		}
		if err := c.Pause(t.Context(), time.Minute); err != nil { // the time goes on by itself too
			t.Error(err)
		}
	})
}

// answering is a story whose server says that its sessions are those given.
func answering(t *testing.T, sessions ...api.Session) *story {
	t.Helper()
	options, _ := prepared(t)
	listener, err := net.Listen("unix", filepath.Join(options.Dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(sessions); err != nil {
			t.Error(err)
		}
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	s := &story{Options: options}
	s.client = client.New(s.path(socketName))
	return s
}

// A night that did not come out as it must is an error, whatever was printed.
func TestNightsMustComeOutAsExpected(t *testing.T) {
	ended := at(quietNight, 2, 1)
	for name, c := range map[string]struct {
		state  string
		copied int64
		want   string
	}{
		"good":       {"done", 2, ""},
		"too little": {"done", 1, "is done, 1 copied, not done and 2"},
		"partial":    {"partial", 2, "is partial, 2 copied"},
		"not run":    {"not run", 0, "is not run, 0 copied"},
	} {
		t.Run(name, func(t *testing.T) {
			s := answering(t, api.Session{ID: 7, Job: jobName, Boundary: at(quietNight, 2, 0), Ended: ended, State: c.state, Counts: map[string]int64{"copied": c.copied}})
			err := s.night(t.Context(), quietNight, 2)
			if good := c.want == ""; good != (err == nil) || !good && !strings.Contains(err.Error(), c.want) || good != (len(s.summary.Nights) == 1) {
				t.Errorf("%v, %+v", err, s.summary.Nights)
			}
		})
	}
}

// The session of another night is not the one that is waited for, nor is one that goes on.
func TestNightIsWaitedFor(t *testing.T) {
	for _, session := range []api.Session{
		{ID: 7, Job: jobName, Boundary: at(quietNight, 2, 0), Ended: at(quietNight, 2, 1), State: "done", Counts: map[string]int64{"copied": 2}},
		{ID: 8, Job: jobName, Boundary: at(lockedNight, 2, 0), State: "waiting", Reason: "locked", Counts: map[string]int64{"copied": 2}},
	} {
		s := answering(t, session)
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		_, err := s.until(ctx, "a night", func(got api.Session) bool {
			if asked++; asked == 3 {
				cancel()
			}
			return got.Boundary.Equal(at(lockedNight, 2, 0)) && !got.Ended.IsZero()
		})
		if !errors.Is(err, context.Canceled) || asked < 3 {
			t.Errorf("session %d: %v after it was asked %d times", session.ID, err, asked)
		}
	}
}

// A server that cannot begin is told, and so is a folder in which it could not listen, before anything is made.
func TestServerThatDoesNotBegin(t *testing.T) {
	options, _ := prepared(t)
	broken := errors.New("no state")
	options.Clock = NewClock(ServerStart)
	var typed []string
	options.Ferry = func(_ context.Context, _ io.Writer, args ...string) error {
		typed = append(typed, args[0])
		return broken
	}
	if _, err := tell(t.Context(), options, (*story).prepare, (*story).server); !errors.Is(err, broken) || !slices.Equal(typed, []string{"serve"}) {
		t.Errorf("%v after %q", err, typed)
	}
	options, _ = prepared(t)
	options.Dir = filepath.Join(options.Dir, strings.Repeat("x", longestSocket))
	if _, err := Run(t.Context(), options); err == nil || !strings.Contains(err.Error(), "too long") || exists(options.Dir) {
		t.Errorf("a path that is too long: %v", err)
	}
}
