package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/client"
)

// socketFolder is a folder with a short path: that of a test's own folder may be too long for a socket.
func socketFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// served has the server listen on a socket; stop ends it and returns what Serve did.
func (f *fixture) served(t *testing.T, path string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan struct{})
	f.Listening = func() { close(listening) }
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, path) }()
	select {
	case <-listening:
	case err := <-ended:
		cancel()
		t.Fatalf("Serve: %v", err)
	}
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestSocket(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(socketFolder(t), "run", "ferry.sock") // its folder is made
	stop := f.served(t, path)
	there, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	want := fs.FileMode(0o600)
	if group, err := user.LookupGroup(Group); err == nil && os.Geteuid() == 0 {
		want = 0o660
		if id := there.Sys().(*syscall.Stat_t).Gid; strconv.Itoa(int(id)) != group.Gid {
			t.Errorf("the socket is of group %d", id)
		}
	}
	if got := there.Mode(); got.Type() != fs.ModeSocket || got.Perm() != want {
		t.Errorf("the socket has mode %v, not %v", got, want)
	}
	if !client.New(path).Running(t.Context()) {
		t.Error("nobody answers")
	}
	other := newFixture(t)
	if err := other.Serve(t.Context(), path); !errors.Is(err, ErrRunning) {
		t.Errorf("a second server: %v", err)
	}
	if !client.New(path).Running(t.Context()) {
		t.Error("the first one no longer answers")
	}
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := other.served(t, path)(); err != nil {
		t.Errorf("the next server: %v", err)
	}
}

