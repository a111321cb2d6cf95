//go:build integration

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ferry/internal/vma"
)

const (
	// packLimit is the stored size at which a pack is sealed: what a kill may cost at most, for content that does not
	// compress.
	packLimit = 64 * mib
	// overhead is room for what is not content: headers of frames and packs, tree nodes, the heads of files.
	overhead = 3 * mib
)

// progressOf is how far a run is: the bytes that it has read and written so far, by the kernel's count. Moments chosen
// by it are spread over the work, however noisy the machine is. It is -1 when the run has ended.
func progressOf(r *running) int64 { return countOf(r, "rchar", "wchar") }

// countOf is the sum of some of the kernel's counts of what a run reads and writes, in bytes, or -1 when it has ended.
func countOf(r *running, names ...string) int64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", r.cmd.Process.Pid))
	if err != nil {
		return -1
	}
	total := int64(0)
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if slices.Contains(names, key) {
			n, _ := strconv.ParseInt(value, 10, 64)
			total += n
		}
	}
	return total
}

// signalAt runs ferry and sends a signal when its progress reaches at. It returns the result and the last progress seen.
func (u *user) signalAt(at int64, signal syscall.Signal, args ...string) (result, int64) {
	u.t.Helper()
	last := int64(0)
	return u.signalWhen(signal, func(r *running) bool {
		last = max(last, progressOf(r))
		return last >= at
	}, args...), last
}

// signalWhen runs ferry and sends a signal as soon as something is so, or the run has ended.
func (u *user) signalWhen(signal syscall.Signal, is func(*running) bool, args ...string) result {
	u.t.Helper()
	r := u.start(args...)
	for stop := time.Now().Add(runLimit); !is(r) && !zombie(r) && time.Now().Before(stop); {
		time.Sleep(50 * time.Microsecond)
	}
	_ = r.cmd.Process.Signal(signal) // it may have ended
	return r.wait()
}

// zombie is true if the run has ended and waits for being noticed.
func zombie(r *running) bool { return stateOf(r) == "Z" }

// stateOf is the letter that the kernel gives the state of a run: Z for one that has ended, T for one that is stopped.
func stateOf(r *running) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return "Z"
	}
	_, state, _ := strings.Cut(string(content), ") ")
	return state[:min(len(state), 1)]
}

// victim is a copy that is killed again and again.
type victim struct {
	name, from string
	options    []string
	// size of the machine's disks; onePass sources are read whole again, others are not.
	size    int64
	onePass bool
	want    map[string]string
	// length and packs of a copy that nobody kills.
	length, packs int64
}

func (v *victim) args(to string) []string {
	return append([]string{"copy", v.from, to, "--create", "--json"}, v.options...)
}

// victims makes the sources: the same content as a raw image and as two disks of an archive.
func victims(t *testing.T, size int64) []*victim {
	t.Helper()
	images, dumps := t.TempDir(), t.TempDir()
	raw := filepath.Join(images, "machine.raw")
	contentFile(t, raw, 21, size)
	sum := sumFile(t, raw)
	file, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	small := device(t, "drive-scsi1", 22, 20*mib+512)
	big := vma.DeviceContent{Name: "drive-scsi0", Size: size, Content: file}
	interleaved := func(a *vma.Archive) { a.Order = a.Interleaved() }
	dump{vmid: 300, uuid: uuidOne, name: "killed", disks: []vma.DeviceContent{big, small}, order: interleaved}.write(t, dumps)
	archived := map[string]string{"drive-scsi0": sum, "drive-scsi1": sumOf(t, small)}
	// A codec that is named: what auto takes depends on how busy the machine is, and sizes are compared.
	return []*victim{
		{name: "random access, stored as it is", from: images, options: []string{"--codec", "none"}, size: size, want: map[string]string{"machine": sum}},
		{name: "one pass", from: dumps, options: []string{"--codec", "s2"}, size: size + small.Size, onePass: true, want: archived},
		{name: "random access, compressed", from: images, options: []string{"--codec", "s2"}, size: size, want: map[string]string{"machine": sum}},
	}
}

// measure copies once without a kill.
func (v *victim) measure(t *testing.T) {
	t.Helper()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	r, length := u.signalAt(1<<62, 0, v.args(to)...)
	if r.code != 0 {
		t.Fatal(r)
	}
	v.length, v.packs = length, packBytes(t, to)
	t.Logf("%s: %d MiB read and written, %d MiB stored in %d packs, %d MiB resident",
		v.name, v.length/mib, v.packs/mib, len(treeOf(t, filepath.Join(to, "packs"))), r.peak/mib)
	small(t, r)
}

