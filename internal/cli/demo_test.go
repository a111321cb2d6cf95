package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ferry/internal/client"
	"ferry/internal/demo"
)

// TestDemoCommandsWork types every command that the demonstration shows, in its folder.
func TestDemoCommandsWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	cache := t.TempDir()
	recorded, err := os.ReadFile(filepath.FromSlash(recording))
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := Main([]string{"demo", "--dir", dir}, &out, &errOut); code != ExitDone || errOut.Len() > 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errOut.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) > 190 {
		t.Errorf("%d lines are too many to read", len(lines))
	}
	t.Chdir(dir)
	serveAgain(t, dir, cache)
	restored := filepath.Join(dir, "restored", "web01-latest")
	if err := os.RemoveAll(restored); err != nil {
		t.Fatal(err)
	}
	typed := 0
	for _, line := range lines {
		line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "   # ")
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "ferry" || strings.Contains(line, "/var/lib/vz") || words[1] == "serve" {
			continue
		}
		typed++
		want := ExitDone
		switch {
		case strings.Contains(line, "verify damaged"):
			want = ExitDamaged
		case strings.Contains(line, "repo init"):
			want = ExitUsage // made already
		case words[1] == "restore" && !strings.HasSuffix(line, "web01-latest") && !strings.HasPrefix(line, "ferry restore "+dir):
			want = ExitFailed // there already
		}
		var out, errOut bytes.Buffer
		if code := Main(append(words[1:], "--cache-dir", cache), &out, &errOut); code != want {
			t.Errorf("%s: exit code %d, expected %d\n%s", line, code, want, errOut.String())
		}
	}
	if typed != 27 {
		t.Errorf("%d commands were shown", typed)
	}
	checkSums(t, lines)
	checkRecording(t, lines, string(recorded), dir)
}

// serveAgain has the server of a demonstration run until the test ends, on the morning on which the story ends.
func serveAgain(t *testing.T, dir, cache string) {
	t.Helper()
	socket := filepath.Join(dir, "ferry.sock")
	t.Setenv("FERRY_SOCKET", socket)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var log bytes.Buffer
	program := (&app{cacheDir: cache}).ferry(demo.NewClock(time.Date(2026, time.January, 18, 9, 0, 0, 0, time.UTC)))
	go func() {
		ended <- program(ctx, &log, "serve", "--state", filepath.Join(dir, "state"), "--socket", socket)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	})
	for !client.New(socket).Running(ctx) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatal("the server ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// recording is what the README shows.
const recording = "../../docs/demo.txt"

// checkRecording compares the story with the one in docs, but for figures, for ids that are drawn, for how soon this machine's
// disk is full, and for what the flipped bit belongs to.
func checkRecording(t *testing.T, lines []string, content, dir string) {
	t.Helper()
	drawn, figures := regexp.MustCompile(`\b[0-9a-f]{32}\b| free; .*`), regexp.MustCompile(`\b\d[\d.,]*( [KMGTP]iB| B|ms|[smhd])?\b`)
	spaces := regexp.MustCompile(` +`)
	plain := func(lines []string) (plain []string) {
		for _, line := range lines {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "DAMAGED") && !strings.HasSuffix(line, "share the block") {
				plain = append(plain, spaces.ReplaceAllString(figures.ReplaceAllString(drawn.ReplaceAllString(line, " …"), "N"), " "))
			}
		}
		return plain
	}
	told := plain(strings.Split(strings.ReplaceAll(strings.Join(lines, "\n"), dir, "/tmp/ferry-demo"), "\n"))
	recorded := plain(strings.Split(strings.TrimSpace(content), "\n"))
	for i := range max(len(told), len(recorded)) {
		if i >= len(told) || i >= len(recorded) || told[i] != recorded[i] {
			t.Errorf("%s is of another demonstration (line %d); make it again: TZ=UTC ferry demo --dir /tmp/ferry-demo >docs/demo.txt", recording, i+1)
			return
		}
	}
}

