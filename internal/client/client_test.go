package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on a socket until the test ends.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	c := New(socket)
	c.again = time.Millisecond
	return c
}

// Each method sends what docs/openapi.json wants.
func TestRequests(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)
		for _, name := range []string{"If-Match", "If-None-Match"} {
			if value := r.Header.Get(name); value != "" {
				got += " " + name + " " + value
			}
		}
		if len(body) > 0 && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s is of type %q", got, r.Header.Get("Content-Type"))
		}
		_, _ = io.WriteString(w, map[bool]string{true: "[]", false: "{}"}[r.Method == "GET" &&
			(r.URL.Path == api.PathJobs || r.URL.Path == api.PathResources || r.URL.Path == api.PathSessions)])
	})
	ctx := t.Context()
	for _, request := range []struct {
		send func() error
		want string
	}{
		{func() error { _, err := c.Status(ctx, 20); return err }, "GET /v1/status?machines=20 "},
		{func() error { _, err := c.Apply(ctx, api.Apply{Documents: "a: b\n", DryRun: true}); return err }, `POST /v1/apply {"documents":"a: b\n","dryRun":true,"keepExisting":false}`},
		{func() error { _, err := c.Resources(ctx, ""); return err }, "GET /v1/resources "},
		{func() error { _, err := c.Resources(ctx, "Job"); return err }, "GET /v1/resources?kind=Job "},
		{func() error { _, err := c.Resource(ctx, "Job", "a/b?c"); return err }, "GET /v1/resources/Job/a%2Fb%3Fc "},
		{func() error { _, err := c.Put(ctx, "Job", "a", "x", 0); return err }, `PUT /v1/resources/Job/a {"document":"x"} If-None-Match *`},
		{func() error { _, err := c.Put(ctx, "Job", "a", "x", 7); return err }, `PUT /v1/resources/Job/a {"document":"x"} If-Match "7"`},
		{func() error { return c.Delete(ctx, "Job", "a", 7, false) }, `DELETE /v1/resources/Job/a  If-Match "7"`},
		{func() error { return c.Delete(ctx, "Job", "a", 7, true) }, `DELETE /v1/resources/Job/a?release=true  If-Match "7"`},
		{func() error { _, err := c.Bandwidth(ctx); return err }, "GET /v1/bandwidth "},
		{func() error { _, err := c.SetBandwidth(ctx, []string{"20MB/s"}, 7); return err }, `PUT /v1/bandwidth {"limits":["20MB/s"]} If-Match "7"`},
		{func() error { _, err := c.SetBandwidth(ctx, []string{}, 0); return err }, `PUT /v1/bandwidth {"limits":[]} If-Match "0"`},
		{func() error { _, err := c.ResetBandwidth(ctx, 7); return err }, `DELETE /v1/bandwidth  If-Match "7"`},
		{func() error { _, err := c.Jobs(ctx); return err }, "GET /v1/jobs "},
		{func() error { _, err := c.Job(ctx, "a"); return err }, "GET /v1/jobs/a "},
		{func() error { _, err := c.Run(ctx, "a", api.Start{Full: true}); return err }, `POST /v1/jobs/a/run {"full":true,"retry":false}`},
		{func() error { return c.Stop(ctx, "a", true) }, `POST /v1/jobs/a/stop {"now":true}`},
		{func() error { return c.Enable(ctx, "a") }, "POST /v1/jobs/a/enable "},
		{func() error { return c.Disable(ctx, "a") }, "POST /v1/jobs/a/disable "},
		{func() error { _, err := c.Explain(ctx, "a"); return err }, "GET /v1/jobs/a/explain "},
		{func() error { _, err := c.Sessions(ctx, "", 0, 10); return err }, "GET /v1/sessions?limit=10 "},
		{func() error { _, err := c.Sessions(ctx, "a", 5, 10); return err }, "GET /v1/sessions?before=5&job=a&limit=10 "},
		{func() error { _, err := c.Session(ctx, 5); return err }, "GET /v1/sessions/5 "},
		{func() error { _, err := c.Rebuild(ctx, "vault"); return err }, `POST /v1/catalog/rebuild {"repository":"vault"}`},
		{func() error { _, err := c.Adopt(ctx, "vault"); return err }, "POST /v1/targets/vault/adopt "},
		{func() error { _, err := c.Ready(ctx); return err }, "GET /health/ready "},
	} {
		if err := request.send(); err != nil || got != request.want {
			t.Errorf("%v: sent %q, not %q", err, got, request.want)
		}
	}
}

