//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// trouble is a job's source or target that is not as it was, for a while.
type trouble struct {
	// name of the job; of is target or source, state what that is found to be, and hint what else a person is told.
	name, of, state, hint string
	// prepare is what is done before anything is there; nil: nothing.
	prepare func(source, vault string) error
	// begin brings it about, and end is when it is over.
	begin, end func(source, vault string) error
}

// repository is the one that is not ready, and waits how it begins what its job says that it waits for.
func (of trouble) repository() (name, waits string) {
	if of.of == "target" {
		return of.name, fmt.Sprintf("target %s: ", of.state)
	}
	return of.name + "-src", fmt.Sprintf("source %s-src is %s: ", of.name, of.state)
}

// disk is a file system in a file, which can be mounted again.
type disk struct {
	t     *testing.T
	image string
}

func newDisk(t *testing.T, size int64) *disk {
	t.Helper()
	d := &disk{t, filepath.Join(t.TempDir(), "image")}
	if err := errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, size)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) format(folder string) error {
	if err := said(exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image)); err != nil {
		return err
	}
	d.t.Cleanup(func() { _ = exec.Command("umount", "--lazy", folder).Run() })
	return d.mount(folder)
}

func (d *disk) mount(folder string) error {
	return said(exec.Command("mount", "-o", "loop,noatime", d.image, folder))
}

// said runs a command, whose output is part of its error.
func said(command *exec.Cmd) error {
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command.Args, err, out)
	}
	return nil
}

func unmount(folder string) error { return said(exec.Command("umount", folder)) }

// tear makes a mounted disk give errors: the file that it lies in has lost its content.
func (d *disk) tear(folder string) error {
	err := said(exec.Command("mount", "-o", "remount,ro", folder))
	if err == nil {
		err = said(exec.Command("cp", "--sparse=always", d.image, d.image+".good"))
	}
	if err == nil {
		err = os.Truncate(d.image, 0)
	}
	if err != nil {
		return err
	}
	device, err := exec.Command("findmnt", "--noheadings", "--output", "SOURCE", folder).Output()
	if err != nil {
		return err
	}
	return said(exec.Command("blockdev", "--flushbufs", strings.TrimSpace(string(device))))
}

func (d *disk) mend() error { return said(exec.Command("cp", d.image+".good", d.image)) }

// fill takes the space of a disk to the last block.
func fill(folder string) error {
	file, err := os.Create(filepath.Join(folder, fillerName))
	if err != nil {
		return err
	}
	for at, step := int64(0), 64*mib; step >= 1024; step /= 2 {
		for syscall.Fallocate(int(file.Fd()), 0, at, step) == nil {
			at += step
		}
	}
	return file.Close()
}

func troubles(t *testing.T) []trouble {
	moved := func(path string) error { return os.Rename(path, path+".away") }
	back := func(path string) error { return os.Rename(path+".away", path) }
	ofTarget, full, ofSource, torn := newDisk(t, 200*mib), newDisk(t, 200*mib), newDisk(t, 32*mib), newDisk(t, 32*mib)
	return []trouble{
		{
			"away", "target", "offline", "; is the disk mounted?", nil,
			func(_, vault string) error { return moved(vault) },
			func(_, vault string) error { return back(vault) },
		},
		{ // leaves an empty folder
			"unmounted", "target", "offline", "; is the disk mounted?",
			func(_, vault string) error { return ofTarget.format(vault) },
			func(_, vault string) error { return unmount(vault) },
			func(_, vault string) error { return ofTarget.mount(vault) },
		},
		{
			"readonly", "target", "read only", ": read-only file system", nil,
			func(_, vault string) error { return readOnly(t, vault) },
			func(_, vault string) error { return exec.Command("mount", "-o", "remount,rw,bind", vault).Run() },
		},
		{
			"full", "target", "full", ": 0 B left, beside 64 MiB kept in reserve, and the copies are expected to take 1.6 MiB",
			func(_, vault string) error { return full.format(vault) },
			func(_, vault string) error { return fill(vault) },
			func(_, vault string) error { return os.Remove(filepath.Join(vault, fillerName)) },
		},
		{
			"nosource", "source", "missing", ": no such file or directory; is the disk mounted?", nil,
			func(source, _ string) error { return moved(source) },
			func(source, _ string) error { return back(source) },
		},
		{ // leaves an empty folder
			"emptysource", "source", "empty", "it offers no restore points; is the disk mounted?",
			func(source, _ string) error { return ofSource.format(source) },
			func(source, _ string) error { return unmount(source) },
			func(source, _ string) error { return ofSource.mount(source) },
		},
		{
			"tornsource", "source", "unreadable", ": input/output error",
			func(source, _ string) error { return torn.format(source) },
			func(source, _ string) error { return torn.tear(source) },
			func(source, _ string) error { return torn.mend() },
		},
	}
}