// checkSums runs the command that compares without Ferry.
func checkSums(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		if command, _, _ := strings.Cut(line, "   # "); strings.Contains(command, "sha256sum -c") {
			output, err := exec.Command("sh", "-c", command).CombinedOutput()
			if err != nil || strings.Count(string(output), ": OK\n") != 5 {
				t.Errorf("%s: %v\n%s", command, err, output)
			}
			return
		}
	}
	t.Error("no command compares without Ferry")
}

func TestDemoWritesOnlyInItsFolder(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("TMPDIR", filepath.Join(home, "tmp"))
	if err := os.Mkdir(filepath.Join(home, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := Main([]string{"demo", "--keep=false"}, &out, &errOut); code != ExitDone || errOut.Len() > 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errOut.String())
	}
	if named := regexp.MustCompile(`(?m)^  cd (.*)$`).FindStringSubmatch(out.String()); named == nil || filepath.Dir(named[1]) != filepath.Join(home, "tmp") {
		t.Errorf("the folder is not named, or another: %q", named)
	}
	for _, folder := range []string{"", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(home, folder))
		if err != nil || len(entries) > 1 || (len(entries) == 1 && entries[0].Name() != "tmp") {
			t.Errorf("%q holds %v after --keep=false, %v", folder, entries, err)
		}
	}
}

func TestDemoAsJSON(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := Main([]string{"demo", "--json", "--keep=false", "--temp-dir", t.TempDir()}, &out, &errOut); code != ExitDone || errOut.Len() > 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errOut.String())
	}
	var summary struct {
		Folder string
		Kept   *bool
		Copies []struct {
			Command      string
			Copied       int
			AlreadyThere int
		}
		Restores []struct{ Equal bool }
		Nights   []struct {
			Boundary time.Time
			State    string
			Copied   int
		}
		Shelf struct{ Points int }
	}
	if err := json.Unmarshal(out.Bytes(), &summary); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if summary.Folder == "" || summary.Kept == nil || *summary.Kept || len(summary.Copies) != 6 || summary.Copies[3].AlreadyThere != 6 || len(summary.Restores) != 4 {
		t.Errorf("%+v", summary)
	}
	for i, night := range summary.Nights {
		if night.State != "done" || night.Copied != 2 || night.Boundary.Day() != 15+i {
			t.Errorf("%+v", night)
		}
	}
	if len(summary.Nights) != 4 || summary.Shelf.Points != 10 {
		t.Errorf("%+v", summary)
	}
}

func TestDemoRefusesAFolderInUse(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := Main([]string{"demo", "--keep=false", "--dir", dir}, &out, &errOut); code != ExitUsage || out.Len() > 0 {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

func TestDemoInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := filepath.Join(t.TempDir(), "demo")
	var out, errOut bytes.Buffer
	a := &app{out: &out, errOut: &errOut}
	err := a.demo(ctx, demoFlags{dir: dir, keep: true, ownCache: true})
	if code := a.exit(ctx, err); code != ExitInterrupted {
		t.Errorf("exit code %d, error %v", code, err)
	}
	if text := errOut.String(); !strings.Contains(text, "interrupted") || !strings.Contains(text, "what was made is in "+dir) {
		t.Errorf("said %q", text)
	}
}

// interrupter is a writer that cancels when a text was written to it.
type interrupter struct {
	bytes.Buffer
	at     string
	cancel func()
}

func (w *interrupter) Write(text []byte) (int, error) {
	if strings.Contains(string(text), w.at) {
		w.cancel()
	}
	return w.Buffer.Write(text)
}

// A demonstration that is interrupted ends its server before it ends.
func TestDemoInterruptedWhileItsServerRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := filepath.Join(t.TempDir(), "demo")
	out, errOut := &interrupter{at: "$ ferry session show", cancel: cancel}, &bytes.Buffer{}
	a := &app{out: out, errOut: errOut}
	if code := a.exit(ctx, a.demo(ctx, demoFlags{dir: dir, keep: true, ownCache: true})); code != ExitInterrupted {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	if client.New(filepath.Join(dir, "ferry.sock")).Running(context.Background()) {
		t.Error("its server goes on")
	}
	log, err := os.ReadFile(filepath.Join(dir, "server.log"))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(log)), "msg=ended") || !strings.Contains(string(log), "session left for the next server") {
		t.Errorf("%v\n%s", err, log)
	}
}
