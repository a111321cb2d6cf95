//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/vma"
)

// allocated is how many bytes a file takes on its file system.
func allocated(t *testing.T, file *os.File) int64 {
	t.Helper()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// smallDisk mounts a file system of a size: ext4 on a loop device.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	needRoot(t)
	needTool(t, "mkfs.ext4")
	image, folder := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	// Without blocks reserved for root, who runs this and would not see a full disk.
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	mount(t, folder, "-o", "loop", image)
	return folder
}

// mount mounts on a folder until the test ends.
func mount(t *testing.T, folder string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", append(args, folder)...).CombinedOutput(); err != nil {
		lacks(t, "cannot mount here: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", folder).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}

const fillerName = "somebody else's file"

// filler takes space on a disk, which comes back when it is removed.
func filler(t *testing.T, folder string, size int64) string {
	t.Helper()
	path := filepath.Join(folder, fillerName)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syscall.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// The target fills up: the copy says which disk and what to do, keeps what it has, and goes on when there is space.
func TestFullTarget(t *testing.T) {
	t.Parallel()
	for _, v := range victims(t, 200*mib) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, 400*mib)
			v.measure(t)
			taken := filler(t, disk, 250*mib)
			u, to := newUser(t), filepath.Join(disk, "vault")
			r := u.run(v.args(to)...)
			if r.code != 1 {
				t.Errorf("exit %d: %v", r.code, r)
			}
			mentions(t, r.err, "no space left", to, "free space there", "run it again")
			if points := u.points(to); len(points) != 0 {
				t.Errorf("points on a full disk: %+v", points)
			}
			if first := decode[copyReport](t, r); first.Copied != 0 || first.Steps[0].Outcome == "copied" {
				t.Errorf("%+v", first)
			}
			u.verified(to)
			// Full still: the same again, and no harm done.
			if r := u.run(v.args(to)...); r.code != 1 {
				t.Errorf("second try: exit %d: %v", r.code, r)
			}
			u.verified(to)
			durable := decode[repositoryInfo](t, u.want(0, "repo", "info", to, "--json")).StoredBytes
			if durable < packLimit {
				t.Errorf("%d bytes are durable of 140 MiB that there was room for", durable)
			}
			if err := os.Remove(taken); err != nil {
				t.Fatal(err)
			}
			again := decode[copyReport](t, u.want(0, v.args(to)...))
			if again.Copied != 1 {
				t.Errorf("%+v", again)
			}
			if resumed := again.Steps[0].ResumedBytes; !v.onePass && (resumed < durable-overhead || again.SourceBytesRead > v.size-resumed+overhead) {
				t.Errorf("%d bytes durable, %d taken over, %d of %d read", durable, resumed, again.SourceBytesRead, v.size)
			}
			if total := packBytes(t, to); total > v.packs+packLimit+overhead {
				t.Errorf("%d bytes of packs, %d without a full disk", total, v.packs)
			}
			u.verified(to)
			v.restores(t, u, to)
		})
	}
}

// The folder that a restore goes to fills up: nothing half has a final name, and the same command works afterwards.
func TestFullRestoreTarget(t *testing.T) {
	t.Parallel()
	v := victims(t, 100*mib)[1]
	disk := smallDisk(t, 200*mib)
	taken := filler(t, disk, 130*mib)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.want(0, v.args(to)...)
	out := filepath.Join(disk, "out")
	r := u.run("restore", to, "killed", "--to", out)
	if r.code != 1 {
		t.Errorf("exit %d: %v", r.code, r)
	}
	mentions(t, r.err, "no space left", out, "free space in")
	for _, name := range treeOf(t, out) {
		if strings.Contains(name, "drive-scsi0") || strings.Contains(name, "restore.json") || strings.HasPrefix(filepath.Base(name), ".") {
			t.Errorf("%s is there after a restore that failed", name)
		}
	}
	if err := os.Remove(taken); err != nil {
		t.Fatal(err)
	}
	u.want(0, "restore", to, "killed", "--to", out, "--force")
	if got := disks(sumTree(t, out)); got["drive-scsi0"] != v.want["drive-scsi0"] {
		t.Errorf("%v, not %v", got, v.want)
	}
}

// Clusters in wild order need the temporary folder, and it is too small.
func TestFullTemporaryFolder(t *testing.T) {
	t.Parallel()
	needRoot(t)
	from, temp := t.TempDir(), t.TempDir()
	mount(t, temp, "-t", "tmpfs", "-o", "size="+strconv.Itoa(16<<20), "tmpfs")
	disk := device(t, "drive-scsi0", 31, 400*mib)
	// All even clusters before all odd ones: every block of 128 KiB waits for its second half.
	halves := func(a *vma.Archive) {
		a.Order = func(yield func(vma.Slot) bool) {
			for first := range int64(2) {
				for cluster := first; cluster < disk.Size/vma.ClusterSize; cluster += 2 {
					if !yield(vma.Slot{Cluster: cluster}) {
						return
					}
				}
			}
		}
	}
	dump{vmid: 400, uuid: uuidOne, name: "wild", disks: []vma.DeviceContent{disk}, order: halves}.write(t, from)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	r := u.run("copy", from, to, "--create", "--temp-dir", temp, "--json")
	if r.code != 1 {
		t.Errorf("exit %d: %v", r.code, r)
	}
	report := decode[copyReport](t, r)
	mentions(t, report.Steps[0].Error+report.Steps[0].Hint+r.err, "no space left", temp)
	// What a person without --json sees.
	text := u.run("copy", from, to, "--temp-dir", temp)
	mentions(t, text.out+text.err, "no space left", temp, "--temp-dir")
	if left := treeOf(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	u.verified(to)
	if points := u.points(to); len(points) != 0 {
		t.Errorf("%+v", points)
	}
	// A full temporary folder says nothing about the archive: it is not remembered as broken.
	if offered := u.points(from); offered[0].State != "complete" {
		t.Errorf("%+v", offered)
	}
	r = u.want(0, "copy", from, to)
	small(t, r)
	u.verified(to)
	if got := disks(u.restored(to, u.points(to)[0])); got["drive-scsi0"] != sumOf(t, disk) {
		t.Errorf("%v", got)
	}
}