// isRepository is true if the folder got as far as being one.
func isRepository(path string) bool {
	_, err := os.Stat(filepath.Join(path, "repository.json"))
	return err == nil
}

type repositoryInfo struct {
	Points, UnfinishedCopies int
	StoredBytes              int64
}

// after checks a repository that a copy was killed over, and returns how much of it is durable, in stored bytes.
func (v *victim) after(t *testing.T, u *user, to string) int64 {
	t.Helper()
	if !isRepository(to) {
		u.want(2, "verify", to)
		return 0
	}
	checked := u.verified(to)
	if checked.PendingPacks > 2 {
		t.Errorf("%d packs are in no commit: more than one batch", checked.PendingPacks)
	}
	info := decode[repositoryInfo](t, u.want(0, "repo", "info", to, "--json"))
	points := u.points(to)
	if info.Points != len(points) || len(points) > 1 {
		t.Errorf("%d points are listed, %d are there", len(points), info.Points)
	}
	for _, p := range points {
		if p.State != "complete" || !p.Proven {
			t.Errorf("after the kill a point is %s: %s", p.State, p.Reason)
		}
		v.restores(t, u, to)
	}
	return info.StoredBytes
}

func (v *victim) restores(t *testing.T, u *user, to string) {
	t.Helper()
	stored := u.points(to)
	if len(stored) != 1 {
		t.Fatalf("%d points: %+v", len(stored), stored)
	}
	out := filepath.Join(t.TempDir(), "out")
	defer os.RemoveAll(out)
	u.want(0, "restore", to, stored[0].Machine.ID, "--to", out)
	if got := disks(sumTree(t, out)); !maps.Equal(got, v.want) {
		t.Errorf("restored %v, not %v", got, v.want)
	}
}

// killOnce kills a copy when something is so, looks at what is left, and lets the next copy finish.
func (v *victim) killOnce(t *testing.T, when func(r *running, to string) bool) (finished bool, durable int64) {
	t.Helper()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.untidy = true // a temporary file lives for an instant under a name
	defer os.RemoveAll(to)
	reached := int64(0)
	killed := u.signalWhen(syscall.SIGKILL, func(r *running) bool {
		reached = max(reached, progressOf(r))
		return when(r, to)
	}, v.args(to)...)
	finished = killed.code == 0
	durable = v.after(t, u, to)
	if t.Failed() {
		t.Fatalf("killed at %d of %d", reached, v.length)
	}
	again := decode[copyReport](t, u.want(0, v.args(to)...))
	if again.Copied+again.AlreadyThere != 1 {
		t.Fatalf("%+v", again)
	}
	if again.Copied == 1 && !v.onePass {
		resumed := again.Steps[0].ResumedBytes
		// All that was durable is taken over, and nothing of it is read again.
		if resumed < durable-overhead || again.SourceBytesRead > v.size-resumed+overhead {
			t.Errorf("killed at %d of %d with %d bytes durable: %d taken over, %d of %d read", reached, v.length, durable, resumed, again.SourceBytesRead, v.size)
		}
	}
	if total := packBytes(t, to); total > v.packs+packLimit+overhead {
		t.Errorf("killed at %d of %d with %d bytes durable: %d bytes of packs, %d without a kill", reached, v.length, durable, total, v.packs)
	}
	u.verified(to)
	v.restores(t, u, to)
	return finished, durable
}