// The socket is opened to a group only if it could be given to it.
func TestShare(t *testing.T) {
	path := filepath.Join(socketFolder(t), "s")
	listener, err := listenPrivately(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	mode := func() fs.FileMode {
		there, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return there.Mode().Perm()
	}
	if err := share(path, "no-such-group-of-ferry"); err != nil || mode() != 0o600 {
		t.Errorf("no group: %v, mode %v", err, mode())
	}
	mine, err := user.LookupGroupId(strconv.Itoa(os.Getegid()))
	if err != nil {
		t.Skipf("the group of this process has no name: %v", err)
	}
	if err := share(path, mine.Name); err != nil || mode() != 0o660 {
		t.Errorf("a group: %v, mode %v", err, mode())
	}
}

func TestSocketOfADeadServer(t *testing.T) {
	path := filepath.Join(socketFolder(t), "s")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	f := newFixture(t)
	f.served(t, path)
	if !client.New(path).Running(t.Context()) {
		t.Error("nobody answers")
	}
}

func TestWhatIsAtTheSocketsPath(t *testing.T) {
	dir := socketFolder(t)
	path := filepath.Join(dir, "s")
	f := newFixture(t)
	serve := func() error { // where it listens after all, it ends
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f.Listening = cancel
		return f.Serve(ctx, path)
	}

	live, err := net.Listen("unix", path) // without our lock
	if err != nil {
		t.Fatal(err)
	}
	if err := serve(); !errors.Is(err, ErrRunning) {
		t.Errorf("a live socket: %v", err)
	}
	if connection, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other one's socket is gone: %v", err)
	} else {
		connection.Close()
	}
	live.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
		t.Errorf("the file: %q, %v", content, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if err := serve(); err == nil {
		t.Error("a link is followed")
	}
	if err := newFixture(t).Serve(t.Context(), filepath.Join(dir, strings.Repeat("s", 200))); err == nil || !strings.Contains(err.Error(), "is longer than 107 bytes") {
		t.Errorf("a long path: %v", err)
	}
}

// A socket that somebody else made meanwhile is not removed.
func TestSocketOfAnotherStays(t *testing.T) {
	path := filepath.Join(socketFolder(t), "s")
	f := newFixture(t)
	stop := f.served(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other one's socket: %v", err)
	}
}

// Of servers that start at once on the socket of a dead one, one goes on.
func TestServersThatStartAtOnce(t *testing.T) {
	path := filepath.Join(socketFolder(t), "s")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	const servers = 8
	begin := make(chan struct{})
	results := make(chan *socket, servers)
	for range servers {
		go func() {
			<-begin
			s, err := listen(path)
			if err != nil && !errors.Is(err, ErrRunning) {
				t.Error(err)
			}
			results <- s
		}()
	}
	close(begin)
	var won []*socket
	for range servers {
		if s := <-results; s != nil {
			won = append(won, s)
		}
	}
	if len(won) != 1 {
		t.Errorf("%d servers listen", len(won))
	}
	for _, s := range won {
		s.Close()
	}
}

// A request in progress comes to its end when the server ends; who only follows is sent away.
func TestEndOfTheServer(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(socketFolder(t), "s")
	begun, release := make(chan struct{}), make(chan struct{})
	f.scheduler.onReady = func() {
		close(begun)
		<-release
	}
	stop := f.served(t, path)
	answered := make(chan error, 1)
	go func() {
		_, err := client.New(path).Ready(context.Background())
		answered <- err
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	<-f.ending
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the request in progress: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a := f.do("GET", api.PathLive, ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d %s", a.status, a.body)
	}
}

// A request that takes longer than it may is told to stop, and Serve waits until it has.
func TestEndOfLongRequests(t *testing.T) {
	f := newFixture(t)
	f.grace = time.Millisecond
	path := filepath.Join(socketFolder(t), "s")
	begun := make(chan struct{})
	stopped := false
	f.scheduler.onExplain = func(ctx context.Context) {
		close(begun)
		<-ctx.Done()
		stopped = true
	}
	stop := f.served(t, path)
	asked := make(chan error, 1)
	go func() {
		_, err := client.New(path).Explain(context.Background(), "offsite")
		asked <- err
	}()
	<-begun
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !stopped {
		t.Error("Serve did not wait")
	}
	if err := <-asked; err == nil {
		t.Error("the request came to its end")
	}
}

// With the client and over a real socket: from applying to a conflict.
func TestClientAndServer(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(socketFolder(t), "s")
	f.served(t, path)
	c, ctx := client.New(path), t.Context()
	if _, err := c.Apply(ctx, api.Apply{Documents: threeYAML()}); err != nil {
		t.Fatal(err)
	}
	if want := "method=POST path=/v1/apply status=200 user=" + strconv.Itoa(os.Geteuid()); !strings.Contains(f.log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, f.log)
	}
	var refusal *client.Error
	if _, err := c.Apply(ctx, api.Apply{Documents: repositoryYAML("a") + "foo: 1\n"}); !errors.As(err, &refusal) || refusal.Mistakes[0].Line != 4 {
		t.Errorf("%v", err)
	}
	made, err := c.Put(ctx, "Repository", "usb", repositoryYAML("usb"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "Repository", "usb", repositoryYAML("usb"), made.Version+100); !errors.As(err, &refusal) || refusal.Code != api.CodeChanged {
		t.Errorf("%v", err)
	}
	if err := c.Delete(ctx, "Repository", "vault", 1, false); !errors.As(err, &refusal) {
		t.Errorf("%v", err)
	}
	if list, err := c.Resources(ctx, "Repository"); err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := c.Delete(ctx, "Repository", "usb", made.Version, false); err != nil {
		t.Error(err)
	}
	if jobs, err := c.Jobs(ctx); err != nil || len(jobs) != 1 {
		t.Errorf("%+v, %v", jobs, err)
	}
	if status, err := c.Status(ctx, 20); err != nil || status.Version != "test" {
		t.Errorf("%+v, %v", status, err)
	}
	if started, err := c.Run(ctx, "offsite", api.Start{}); err != nil || started.Session != 7 {
		t.Errorf("%+v, %v", started, err)
	}
	for name, call := range map[string]func() error{
		"stop": func() error { return c.Stop(ctx, "offsite", false) }, "enable": func() error { return c.Enable(ctx, "offsite") },
		"disable":  func() error { return c.Disable(ctx, "offsite") },
		"explain":  func() error { _, err := c.Explain(ctx, "offsite"); return err },
		"simulate": func() error { _, err := c.Simulate(ctx, "offsite", 5); return err },
		"rebuild":  func() error { _, err := c.Rebuild(ctx, ""); return err },
		"list":     func() error { _, err := c.Sessions(ctx, "", 0, 10); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A client that sends its body too slowly, or none of what it announced, is not waited for without end; a request that takes
// long is not cut off because of that.
func TestDeadlines(t *testing.T) {
	w := &deadlines{ResponseWriter: discard{}}
	f := newFixture(t)
	f.scheduler.onReady = func() {
		if !w.read[len(w.read)-1].IsZero() {
			t.Error("the deadline of the body stays while the request is worked on")
		}
	}
	r, err := http.NewRequest(http.MethodGet, api.PathReady, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	f.handler.ServeHTTP(w, r)
	if len(w.read) != 2 || w.read[0].Before(before) || w.read[0].After(time.Now().Add(bodyTimeout)) {
		t.Errorf("reading: %v", w.read)
	}
	if len(w.write) == 0 || w.write[0].Before(before) || w.write[0].After(time.Now().Add(writeTimeout)) {
		t.Errorf("writing: %v", w.write)
	}
	f.applied(threeYAML())
	w = &deadlines{ResponseWriter: discard{}}
	if r, err = http.NewRequest(http.MethodPost, "/v1/jobs/offsite/disable", http.NoBody); err != nil {
		t.Fatal(err)
	}
	if f.handler.ServeHTTP(w, r); len(w.write) == 0 {
		t.Error("an answer without a body has no deadline")
	}
}

// deadlines notes the deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	read, write []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.read = append(d.read, at)
	return nil
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.write = append(d.write, at)
	return nil
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
