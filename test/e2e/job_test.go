//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"ferry/internal/vma"
)

type sessionReport struct {
	Result string
	Target struct{ State, Reason string }
	Phases []struct {
		Name, State, Reason string
		Counts              map[string]int64
	}
	Tasks []struct {
		Machine struct{ ID, Name string }
		State   string
		Points  []sessionPoint
	}
}

// made is true if retention and reclaim ran for a reason, and well.
func (s sessionReport) made(reason string) bool {
	for _, p := range s.Phases {
		if p.Name == "transform" && p.Reason == reason && p.State == "done" {
			return true
		}
	}
	return false
}

type sessionPoint struct {
	Point, Action, Outcome           string
	ReadBytes, NewBytes, StoredBytes int64
}

// did counts the points of a session with an action that came about.
func (s sessionReport) did(action string) (points []string) {
	for _, task := range s.Tasks {
		for _, p := range task.Points {
			if p.Action == action && p.Outcome == "copied" {
				points = append(points, p.Point)
			}
		}
	}
	return points
}

// copies are the points that a session copied, by id.
func (s sessionReport) copies() map[string]sessionPoint {
	copies := map[string]sessionPoint{}
	for _, task := range s.Tasks {
		for _, p := range task.Points {
			if p.Action == "copy" && p.Outcome == "copied" {
				copies[p.Point] = p
			}
		}
	}
	return copies
}

type explanation struct {
	Machines []struct {
		Points []struct{ Point, Action string }
	}
}

func (e explanation) steps(action string) (points []string) {
	for _, m := range e.Machines {
		for _, p := range m.Points {
			if p.Action == action {
				points = append(points, p.Point)
			}
		}
	}
	return points
}

// jobOver writes a job over the samples of vzdump and virtnbdbackup, and returns its file and the target.
func jobOver(t *testing.T, retention string) (file, target string) {
	t.Helper()
	folder := t.TempDir()
	file, target = filepath.Join(folder, "job.yaml"), filepath.Join(folder, "vault")
	text := fmt.Sprintf(`{kind: Repository, name: pve, location: %q}
---
{kind: Repository, name: chains, location: %q}
---
{kind: Repository, name: vault, location: vault}
---
kind: Job
name: offsite
source: {repositories: [pve, chains]}
target: {repository: vault}
backfill: all
retention: %s
`, golden(t, "vzdump"), golden(t, "virtnbdbackup"), retention)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, target
}

// lives runs a job and compares it, item by item, with what explain has said before.
func (u *user) lives(file string) sessionReport {
	u.t.Helper()
	promised := decode[explanation](u.t, u.want(0, "job", "explain", "-f", file, "--json"))
	session := decode[sessionReport](u.t, u.want(0, "job", "run", "--once", "-f", file, "--json"))
	for _, action := range []string{"copy", "remove"} {
		if did, said := sorted(session.did(action)), sorted(promised.steps(action)); !slices.Equal(did, said) {
			u.t.Errorf("%s: did %v, explain said %v", action, did, said)
		}
	}
	if session.Result != "done" {
		u.t.Errorf("%+v", session)
	}
	return session
}

func restoresAll(t *testing.T, u *user, target string, want []map[string]string) {
	t.Helper()
	var got []string
	for _, p := range u.points(target) {
		got = append(got, fmt.Sprint(disks(u.restored(target, p))))
	}
	var expected []string
	for _, disks := range want {
		expected = append(expected, fmt.Sprint(disks))
	}
	if !slices.Equal(sorted(got), sorted(expected)) {
		t.Errorf("restored %v, not %v", got, expected)
	}
}

// A job over a vzdump folder and the chains of virtnbdbackup: every point is copied as it is; the second time nothing is;
// rules that are narrowed remove what explain has said, and what is left can be restored.
func TestJob(t *testing.T) {
	t.Parallel()
	want := slices.Concat(vzdumpDisks(t), virtnbdbackupDisks(t))
	file, target := jobOver(t, "{days: 14}")
	u := newUser(t)
	u.want(1, "job", "run", "--once", "-f", file) // the disk is not mounted
	if _, err := os.Stat(target); err == nil {
		t.Fatal("a job has made a repository")
	}
	u.want(0, "repo", "init", target)
	if copied := u.lives(file).did("copy"); len(copied) != len(want) {
		t.Errorf("%d copied, not %d", len(copied), len(want))
	}
	u.verified(target)
	restoresAll(t, u, target, want)
	packs := sumTree(t, filepath.Join(target, "packs"))
	if session := u.lives(file); len(session.did("copy")) > 0 || !maps.Equal(packs, sumTree(t, filepath.Join(target, "packs"))) {
		t.Errorf("the second time: %+v", session)
	}
	narrow, _ := jobOver(t, "{points: 2}")
	content, err := os.ReadFile(narrow)
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if removed := u.lives(file).did("remove"); len(removed) != len(want)-4 {
		t.Errorf("%d removed, not %d", len(removed), len(want)-4)
	}
	u.verified(target)
	restoresAll(t, u, target, slices.Concat(want[1:3], want[len(want)-2:]))
	u.lives(file)
}