// seeded draws the moments of a test. It logs what makes them the same again.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FERRY_E2E_SEED"); text != "" {
		fixed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = fixed
	}
	t.Logf("FERRY_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Kills at moments spread over the whole length of a copy: nothing that is listed is ever less than whole, and what was
// durable is not done again.
func TestKills(t *testing.T) {
	t.Parallel()
	kills, size := 50, 320*mib
	if testing.Short() {
		kills = 6
	}
	all := victims(t, size)
	for _, v := range all {
		v.measure(t)
	}
	moments := seeded(t)
	var ended, nothing atomic.Int64
	// The moments must be what they claim to be: kills that hit nothing prove nothing.
	t.Cleanup(func() {
		t.Logf("%d copies had ended before they were killed, %d had nothing durable", ended.Load(), nothing.Load())
		if int(ended.Load()) > kills/4 || int(nothing.Load()) > kills*2/3 {
			t.Errorf("of %d kills %d came too late and %d too early", kills, ended.Load(), nothing.Load())
		}
	})
	for i := range kills {
		v := all[i%len(all)]
		// Stratified: each victim's kills are spread evenly, at a random place of their part.
		part, parts := int64(i/len(all)), int64((kills+len(all)-1)/len(all))
		at := v.length*part/parts + moments.Int64N(v.length/parts)
		t.Run(fmt.Sprintf("%02d %s at %d%%", i, v.name, at*100/v.length), func(t *testing.T) {
			t.Parallel()
			finished, durable := v.killOnce(t, func(r *running, _ string) bool { return progressOf(r) >= at })
			if finished {
				ended.Add(1)
			} else if durable == 0 {
				nothing.Add(1)
			}
		})
	}
	for i, folder := range []string{"log", "packs", "packs", "partials", "index", "points", "log", "log", "log"} {
		v := all[i%2]
		t.Run(fmt.Sprintf("at %d of %s, %s", 1+i, folder, v.name), func(t *testing.T) {
			t.Parallel()
			if testing.Short() && i%3 > 0 {
				t.Skip("short")
			}
			// When a commit shows its first sign: between what a log entry names and the entry, and just behind it.
			least := map[string]int{"packs": i, "log": max(1, i-3)}[folder]
			v.killOnce(t, func(_ *running, to string) bool { return filesIn(filepath.Join(to, folder)) >= max(least, 1) })
		})
	}
}

// filesIn counts the files below a folder of at most two levels, while they come and go.
func filesIn(folder string) int {
	count := 0
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if !entry.IsDir() {
			count++
			continue
		}
		below, _ := os.ReadDir(filepath.Join(folder, entry.Name()))
		count += len(below)
	}
	return count
}

// Kills while a chain of increments is copied, from its folder and from another repository: what is listed at any time is
// whole, however little that is, and the end is the same as without kills.
func TestKillsOfIncrements(t *testing.T) {
	t.Parallel()
	kills := 28
	if testing.Short() {
		kills = 8
	}
	origin, want := golden(t, "virtnbdbackup"), virtnbdbackupDisks(t)
	first, u := filepath.Join(t.TempDir(), "first"), newUser(t)
	u.copied(origin, first, "--all", "--create")
	offered := ids(u.points(first))
	moments, partly := seeded(t), 0
	for i := range kills {
		from, u, to := []string{origin, first}[i%2], newUser(t), filepath.Join(t.TempDir(), "vault")
		u.untidy = true
		// The work is small and its commits are many: so many of them, and then some bytes more.
		entries, more, reached := 1+i/2%7, moments.Int64N(2*mib), int64(0)
		what := fmt.Sprintf("kill %d, %d bytes after %d log entries", i, more, entries)
		u.signalWhen(syscall.SIGKILL, func(r *running) bool {
			if reached == 0 && filesIn(filepath.Join(to, "log")) >= entries {
				reached = progressOf(r)
			}
			return reached != 0 && progressOf(r) >= reached+more
		}, "copy", from, to, "--all", "--create")
		if isRepository(to) {
			u.verified(to)
			stored := u.points(to)
			if got := ids(stored); !slices.Equal(got, offered[:len(got)]) {
				t.Errorf("%s: points %v are no beginning of %v", what, got, offered)
			}
			if len(stored) > 0 {
				partly++
				last := len(stored) - 1
				if got := disks(u.restored(to, stored[last])); !maps.Equal(got, want[last]) {
					t.Errorf("%s: point %d has disks %v, not %v", what, last, got, want[last])
				}
			}
		}
		u.copied(from, to, "--all", "--create")
		u.verified(to)
		stored := u.points(to)
		if got := ids(stored); !slices.Equal(got, offered) {
			t.Errorf("%s: at the end points %v, not %v", what, got, offered)
			continue
		}
		if n := moments.IntN(len(stored)); !maps.Equal(disks(u.restored(to, stored[n])), want[n]) {
			t.Errorf("%s: at the end point %d is wrong", what, n)
		}
		os.RemoveAll(to)
	}
	t.Logf("%d of %d kills found points", partly, kills)
	if partly == 0 {
		t.Error("no kill left points behind")
	}
}
