//go:build integration

package s3

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// meter is a TCP proxy in front of a server that counts what passes, and breaks the first connections that have sent so much, up to a number.
type meter struct {
	net.Listener
	server string
	// breakAfter is in bytes; 0: no connection is broken.
	breakAfter int64
	// sent is what came from clients, received what went to them, in bytes.
	sent, received, broken atomic.Int64
	samples                []sample
	work                   sync.WaitGroup
}

// mostBroken is how many connections are broken at most. What is sent is more than as many parts of an upload, each of which is sent on
// one connection.
const mostBroken = 2

// sample is how much had passed at a moment between two times.
type sample struct {
	before, after  time.Time
	sent, received int64
}

// newMeter starts a meter, which counts until the test ends.
func newMeter(t *testing.T, server string, breakAfter int64) *meter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{Listener: listener, server: server, breakAfter: breakAfter}
	m.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			m.work.Go(func() { m.serve(client.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		m.work.Wait()
	})
	return m
}

// serve hands on what a connection sends, and counts it as it comes: a server that takes nothing for a while must not have it wait where
// it is sent, whence all would come at once, and be counted then.
func (m *meter) serve(client *net.TCPConn) {
	defer client.Close()
	_ = client.SetReadBuffer(64 << 10) // what waits here is counted late, or early
	_ = client.SetWriteBuffer(4 << 10)
	upstream, err := net.Dial("tcp", m.server)
	if err != nil {
		return
	}
	defer upstream.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(counting{client, &m.received}, upstream)
		_ = client.CloseWrite()
	})
	onward := make(chan []byte, 1<<16) // of this nothing waits for the server
	var forth sync.WaitGroup
	forth.Go(func() {
		for some := range onward {
			if _, err := upstream.Write(some); err != nil {
				client.Close() // and the rest goes nowhere
			}
		}
	})
	to := counting{handing(onward), &m.sent}
	if n, err := io.CopyN(to, client, m.breakAfter); err == nil && n > 0 && m.broken.Add(1) <= mostBroken {
		_ = client.SetLinger(0)
		client.Close()
	} else if err == nil {
		_, _ = io.Copy(to, client)
	}
	close(onward)
	forth.Wait()
	upstream.Close()
	back.Wait()
}

// handing is a writer that gives a copy of what is written to whoever receives.
type handing chan<- []byte

func (h handing) Write(p []byte) (int, error) {
	h <- bytes.Clone(p)
	return len(p), nil
}

// counting counts what is written.
type counting struct {
	io.Writer
	sum *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.sum.Add(int64(n))
	return n, err
}

// location of a repository in a bucket, through the meter.
func (m *meter) location(bucket string) string {
	return "s3+http://" + m.Addr().String() + "/" + bucket + "/vault"
}