// Killed anywhere and run again, a job ends where it would have ended: every point is there once, and right.
func TestJobKilled(t *testing.T) {
	t.Parallel()
	want := slices.Concat(vzdumpDisks(t), virtnbdbackupDisks(t))
	file, target := jobOver(t, "{days: 14}")
	u := newUser(t)
	u.want(0, "repo", "init", target)
	_, length := u.signalAt(1<<62, 0, "job", "run", "--once", "-f", file)
	kills := 12
	if testing.Short() {
		kills = 4
	}
	interrupted := 0
	for k := range kills {
		file, target := jobOver(t, "{days: 14}")
		u := newUser(t)
		u.untidy = true // a temporary file lives for an instant under a name
		u.want(0, "repo", "init", target)
		killed, _ := u.signalAt(length*int64(k+1)/int64(kills+1), syscall.SIGKILL, "job", "run", "--once", "-f", file)
		if killed.code != 0 {
			interrupted++
		}
		u.verified(target)
		u.lives(file)
		u.verified(target)
		if stored := u.points(target); len(stored) != len(want) {
			t.Errorf("kill %d: %d points, not %d", k, len(stored), len(want))
		}
		if k%4 == 0 {
			restoresAll(t, u, target, want)
		}
		if session := u.lives(file); len(session.did("copy")) > 0 {
			t.Errorf("kill %d: copied again: %+v", k, session)
		}
	}
	if interrupted < kills/2 {
		t.Errorf("only %d of %d runs were killed before their end", interrupted, kills)
	}
}

// A target that is full, read only, not mounted, or another one: each a state with a name. Nothing is made where it was and
// nothing removed, and it goes on without hands when the trouble is over.
func TestJobTargetStates(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 200*mib)
	images := t.TempDir()
	contentFile(t, filepath.Join(images, "machine.raw"), 31, 100*mib)
	file := filepath.Join(t.TempDir(), "job.yaml")
	describe := func(id string) {
		text := fmt.Sprintf("{kind: Repository, name: images, location: %q}\n---\n{kind: Repository, name: vault, location: %q, id: %q}\n---\n"+
			"{kind: Job, name: offsite, source: {repositories: [images]}, target: {repository: vault}}\n", images, filepath.Join(disk, "vault"), id)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u := newUser(t)
	made := decode[struct{ ID string }](t, u.want(0, "repo", "init", filepath.Join(disk, "vault"), "--json"))
	describe(made.ID)
	is := func(code int, state string) {
		t.Helper()
		session := decode[sessionReport](t, u.want(code, "job", "run", "--once", "-f", file, "--json"))
		if session.Target.State != state || (session.Target.Reason == "") != (state == "ready") {
			t.Errorf("%+v, not %s", session.Target, state)
		}
	}
	mounted := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", append(args, disk)...).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
	}
	taken := filler(t, disk, 120*mib)
	is(1, "full")
	u.verified(filepath.Join(disk, "vault"))
	if err := os.Remove(taken); err != nil {
		t.Fatal(err)
	}
	mounted("-o", "remount,ro")
	is(1, "read only")
	mounted("-o", "remount,rw")
	is(0, "ready")
	u.verified(filepath.Join(disk, "vault"))
	if points := u.points(filepath.Join(disk, "vault")); len(points) != 1 {
		t.Errorf("%d points", len(points))
	}
	// Another file system over the disk: as if it were not mounted, then as if another disk were.
	mount(t, disk, "-t", "tmpfs", "none")
	is(1, "offline")
	if there := treeOf(t, disk); len(there) > 0 {
		t.Errorf("made where the disk was: %v", there)
	}
	u.want(0, "repo", "init", filepath.Join(disk, "vault"))
	is(2, "another repository")
	if points := u.points(filepath.Join(disk, "vault")); len(points) != 0 {
		t.Errorf("%d points in another repository", len(points))
	}
}

// A machine whose backup is being written waits, the other one is finished meanwhile, and the first is copied in the same
// session once vzdump has given its file its name.
func TestJobWaitsForALock(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a session looks again after a minute")
	}
	dumps := t.TempDir()
	one, two := device(t, "drive-scsi0", 41, 2*mib), device(t, "drive-scsi0", 42, 2*mib)
	busy := func(day int) dump {
		return dump{vmid: 401, uuid: uuidOne, name: "busy", day: day, disks: []vma.DeviceContent{one}}
	}
	busy(0).write(t, dumps)
	dump{vmid: 402, uuid: uuidTwo, name: "idle", disks: []vma.DeviceContent{two}}.write(t, dumps)
	final := busy(1).write(t, dumps)
	running := filepath.Join(dumps, "vzdump-qemu-401-"+sourceTime.AddDate(0, 0, 1).Format("2006_01_02-15_04_05")+".vma.dat")
	now := time.Now()
	if err := errors.Join(os.Rename(final, running), os.Chtimes(running, now, now)); err != nil {
		t.Fatal(err)
	}
	file, target := filepath.Join(t.TempDir(), "job.yaml"), filepath.Join(t.TempDir(), "vault")
	text := fmt.Sprintf("{kind: Repository, name: pve, location: %q}\n---\n{kind: Repository, name: vault, location: %q}\n---\n"+
		"{kind: Job, name: offsite, source: {repositories: [pve]}, target: {repository: vault}}\n", dumps, target)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	u := newUser(t)
	u.want(0, "repo", "init", target)
	r := u.start("job", "run", "--once", "-f", file, "--wait", "10m", "--json")
	for stop := time.Now().Add(runLimit); len(u.points(target)) == 0 && time.Now().Before(stop) && !zombie(r); {
		time.Sleep(50 * time.Millisecond)
	}
	if stored := u.points(target); len(stored) != 1 || stored[0].Machine.Name != "idle" {
		t.Errorf("while one is locked: %+v", stored)
	}
	if err := os.Rename(running, final); err != nil {
		t.Fatal(err)
	}
	ended := r.wait()
	if session := decode[sessionReport](t, ended); ended.code != 0 || session.Result != "done" || len(session.did("copy")) != 2 {
		t.Errorf("exit %d: %+v", ended.code, session)
	}
	stored := u.points(target)
	if len(stored) != 2 || !stored[1].Created.Equal(sourceTime.AddDate(0, 0, 1)) && !stored[0].Created.Equal(sourceTime.AddDate(0, 0, 1)) {
		t.Errorf("%+v", stored)
	}
}
