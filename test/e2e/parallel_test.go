//go:build integration

package e2e

import (
	"maps"
	"path/filepath"
	"testing"

	"ferry/internal/vma"
)

// together runs commands at the same time, each as its own user, and returns their results.
func together(t *testing.T, commands ...[]string) []result {
	t.Helper()
	var all []*running
	for _, args := range commands {
		all = append(all, newUser(t).start(args...))
	}
	var results []result
	for _, r := range all {
		results = append(results, r.wait())
	}
	return results
}

// Two copies of one source into one repository at once: both succeed, and the point is there once.
func TestTwoCopiesOfOneSource(t *testing.T) {
	t.Parallel()
	for _, v := range victims(t, 150*mib)[:2] {
		t.Run(v.name, func(t *testing.T) {
			u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
			u.want(0, "repo", "init", to)
			for _, r := range together(t, v.args(to), v.args(to)) {
				report := decode[copyReport](t, r)
				if r.code != 0 || report.Failed != 0 || report.Copied+report.AlreadyThere != 1 {
					t.Errorf("exit %d: %v", r.code, r)
				}
			}
			u.verified(to)
			v.restores(t, u, to)
			// Someone who was not there sees the same, and has nothing to do.
			if again := decode[copyReport](t, u.want(0, v.args(to)...)); again.Copied != 0 || again.StoredBytes != 0 {
				t.Errorf("%+v", again)
			}
		})
	}
}

// Different sources at once, some of whose content is the same.
func TestTwoCopiesOfTwoSources(t *testing.T) {
	t.Parallel()
	shared := device(t, "drive-scsi0", 41, 90*mib)
	want := map[string]map[string]string{}
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.want(0, "repo", "init", to)
	var commands [][]string
	for i, name := range []string{"one", "two", "three"} {
		from := t.TempDir()
		own := device(t, "drive-scsi1", uint64(50+i), 60*mib)
		dump{vmid: 500 + i, uuid: uuidOne, name: name, day: i, disks: []vma.DeviceContent{shared, own}}.write(t, from)
		want[name] = map[string]string{"drive-scsi0": sumOf(t, shared), "drive-scsi1": sumOf(t, own)}
		commands = append(commands, []string{"copy", from, to, "--all", "--json"})
	}
	for _, r := range together(t, commands...) {
		if report := decode[copyReport](t, r); r.code != 0 || report.Copied != 1 {
			t.Errorf("exit %d: %v", r.code, r)
		}
	}
	u.verified(to)
	stored := u.points(to)
	if len(stored) != len(want) {
		t.Errorf("%+v", stored)
	}
	for _, p := range stored {
		if got := disks(u.restored(to, p)); !maps.Equal(got, want[p.Machine.Name]) {
			t.Errorf("%s: %v, not %v", p.Machine.Name, got, want[p.Machine.Name])
		}
	}
}

// Who reads while someone writes sees whole points or none.
func TestReadersDuringACopy(t *testing.T) {
	t.Parallel()
	v := victims(t, 200*mib)[0]
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.want(0, "repo", "init", to)
	writer, looks := newUser(t).start(v.args(to)...), 0
	for ; !zombie(writer); looks++ {
		u.verified(to)
		for _, p := range u.points(to) {
			if p.State != "complete" {
				t.Errorf("%+v", p)
			}
		}
	}
	if r := writer.wait(); r.code != 0 {
		t.Error(r)
	}
	if looks == 0 {
		t.Error("the copy ended before anyone looked")
	}
	u.verified(to)
	v.restores(t, u, to)
}

// Both make the repository. One of them may be refused, but then it says so, and what is there is one whole repository.
func TestTwoCreate(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	dump{vmid: 600, uuid: uuidOne, name: "both", disks: []vma.DeviceContent{device(t, "drive-scsi0", 61, mib)}}.write(t, from)
	for range 10 {
		to := filepath.Join(t.TempDir(), "vault")
		command := []string{"copy", from, to, "--create", "--json"}
		done := 0
		for _, r := range together(t, command, command) {
			if r.code == 0 {
				done++
			} else if r.code != 1 || r.err == "" {
				t.Errorf("exit %d: %v", r.code, r)
			}
		}
		u := newUser(t)
		if points := u.points(to); done == 0 || len(points) != 1 {
			t.Fatalf("%d of two succeeded; points %+v", done, points)
		}
		u.verified(to)
	}
}