// watch samples what passes meters until is is closed.
func watch(is <-chan struct{}, meters ...*meter) {
	for {
		for _, m := range meters {
			s := sample{before: time.Now(), sent: m.sent.Load(), received: m.received.Load()}
			s.after = time.Now()
			m.samples = append(m.samples, s)
		}
		select {
		case <-is:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// most is the most that passed within a time, of what of gives of a sample. What was counted since a sample may have come since the one before
// it: a busy machine lets nobody run for a while, and who counts runs behind who looks.
func most(samples []sample, within time.Duration, of func(sample) int64) (passed int64) {
	for i, first := range samples {
		since := samples[max(i-1, 0)].before
		for _, s := range samples[i:] {
			if s.after.Sub(since) > within {
				break
			}
			passed = max(passed, of(s)-of(first))
		}
	}
	return passed
}

func sent(s sample) int64     { return s.sent }
func received(s sample) int64 { return s.received }

// together is what passed two meters that were watched together.
func together(a, b *meter) []sample {
	var sum []sample
	for i, s := range a.samples {
		sum = append(sum, sample{s.before, b.samples[i].after, s.sent + b.samples[i].sent, s.received + b.samples[i].received})
	}
	return sum
}

// keeps fails unless at most a limit's bytes, and a twentieth, passed in any ten seconds; and at least half of them once, so that
// it was the limit that was kept to.
func keeps(t *testing.T, what string, samples []sample, of func(sample) int64, rate int64) {
	t.Helper()
	got := most(samples, 10*time.Second, of)
	t.Logf("%s: at most %.3f of the limit in ten seconds", what, float64(got)/10/float64(rate))
	if got > 10*rate*105/100 || got < 10*rate/2 {
		t.Errorf("%s: %d bytes in ten seconds, the limit is %d", what, got, 10*rate)
	}
}

// served is a running ferry serve.
type served struct {
	*machine
	socket string
}

func serve(t *testing.T, args ...string) *served {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	s := &served{newMachine(t), filepath.Join(folder, "socket")}
	command := exec.Command(file, append([]string{"serve", "--state", filepath.Join(folder, "state"), "--socket", s.socket, "--cache-dir", s.cache}, args...)...)
	said, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		said.Close()
		if log, err := os.ReadFile(said.Name()); t.Failed() && err == nil {
			t.Logf("%s", log)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if connection, err := net.Dial("unix", s.socket); err == nil {
			connection.Close()
			return s
		}
		if time.Now().After(end) {
			t.Fatal("the server does not answer")
		}
	}
}

// apply gives resources to the server.
func (s *served) apply(documents ...string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "resources.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run(0, "apply", "-f", file, "--socket", s.socket)
}

// jobs runs jobs at once until all have ended well, and watches meters meanwhile.
func (s *served) jobs(names []string, meters ...*meter) {
	s.t.Helper()
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { watch(ended, meters...) })
	for _, name := range names {
		s.run(0, "job", "run", name, "--detach", "--socket", s.socket)
	}
	for _, name := range names {
		s.run(0, "session", "follow", name, "--socket", s.socket)
	}
	close(ended)
	watching.Wait()
}

func repositoryOf(name, location, limit string) string {
	return fmt.Sprintf("{kind: Repository, name: %s, location: %q, bandwidth: %s}", name, location, limit)
}

func jobOf(name, source, target, limit string) string {
	return fmt.Sprintf("{kind: Job, name: %s, source: {repositories: [%s]}, target: {repository: %s}, schedule: {mode: manual}, bandwidth: %s}", name, source, target, limit)
}

const mib = 1 << 20

// takesLong marks a test of half a minute in which little is worked.
func takesLong(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
}

// Limits of a job and of the server in all, on the wire, while two jobs copy into buckets at once and requests of one go wrong.
func TestLimitsOfJobsAndInAll(t *testing.T) {
	takesLong(t)
	faulty := newProxy(t, every(11))
	slow, fast := newMeter(t, faulty.Listener.Addr().String(), 3*mib), newMeter(t, shared.address, 0)
	s := serve(t, "--bandwidth", "8MiB/s")
	vaults := map[string]string{"slow": slow.location(shared.bucket(t, plain)), "fast": fast.location(shared.bucket(t, plain))}
	limits := map[string]string{"slow": "[{limit: 4MiB/s}]", "fast": "[]"}
	var documents []string
	for i, name := range []string{"slow", "fast"} {
		s.run(0, "repo", "init", vaults[name])
		source := disks(t, []int64{56 * mib, 104 * mib}[i], name)
		documents = append(documents, repositoryOf(name+"-src", source, "[]"), repositoryOf(name, vaults[name], "[]"), jobOf(name, name+"-src", name, limits[name]))
	}
	s.apply(documents...)
	s.jobs([]string{"slow", "fast"}, slow, fast)
	keeps(t, "the job", slow.samples, sent, 4*mib)
	keeps(t, "in all", together(slow, fast), sent, 8*mib)
	if slow.broken.Load() < mostBroken || faulty.faults.Load() < 2 {
		t.Errorf("%d connections broke, %d requests went wrong", slow.broken.Load(), faulty.faults.Load())
	}
	if again := slow.sent.Load() - 42*mib; again < 2*mib { // a quarter of the machine is zeros
		t.Errorf("only %d bytes were sent again", again)
	}
	for name, vault := range vaults {
		s.run(0, "verify", vault)
		if points, _ := s.run(0, "points", vault); !strings.Contains(points, name) {
			t.Errorf("%s: %s", name, points)
		}
	}
}

// The limit of a repository holds for two jobs together whose target it is.
func TestLimitOfTarget(t *testing.T) {
	takesLong(t)
	written := newMeter(t, shared.address, 0)
	s := serve(t)
	vault := written.location(shared.bucket(t, plain))
	s.run(0, "repo", "init", vault)
	source := disks(t, 120*mib, "one", "two")
	s.apply(repositoryOf("images", source, "[]"), repositoryOf("vault", vault, "[{limit: 9MiB/s}]"),
		strings.Replace(jobOf("a", "images", "vault", "[]"), "target:", "select: {include: [one]}, target:", 1),
		strings.Replace(jobOf("b", "images", "vault", "[]"), "target:", "select: {include: [two]}, target:", 1))
	s.jobs([]string{"a", "b"}, written)
	keeps(t, "the target", written.samples, sent, 9*mib)
}

// A session in progress keeps to a limit from when it is changed: its job's by applying that, and that of all jobs together by ferry
// bandwidth, on the wire.
func TestLimitsAreChangedWhileASessionRuns(t *testing.T) {
	takesLong(t)
	written := newMeter(t, shared.address, 0)
	s := serve(t, "--bandwidth", "24MiB/s")
	vault := written.location(shared.bucket(t, plain))
	s.run(0, "repo", "init", vault)
	source := disks(t, 360*mib, "one")
	resources := func(limit string) []string {
		return []string{repositoryOf("images", source, "[]"), repositoryOf("vault", vault, "[]"), jobOf("offsite", "images", "vault", limit)}
	}
	// passed is what is sent in five seconds and more, after what was under way. A busy machine may look later than it was to.
	passed := func() (bytes int64, in time.Duration) {
		time.Sleep(2 * time.Second)
		began, before := time.Now(), written.sent.Load()
		time.Sleep(5 * time.Second)
		return written.sent.Load() - before, time.Since(began)
	}
	const slow = 2 * mib
	s.apply(resources("[{limit: 16MiB/s}]")...)
	s.run(0, "job", "run", "offsite", "--detach", "--socket", s.socket)
	for end := time.Now().Add(time.Minute); written.sent.Load() < 16*mib; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes were sent in a minute", written.sent.Load())
		}
	}
	for _, c := range []struct {
		what            string
		slowed, hurried func()
	}{
		{"the job", func() { s.apply(resources("[{limit: 2MiB/s}]")...) }, func() { s.apply(resources("[]")...) }},
		{"in all", func() { s.run(0, "bandwidth", "2MiB/s", "--socket", s.socket) }, func() { s.run(0, "bandwidth", "none", "--socket", s.socket) }},
	} {
		c.slowed()
		got, in := passed()
		t.Logf("%s: %.3f of the limit", c.what, float64(got)/in.Seconds()/slow)
		if most := in.Seconds() * slow * 1.1; float64(got) > most || got < 5*slow/2 {
			t.Errorf("%s: %d bytes in %s, the limit is %d a second", c.what, got, in, int64(slow))
		}
		c.hurried()
		if c.what == "the job" { // else it may be at its end
			got, in := passed()
			for tries := 1; float64(got) < 2*in.Seconds()*slow && tries < 5; tries++ { // a busy machine may be as slow for a while
				got, in = passed()
			}
			if float64(got) < 2*in.Seconds()*slow {
				t.Errorf("%s: %d bytes in %s without its limit", c.what, got, in)
			}
		}
	}
	s.run(0, "session", "follow", "offsite", "--socket", s.socket)
	s.run(0, "verify", vault)
}

// The limit of a bucket that two jobs read from holds for both together, though what is sent here comes before it is read.
func TestLimitOfSource(t *testing.T) {
	takesLong(t)
	s := serve(t)
	bucket := shared.bucket(t, plain)
	s.run(0, "copy", disks(t, 120*mib, "one", "two"), shared.location(bucket), "--create")
	read := newMeter(t, strings.TrimPrefix(newProxy(t, every(13)).URL, "http://"), 0)
	var documents []string
	for name, machine := range map[string]string{"c": "one", "d": "two"} {
		folder := filepath.Join(t.TempDir(), "vault")
		s.run(0, "repo", "init", folder)
		documents = append(documents, repositoryOf(name, folder, "[]"), strings.Replace(jobOf(name, "far", name, "[]"), "target:", "select: {include: ["+machine+"]}, target:", 1))
	}
	s.apply(append(documents, repositoryOf("far", read.location(bucket), "[{limit: 12MiB/s}]"))...)
	s.jobs([]string{"c", "d"}, read)
	keeps(t, "the source", read.samples, received, 12*mib)
}
