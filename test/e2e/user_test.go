//go:build integration

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// user is someone who runs ferry: with a cache and a temporary folder of their own, so that tests neither see each
// other nor what the person who runs them has.
type user struct {
	t     *testing.T
	cache string
	temp  string
	// untidy users' temporary folder is not looked into.
	untidy bool
	// env is set for the program beside this process's own.
	env []string
}

func newUser(t *testing.T) *user {
	t.Helper()
	u := &user{t: t, cache: t.TempDir(), temp: t.TempDir()}
	// Temporary files that stay behind are a defect wherever they come from: an interrupted run, a hostile file, a kill.
	t.Cleanup(func() {
		if left := treeOf(t, u.temp); len(left) > 0 && !u.untidy {
			t.Errorf("left in the temporary folder: %v", left)
		}
	})
	return u
}

// result is one finished run.
type result struct {
	args     []string
	code     int
	out, err string
	// peak is the largest resident memory in bytes.
	peak int64
}

func (r result) String() string {
	return "ferry " + strings.Join(r.args, " ") + "\n" + r.out + r.err
}

// runLimit ends a run that hangs.
const runLimit = 5 * time.Minute

func (u *user) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+u.cache, "TMPDIR="+u.temp, "TERM=dumb")
	cmd.Env = append(cmd.Env, u.env...)
	return cmd
}

// run runs ferry to its end.
func (u *user) run(args ...string) result {
	u.t.Helper()
	running := u.start(args...)
	return running.wait()
}

// running is a run that has not ended yet.
type running struct {
	user     *user
	cmd      *exec.Cmd
	out, err bytes.Buffer
	limit    *time.Timer
	started  time.Time
}

func (u *user) start(args ...string) *running {
	u.t.Helper()
	r := &running{user: u, cmd: u.command(args...), started: time.Now()}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	r.limit = time.AfterFunc(runLimit, func() { _ = r.cmd.Process.Signal(syscall.SIGQUIT) })
	return r
}

func (r *running) wait() result {
	r.user.t.Helper()
	err := r.cmd.Wait()
	r.limit.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.user.t.Fatal(err)
	}
	got := result{args: r.cmd.Args[1:], code: r.cmd.ProcessState.ExitCode(), out: r.out.String(), err: r.err.String()}
	if usage, ok := r.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		got.peak = usage.Maxrss << 10
	}
	if strings.Contains(got.err, "goroutine ") {
		r.user.t.Fatalf("crashed or hung: %v", got)
	}
	return got
}

// want runs ferry and stops the test unless it ends with the code.
func (u *user) want(code int, args ...string) result {
	u.t.Helper()
	r := u.run(args...)
	if r.code != code {
		u.t.Fatalf("exit %d, not %d: %v", r.code, code, r)
	}
	return r
}

// pointInfo is a point in --json; restoring and listing have the same.
type pointInfo struct {
	ID      string
	Machine struct{ ID, Name, Platform string }
	Created time.Time
	State   string
	Proven  bool
	Reason  string
	Disks   []struct {
		Name, Role string
		Size       int64
	}
	Origin struct{ Format, Source, Location string }
	Hops   []struct{ Repository string }
}

// copyReport is what ferry copy --json prints.
type copyReport struct {
	UnknownFiles int
	Steps        []struct {
		Point                      string
		Machine                    struct{ ID, Name string }
		Action, Reason             string
		Outcome, Error, Hint, Base string
		LogicalBytes, ReadBytes    int64
		ResumedBytes, StoredBytes  int64
		NewBlocks, NewBytes        int64
	}
	Copied, AlreadyThere, Failed int
	SourceBytesRead, StoredBytes int64
	Packs                        int
}

// verifyReport is what ferry verify --json prints.
type verifyReport struct {
	LogEntries, Packs, Points, PendingPacks int
	Bytes                                   int64
	Damage                                  []struct{ Machine, Point, Object, File, Reason string }
}

func decode[T any](t *testing.T, r result) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(r.out), &value); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return value
}

// points lists a source or a repository.
func (u *user) points(location string, options ...string) []pointInfo {
	u.t.Helper()
	r := u.want(0, append([]string{"points", location, "--json"}, options...)...)
	return decode[struct{ Points []pointInfo }](u.t, r).Points
}

// ids of the points, in the order of the listing.
func ids(points []pointInfo) []string {
	list := []string{}
	for _, p := range points {
		list = append(list, p.ID)
	}
	return list
}

// copied copies, and stops the test unless that ends with exit code 0.
func (u *user) copied(from, to string, options ...string) copyReport {
	u.t.Helper()
	return decode[copyReport](u.t, u.want(0, append([]string{"copy", from, to, "--json"}, options...)...))
}

// verified verifies, and stops the test if anything is damaged.
func (u *user) verified(repository string) verifyReport {
	u.t.Helper()
	return decode[verifyReport](u.t, u.want(0, "verify", repository, "--json"))
}

// restored restores a point and returns the SHA-256 of each file, by its path. restore.json is left out.
func (u *user) restored(repository string, p pointInfo) map[string]string {
	u.t.Helper()
	to := filepath.Join(u.t.TempDir(), "restored")
	defer os.RemoveAll(to) // a test restores many
	r := u.want(0, "restore", repository, p.Machine.ID, "--point", p.ID, "--to", to, "--sha256", "--json")
	files := decode[struct {
		Files []struct{ Path, SHA256 string }
	}](u.t, r).Files
	sums := sumTree(u.t, to)
	if sums["restore.json"] == "" {
		u.t.Errorf("no restore.json: %v", r)
	}
	delete(sums, "restore.json")
	said := map[string]string{}
	for _, f := range files {
		said[f.Path] = f.SHA256
	}
	if !maps.Equal(said, sums) {
		u.t.Errorf("the files restored are %v, and ferry says %v", sums, said)
	}
	return sums
}

// disks of a restored point: sums by disk name.
func disks(sums map[string]string) map[string]string {
	found := map[string]string{}
	for path, sum := range sums {
		if name, ok := strings.CutSuffix(path, ".raw"); ok {
			found[name] = sum
		}
	}
	return found
}

func sumFile(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// treeOf lists the regular files below a folder, relative to it.
func treeOf(t *testing.T, folder string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while looking, or never made
		}
		if err == nil && entry.Type().IsRegular() {
			name, _ := filepath.Rel(folder, path)
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sumTree is the SHA-256 of every file below a folder.
func sumTree(t *testing.T, folder string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, name := range treeOf(t, folder) {
		sums[name] = sumFile(t, filepath.Join(folder, name))
	}
	return sums
}

// packBytes is what lies in a repository's packs folder.
func packBytes(t *testing.T, repository string) int64 {
	t.Helper()
	return bytesOf(t, filepath.Join(repository, "packs"))
}

// bytesOf is what the files below a folder take, while they come and go.
func bytesOf(t *testing.T, folder string) (total int64) {
	t.Helper()
	for _, name := range treeOf(t, folder) {
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil {
			total += info.Size()
		}
	}
	return total
}

// readSums reads a file of SHA-256 sums: "sum  name" in each line.
func readSums(t *testing.T, path string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			sums[filepath.Base(name)] = sum
		}
	}
	return sums
}

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
)

// mentions fails the test unless text has every word.
func mentions(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("does not say %q:\n%s", word, text)
		}
	}
}