// readOnly mounts a folder on itself, read only.
func readOnly(t *testing.T, folder string) error {
	t.Helper()
	err := exec.Command("mount", "--bind", folder, folder).Run()
	if err == nil {
		t.Cleanup(func() {
			if out, err := exec.Command("umount", "--lazy", folder).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
		err = exec.Command("mount", "-o", "remount,ro,bind", folder).Run()
	}
	return err
}

// Targets that are not there, not mounted, read only or full, and sources that are not there, not mounted or torn, while a server
// runs: each is told with its name in the session, the status and the check, and is an alarm while it lasts; nothing is made or
// removed meanwhile; and the same session goes on by itself when the trouble is over.
func TestServerWaitsForPlaces(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a session looks again after a minute")
	}
	needRoot(t)
	s := newServed(t, 0, 0)
	all := troubles(t)
	source := func(of trouble) string { return filepath.Join(s.source, of.name) }
	vault := func(of trouble) string { return filepath.Join(filepath.Dir(s.vault), "vault-"+of.name) }
	image := func(folder string, seed uint64) {
		contentFile(t, filepath.Join(folder, "vm.raw"), seed, 2*mib)
	}
	var documents []string
	for _, of := range all {
		err := errors.Join(os.Mkdir(source(of), 0o700), os.Mkdir(vault(of), 0o700))
		if err == nil && of.prepare != nil {
			err = of.prepare(source(of), vault(of))
		}
		if err != nil {
			t.Fatal(err)
		}
		image(source(of), 71)
		s.u.want(0, "repo", "init", vault(of))
		documents = append(documents, fmt.Sprintf("{kind: Repository, name: %s-src, location: %q}\n---\n{kind: Repository, name: %s, location: %q}\n---\n"+
			"{kind: Job, name: %s, source: {repositories: [%s-src]}, target: {repository: %s}, schedule: {mode: manual}, retention: {points: 1}}\n",
			of.name, source(of), of.name, vault(of), of.name, of.name, of.name))
	}
	s.serve()
	s.apply(strings.Join(documents, "---\n"))
	before := map[string]map[string]string{}
	sessions := map[string]int64{}
	for _, of := range all {
		if first := s.session(of.name); first.State != "done" {
			t.Fatalf("%+v", first)
		}
		image(source(of), 72) // something new, which comes with the end of the trouble where the source is away
		before[of.name] = sumTree(t, vault(of))
	}
	for _, of := range all {
		if err := of.begin(source(of), vault(of)); err != nil {
			t.Fatalf("%s: %v", of.name, err)
		}
		sessions[of.name] = s.begin(of.name)
	}
	for _, of := range all {
		s.until(of.name+" waits", func() bool {
			var now servedSession
			s.get(fmt.Sprint("/v1/sessions/", sessions[of.name]), &now)
			return now.State == "waiting"
		})
	}
	now, screen, check := s.status(), s.u.want(0, "status", "--socket", s.socket).out, s.u.want(1, "status", "--check", "--socket", s.socket).out
	if want := "FERRY WARNING - the target of 4 jobs is not ready; a source of 3 jobs is not ready | "; !strings.HasPrefix(check, want) || !strings.HasPrefix(screen, want[len("FERRY "):len("FERRY WARNING")]+": ") {
		t.Errorf("%s%s", check, screen)
	}
	for _, of := range all {
		repository, begins := of.repository()
		waits := ""
		for _, j := range now.Jobs {
			if j.Name == of.name {
				waits = j.Waits
			}
		}
		if !strings.HasPrefix(waits, begins) || !strings.Contains(waits, of.hint) || !strings.Contains(screen, waits) {
			t.Errorf("%s waits for %q, not %q and %q\n%s", of.name, waits, begins, of.hint, screen)
		}
		alarmed := false
		for _, alarm := range now.Alarms {
			alarmed = alarmed || alarm.Job == of.name && alarm.Kind == of.of && alarm.Level == "warning"
		}
		if !alarmed {
			t.Errorf("%s is no alarm: %+v", of.name, now.Alarms)
		}
		for _, r := range now.Repositories {
			if r.Name == repository && r.State != of.state {
				t.Errorf("repository %s is %q, not %q", repository, r.State, of.state)
			}
		}
		switch of.name {
		case "away":
			if _, err := os.Stat(vault(of)); err == nil {
				t.Error("something was made where the target was")
			}
		case "unmounted":
			if made := treeOf(t, vault(of)); len(made) > 0 {
				t.Errorf("made where the target was: %v", made)
			}
		default:
			for name, sum := range before[of.name] {
				if _, err := os.Stat(filepath.Join(vault(of), name)); err != nil && strings.HasPrefix(name, "p") {
					t.Errorf("%s: %s (%s) was removed", of.name, name, sum)
				}
			}
			if points := s.u.points(vault(of)); len(points) != 1 {
				t.Errorf("%s: %d points", of.name, len(points))
			}
		}
	}
	for _, of := range all {
		if err := of.end(source(of), vault(of)); err != nil {
			t.Errorf("%s: the end: %v", of.name, err)
		}
	}
	s.idle()
	for _, of := range all {
		var ended servedSession
		s.get(fmt.Sprint("/v1/sessions/", sessions[of.name]), &ended)
		if ended.State != "done" || len(ended.Report.did("copy")) != 1 {
			t.Errorf("%s: %+v", of.name, ended)
		}
		if of.state == "full" && !ended.Report.made("the target is full") {
			t.Errorf("retention and reclaim did not run before a full target was waited for: %+v", ended.Report.Phases)
		}
		s.u.verified(vault(of))
		if points := s.u.points(vault(of)); len(points) != 1 || disks(s.u.restored(vault(of), points[0]))["vm"] != sumFile(t, filepath.Join(source(of), "vm.raw")) {
			t.Errorf("%s: %+v", of.name, points)
		}
	}
	if now := s.status(); len(now.Alarms) > 0 {
		t.Errorf("the trouble is over: %+v", now.Alarms)
	}
	s.end(syscall.SIGTERM)
}

// A full target that has points which the rules no longer keep makes room of them by itself: the session does not wait, and the
// disk has its reserve again.
func TestServerMakesRoomInAFullTarget(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newServed(t, 0, 0)
	d := newDisk(t, 320*mib)
	if err := errors.Join(os.RemoveAll(s.vault), os.Mkdir(s.vault, 0o700), d.format(s.vault)); err != nil {
		t.Fatal(err)
	}
	s.u.want(0, "repo", "init", s.vault)
	image := filepath.Join(s.source, "vm.raw")
	s.serve()
	keep := func(points int) {
		s.apply(s.job(fmt.Sprintf("schedule: {mode: manual}\nretention: {points: %d}\n", points)))
	}
	keep(2)
	for day := range 2 {
		contentFile(t, image, uint64(81+day), 40*mib)
		if first := s.session("offsite"); first.State != "done" || len(first.Report.did("copy")) != 1 {
			t.Fatalf("%+v", first)
		}
	}
	if err := fill(s.vault); err != nil {
		t.Fatal(err)
	}
	keep(1)
	contentFile(t, image, 83, 24*mib)
	full := s.session("offsite")
	if full.State != "done" || len(full.Report.did("copy")) != 1 || len(full.Report.did("remove")) != 2 || !full.Report.made("the copies may not fit") {
		t.Errorf("%+v", full)
	}
	if now := s.status(); len(now.Alarms) > 0 {
		t.Errorf("%+v", now.Alarms)
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	if points := s.u.points(s.vault); len(points) != 1 || disks(s.u.restored(s.vault, points[0]))["vm"] != sumFile(t, image) {
		t.Errorf("%+v", points)
	}
}

// Another repository lies where the target was, with an id in the job's repository or without: the job is refused, it is told
// with both ids, nothing is copied into it, and the next interval after the right one is back goes on by itself.
func TestServerRefusesAnotherRepository(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("an interval takes a minute")
	}
	for _, pinned := range []bool{true, false} {
		t.Run(fmt.Sprint("id in the file: ", pinned), func(t *testing.T) {
			t.Parallel()
			s := newServed(t, 1, 2*mib)
			s.at(0)
			id := ""
			if pinned {
				id = "id: " + repositoryID(s.u, s.vault) + "\n"
			}
			s.serve()
			s.apply(strings.Replace(strings.Replace(s.manual(), "{mode: manual}", "{every: 1m}", 1), "---\nkind: Job", id+"---\nkind: Job", 1))
			// next is the next session that comes to an end of a kind, at a boundary.
			next := func(after int64, state string) (ended servedSession) {
				db := s.catalog()
				defer db.Close()
				id := ""
				s.until("a session ends "+state, func() bool {
					id = column(t, db, `SELECT id FROM sessions WHERE id > $1 AND ended_at <> 0 AND state = $2 ORDER BY id LIMIT 1`, after, state)
					return id != ""
				})
				s.get("/v1/sessions/"+id, &ended)
				return ended
			}
			first := next(0, "done")
			if err := os.Rename(s.vault, s.vault+".away"); err != nil {
				t.Fatal(err)
			}
			s.u.want(0, "repo", "init", s.vault)
			other := repositoryID(s.u, s.vault)
			before := sumTree(t, s.vault)
			s.change(1, true)
			refused := next(first.ID, "failed")
			if refused.State != "failed" || refused.Report.Target.State != "another repository" || !strings.Contains(refused.Reason, other) {
				t.Errorf("%+v", refused)
			}
			if now := s.status(); !now.has("target", "another repository") {
				t.Errorf("%+v", now)
			}
			if after := sumTree(t, s.vault); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the other repository has become %v, was %v", after, before)
			}
			if err := errors.Join(os.RemoveAll(s.vault), os.Rename(s.vault+".away", s.vault)); err != nil {
				t.Fatal(err)
			}
			if again := next(refused.ID, "done"); len(again.Report.did("copy")) != 1 {
				t.Errorf("%+v", again)
			}
			if now := s.status(); len(now.Alarms) > 0 {
				t.Errorf("it is over: %+v", now.Alarms)
			}
			s.u.verified(s.vault)
			s.end(syscall.SIGTERM)
		})
	}
}
