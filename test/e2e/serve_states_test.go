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
	// name of the job, waits what it says it waits for, alarm what kind of alarm that is.
	name, waits, alarm string
	// begin brings it about, and end is when it is over.
	begin, end func(source, vault string) error
}

func troubles(t *testing.T) []trouble {
	moved := func(path string) error { return os.Rename(path, path+".away") }
	back := func(path string) error { return os.Rename(path+".away", path) }
	return []trouble{
		{
			"away", "target offline", "target",
			func(_, vault string) error { return moved(vault) },
			func(_, vault string) error { return back(vault) },
		},
		{ // a disk that is not mounted leaves an empty folder
			"empty", "target offline", "target",
			func(_, vault string) error { return errors.Join(moved(vault), os.Mkdir(vault, 0o700)) },
			func(_, vault string) error { return errors.Join(os.Remove(vault), back(vault)) }, // only if nothing was made there
		},
		{
			"readonly", "target read only", "target",
			func(_, vault string) error { return readOnly(t, vault) },
			func(_, vault string) error { return exec.Command("mount", "-o", "remount,rw,bind", vault).Run() },
		},
		{
			"nosource", "source nosource-src is missing", "source",
			func(source, _ string) error { return moved(source) },
			func(source, _ string) error { return back(source) },
		},
		{
			"emptysource", "source emptysource-src is empty", "source",
			func(source, _ string) error { return errors.Join(moved(source), os.Mkdir(source, 0o700)) },
			func(source, _ string) error { return errors.Join(os.Remove(source), back(source)) },
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

// Targets that are not mounted or read only, and sources that are not there or empty, while a server runs: each is told with its
// name in the session and the status, and is an alarm while it lasts; nothing is made or removed meanwhile; and the same session
// goes on by itself when the trouble is over.
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
		if err := os.Mkdir(source(of), 0o700); err != nil {
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
		now, waits := s.status(), ""
		for _, j := range now.Jobs {
			if j.Name == of.name {
				waits = j.Waits
			}
		}
		if !strings.Contains(waits, of.waits) {
			t.Errorf("%s waits for %q, not %q", of.name, waits, of.waits)
		}
		alarmed := false
		for _, alarm := range now.Alarms {
			alarmed = alarmed || alarm.Job == of.name && alarm.Kind == of.alarm
		}
		if !alarmed {
			t.Errorf("%s is no alarm: %+v", of.name, now.Alarms)
		}
		switch of.name {
		case "away":
			if _, err := os.Stat(vault(of)); err == nil {
				t.Error("something was made where the target was")
			}
		case "empty":
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

// Another repository lies where the target was, with an id in the job's repository or without: the job is refused, it is told
// with both ids, nothing is copied into it, and a session after the right one is back goes on.
func TestServerRefusesAnotherRepository(t *testing.T) {
	t.Parallel()
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
			s.apply(strings.Replace(s.manual(), "---\nkind: Job", id+"---\nkind: Job", 1))
			if first := s.session("offsite"); first.State != "done" {
				t.Fatalf("%+v", first)
			}
			s.change(1, true)
			if err := os.Rename(s.vault, s.vault+".away"); err != nil {
				t.Fatal(err)
			}
			s.u.want(0, "repo", "init", s.vault)
			other := repositoryID(s.u, s.vault)
			before := sumTree(t, s.vault)
			refused := s.session("offsite")
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
			if again := s.session("offsite"); again.State != "done" || len(again.Report.did("copy")) != 1 {
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