// What the server refuses is an Error with all that it says; what is no problem in its form is an error too.
func TestRefusals(t *testing.T) {
	var status int
	var media, body string
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	status, media = http.StatusConflict, api.MediaProblem
	body = `{"title":"Conflict","status":409,"code":"running","detail":"a session runs","hint":"stop it","mistakes":[{"line":3,"text":"x"}],"later":1}`
	_, err := c.Run(t.Context(), "a", api.Start{})
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != api.CodeRunning || err.Error() != "a session runs" || refusal.Hint != "stop it" || refusal.Mistakes[0].Line != 3 {
		t.Errorf("%v: %+v", err, refusal)
	}
	for _, other := range []string{"", "<html>", "{}", "null", `{"detail": 3}`} {
		status, media, body = http.StatusBadGateway, "text/html", other
		if _, err := c.Jobs(t.Context()); err == nil || errors.As(err, &refusal) || !strings.Contains(err.Error(), "502") {
			t.Errorf("%q: %v", other, err)
		}
	}
	status, media, body = http.StatusFound, "text/html", "elsewhere"
	if _, err := c.Jobs(t.Context()); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("a redirection: %v", err)
	}
	status, media, body = http.StatusOK, "application/json", `[{"name": `
	if _, err := c.Jobs(t.Context()); err == nil || !strings.Contains(err.Error(), "the server's answer") {
		t.Errorf("half an answer: %v", err)
	}
	status, body = http.StatusServiceUnavailable, `{"ok":false,"checks":["no"]}`
	if health, err := c.Ready(t.Context()); err != nil || health.OK || len(health.Checks) != 1 {
		t.Errorf("%+v, %v", health, err)
	}
	if c.Running(t.Context()) {
		t.Error("a server that does not say that it lives runs")
	}
	status, body = http.StatusOK, `{"ok":true,"checks":[]}`
	if !c.Running(t.Context()) {
		t.Error("the server runs")
	}
}

func TestNoServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "ferry")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	check := func(what string) {
		t.Helper()
		c := New(socket)
		if _, err := c.Jobs(t.Context()); !errors.Is(err, ErrNoServer) {
			t.Errorf("%s: %v", what, err)
		}
		if err := c.Follow(t.Context(), 1, nil); !errors.Is(err, ErrNoServer) {
			t.Errorf("%s, following: %v", what, err)
		}
		if c.Running(t.Context()) {
			t.Errorf("%s: it runs", what)
		}
	}
	check("no socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	check("a socket of a server that has gone")
}

func event(kind string, id int64) string {
	return fmt.Sprintf("event: %s\ndata: {\"kind\":%q,\"session\":{\"id\":%d}}\n\n", kind, kind, id)
}

// A stream that the server cuts is taken up again, until the session has ended.
func TestFollowComesBack(t *testing.T) {
	streams := []string{
		": nothing new\n\n" + event(api.EventSession, 1) + event(api.EventTask, 2),
		event(api.EventSession, 3) + "event: task\ndata: {\"ki",
		event(api.EventSession, 4) + event(api.EventEnd, 5) + event(api.EventTask, 6),
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sessions/9/events" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		_, _ = io.WriteString(w, streams[0])
		streams = streams[1:]
	})
	var heard []string
	err := c.Follow(t.Context(), 9, func(e api.Event) error {
		heard = append(heard, fmt.Sprint(e.Kind, e.Session.ID))
		return nil
	})
	if got := strings.Join(heard, " "); err != nil || got != "session1 task2 session3 session4 end5" {
		t.Errorf("%s, %v", got, err)
	}
}

// A server that takes a connection and then says nothing, or no longer anything, is not waited for without end.
func TestFollowASilentServer(t *testing.T) {
	var begins atomic.Bool
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if begins.Load() {
			_, _ = io.WriteString(w, event(api.EventSession, 1))
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	c.silence = 10 * time.Millisecond
	if err := c.Follow(t.Context(), 9, nil); !errors.Is(err, errSilent) {
		t.Errorf("it says nothing: %v", err)
	}
	begins.Store(true)
	c.silence = 200 * time.Millisecond
	if _, _, err := c.stream(t.Context(), 9, func(api.Event) error { return nil }); !errors.Is(err, errSilent) {
		t.Errorf("it says nothing more: %v", err)
	}
}

func TestFollowEnds(t *testing.T) {
	answer := func(http.ResponseWriter) {}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	stop := errors.New("enough")
	follow := func(ctx context.Context) (heard int, err error) {
		err = c.Follow(ctx, 9, func(api.Event) error {
			if heard++; heard == 3 {
				return stop
			}
			return nil
		})
		return heard, err
	}
	answer = func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, event(api.EventSession, 1)+event(api.EventTask, 2))
	}
	if heard, err := follow(t.Context()); heard != 3 || !errors.Is(err, stop) {
		t.Errorf("by the one who is told: %d, %v", heard, err)
	}
	answer = func(w http.ResponseWriter) { _, _ = io.WriteString(w, event(api.EventSession, 1)+"data: {\n\n") }
	if heard, err := follow(t.Context()); heard != 1 || err == nil {
		t.Errorf("what is no event: %d, %v", heard, err)
	}
	answer = func(http.ResponseWriter) {}
	if heard, err := follow(t.Context()); heard != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("nothing: %d, %v", heard, err)
	}
	answer = func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", api.MediaProblem)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":"not-found","detail":"session 9: not in the catalog"}`)
	}
	var refusal *Error
	if heard, err := follow(t.Context()); heard != 0 || !errors.As(err, &refusal) {
		t.Errorf("no such session: %d, %v", heard, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	answer = func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, event(api.EventSession, 1))
		cancel()
	}
	if _, err := follow(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
