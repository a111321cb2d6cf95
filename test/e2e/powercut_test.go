//go:build integration

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// grid is a disk whose power can be cut: a file system in a file. What Linux has not written to it yet is not in the file, so a
// copy of the file is the disk of a machine that lost its power at that moment.
type grid struct {
	t             *testing.T
	image, folder string
}

// newGrid mounts a file system that writes nothing by itself for minutes: what lasts is what was synced.
func newGrid(t *testing.T, kind string, size int64) *grid {
	t.Helper()
	needRoot(t)
	options := map[string]string{"ext4": "loop,commit=900", "xfs": "loop"}[kind]
	needTool(t, "mkfs."+kind)
	g := &grid{t: t, image: filepath.Join(t.TempDir(), "image"), folder: t.TempDir()}
	file, err := os.Create(g.image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+kind, "-q", g.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", kind, err, out)
	}
	mount(t, g.folder, "-o", options, g.image)
	return g
}

// cut calls look with the folder as it is after the power was cut now: mounted from a copy of the disk, with a cache that is new.
// Nothing may write to the disk meanwhile.
func (g *grid) cut(look func(u *user, folder string)) {
	g.t.Helper()
	copied, folder := filepath.Join(filepath.Dir(g.image), "cut"), g.t.TempDir()
	defer os.Remove(copied)
	if out, err := exec.Command("cp", "--sparse=always", g.image, copied).CombinedOutput(); err != nil {
		g.t.Fatalf("cp: %v\n%s", err, out)
	}
	// A copy of xfs has the same identity as the disk that is mounted.
	options := "loop"
	if out, err := exec.Command("blkid", "-o", "value", "-s", "TYPE", copied).Output(); err == nil && strings.TrimSpace(string(out)) == "xfs" {
		options += ",nouuid"
	}
	if out, err := exec.Command("mount", "-o", options, copied, folder).CombinedOutput(); err != nil {
		g.t.Fatalf("the disk cannot be mounted after the power cut: %v\n%s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", folder).CombinedOutput(); err != nil {
			g.t.Fatalf("umount: %v\n%s", err, out)
		}
	}()
	look(newUser(g.t), folder)
}

// What a command has said to be done is there when the power is cut at that moment: on a file system that has by then only what was
// synced, with no cache from before.
func TestPowerCutAfterEachCommand(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g, u, from := newGrid(t, kind, 512*mib), newUser(t), t.TempDir()
			to := filepath.Join(g.folder, "vault")
			want := map[string]map[string]string{} // the files of each point that was acknowledged
			check := func(after string) {
				t.Helper()
				g.cut(func(u *user, folder string) {
					vault := filepath.Join(folder, "vault")
					u.verified(vault)
					points := u.points(vault)
					if got := ids(points); len(got) != len(want) {
						t.Errorf("after %s and a power cut the points are %v, not %v", after, got, slices.Sorted(maps.Keys(want)))
					}
					for _, p := range points {
						if got := u.restored(vault, p); !maps.Equal(got, want[p.ID]) {
							t.Errorf("after %s and a power cut point %s is %v, not %v", after, p.ID, got, want[p.ID])
						}
					}
				})
			}
			u.want(0, "repo", "init", to)
			check("repo init")
			for n := range 4 {
				raw := filepath.Join(from, fmt.Sprintf("m%d.raw", n%2))
				contentFile(t, raw, uint64(80+n), 8*mib)
				u.copied(from, to)
				for _, p := range u.points(to) {
					if want[p.ID] == nil {
						want[p.ID] = u.restored(to, p)
					}
				}
				check(fmt.Sprintf("copy %d", n))
			}
			gone := u.points(to)[0]
			u.want(0, "forget", to, "--point", gone.ID)
			delete(want, gone.ID)
			check("forget")
			for range 3 {
				u.want(0, "reclaim", to, "--grace", "0")
				check("reclaim")
			}
			u.want(0, "compact", to)
			check("compact")
		})
	}
}

// The power is cut at moments in the middle of a copy: what was there before is whole, and the next copy ends as if nothing had been.
func TestPowerCutWhileCopying(t *testing.T) {
	t.Parallel()
	moments := seeded(t)
	v := victims(t, 96*mib)[0]
	v.measure(t)
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g, u, before := newGrid(t, kind, 512*mib), newUser(t), t.TempDir()
			to := filepath.Join(g.folder, "vault")
			contentFile(t, filepath.Join(before, "other.raw"), 90, 16*mib)
			u.copied(before, to, "--create")
			first := u.points(to)[0]
			want := u.restored(to, first)
			r := u.start(v.args(to)...)
			for at := int64(0); ; {
				at += moments.Int64N(v.length / 4)
				for progressOf(r) < at && !zombie(r) {
					time.Sleep(50 * time.Microsecond)
				}
				if zombie(r) {
					break
				}
				_ = r.cmd.Process.Signal(syscall.SIGSTOP)
				for stateOf(r) != "T" && !zombie(r) {
					time.Sleep(time.Millisecond)
				}
				g.cut(func(u *user, folder string) {
					vault := filepath.Join(folder, "vault")
					u.verified(vault)
					if got := u.restored(vault, first); !maps.Equal(got, want) {
						t.Errorf("cut at %d of %d: the point from before is %v, not %v", at, v.length, got, want)
					}
					u.copied(v.from, vault, v.options...)
					u.verified(vault)
					for _, p := range u.points(vault) {
						if got := u.restored(vault, p); p.ID != first.ID && !maps.Equal(disks(got), v.want) {
							t.Errorf("cut at %d of %d, and copied again: %v, not %v", at, v.length, got, v.want)
						}
					}
				})
				_ = r.cmd.Process.Signal(syscall.SIGCONT)
			}
			if ended := r.wait(); ended.code != 0 {
				t.Fatal(ended)
			}
		})
	}
}
