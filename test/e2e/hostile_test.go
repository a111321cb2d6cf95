//go:build integration

package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"ferry/internal/vma"
)

// printsClean fails the test if output has anything that a terminal would act on.
func printsClean(t *testing.T, r result) {
	t.Helper()
	for _, text := range []string{r.out, r.err} {
		for at, c := range text {
			if (c < 0x20 && c != '\n') || (c >= 0x7f && c <= 0x9f) || (c == utf8.RuneError && text[at] != "\uFFFD"[0]) {
				start := max(0, at-60)
				t.Errorf("ferry %s prints %q: …%q…", r.args[0], c, text[start:min(len(text), at+60)])
				break
			}
		}
	}
}

// put writes a file of the hostile folder.
func put(t *testing.T, folder, name string, content []byte) {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// thin is a qcow2 image of a megabyte without data, that names a backing file.
func thin(backing string, l1Entries uint32) []byte {
	image := make([]byte, 4<<16)
	copy(image, "QFI\xfb")
	binary.BigEndian.PutUint32(image[4:], 2)
	if backing != "" {
		binary.BigEndian.PutUint64(image[8:], 72)
		binary.BigEndian.PutUint32(image[16:], uint32(len(backing)))
		copy(image[72:], backing)
	}
	binary.BigEndian.PutUint32(image[20:], 16)
	binary.BigEndian.PutUint64(image[24:], 1<<20)
	binary.BigEndian.PutUint32(image[36:], l1Entries)
	binary.BigEndian.PutUint64(image[40:], 1<<16)
	binary.BigEndian.PutUint64(image[48:], 2<<16)
	binary.BigEndian.PutUint32(image[56:], 1)
	return image
}

func noise(seed uint64, size int) []byte {
	source, p := rand.New(rand.NewPCG(seed, 3)), make([]byte, size)
	for i := range p {
		p[i] = byte(source.Uint32())
	}
	return p
}

// hostileFolder has what an enemy, a bad disk and an unlucky admin would leave beside one good machine.
func hostileFolder(t *testing.T, from, outside string) {
	t.Helper()
	disk := device(t, "drive-scsi0", 91, 6*mib)
	good := dump{vmid: 100, uuid: uuidOne, name: "good", disks: []vma.DeviceContent{disk}}
	good.write(t, from)

	// Archives: cut off, with a bit turned, of noise, empty, and of other formats than they say.
	whole := func(vmid int, change func([]byte) []byte) {
		d := dump{vmid: vmid, name: "evil\x1b[2J\x07\u202e" + string(rune(0x9b)) + "31m\xff", disks: []vma.DeviceContent{disk}}
		path := d.write(t, from)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		put(t, from, filepath.Base(path), change(content))
	}
	whole(101, func(p []byte) []byte { return p[:len(p)/2] })
	whole(102, func(p []byte) []byte { p[len(p)/2] ^= 4; return p })
	whole(103, func(p []byte) []byte { return append(p, noise(1, 100)...) })
	for i, extension := range []string{".vma", ".vma.zst", ".vma.gz", ".vma.lzo", ".vma.bz2"} {
		stamp := []string{"2026_11_20-01_00_00", "2026_11_21-01_00_00"}
		put(t, from, "vzdump-qemu-11"+string(rune('0'+i))+"-"+stamp[0]+extension, noise(uint64(i), 20000))
		put(t, from, "vzdump-qemu-11"+string(rune('0'+i))+"-"+stamp[1]+extension, nil)
	}
	put(t, from, "vzdump-lxc-120-2026_11_20-01_00_00.tar.zst", noise(9, 5000))
	put(t, from, "vzdump-lxc-121-2026_11_20-01_00_00.tar", noise(10, 5000))
	bombs(t, from)

	// Images: what they stand on lies outside, is themselves, is not there; tables of impossible size; noise.
	for name, image := range map[string][]byte{
		"absolute.qcow2": thin(filepath.Join(outside, "secret.raw"), 1), "relative.qcow2": thin("../../../../../../etc/passwd", 1),
		"itself.qcow2":  thin("itself.qcow2", 1),
		"missing.qcow2": thin("not\x1b[31mthere.qcow2", 1), "json.qcow2": thin(`json:{"driver":"file","filename":"/etc/passwd"}`, 1),
		"nbd.qcow2": thin("nbd://127.0.0.1/x", 1), "linked.qcow2": thin("link out.raw", 1), "huge.qcow2": thin("", 0xffffffff),
		"noise.qcow2": append([]byte("QFI\xfb\x00\x00\x00\x03"), noise(11, 5000)...), "short.qcow2": thin("", 1)[:100], "empty.qcow2": nil,
	} {
		put(t, filepath.Join(from, "images"), strings.TrimSuffix(name, ".qcow2")+"/"+name, image)
	}

	put(t, from, "images/ring/1.qcow2", thin("2.qcow2", 1))
	put(t, from, "images/ring/2.qcow2", thin("1.qcow2", 1))

	// virtnbdbackup's files.
	vmconfig := "<domain><name>v&#x9b;m</name><uuid>" + uuidTwo + "</uuid><devices><disk type='file' device='disk'><target dev='vda'/></disk></devices></domain>"
	meta := `{"virtualSize": 1048576, "dataSize": 65536, "date": "2026-11-22T04:40:17.468966", "diskName": "vda", "diskFormat": "qcow2", ` +
		`"checkpointName": "virtnbdbackup.0", "compressed": false, "compressionMethod": "lz4", "parentCheckpoint": "", "incremental": false, "streamVersion": 2}`
	stream := fmt.Sprintf("meta %016x %016x\r\n%s\r\ndata %016x %016x\r\n", 0, len(meta), meta, 0, 65536) + strings.Repeat("cut off ", 1000)
	put(t, filepath.Join(from, "virt", "noise"), "vmconfig.virtnbdbackup.0.xml", []byte(vmconfig))
	put(t, filepath.Join(from, "virt", "noise"), "vda.full.data", noise(12, 20000))
	put(t, filepath.Join(from, "virt", "cut"), "vmconfig.virtnbdbackup.0.xml", []byte(strings.ReplaceAll(vmconfig, uuidTwo, uuidOne)))
	put(t, filepath.Join(from, "virt", "cut"), "vda.full.data", []byte(stream))
	put(t, filepath.Join(from, "virt", "empty"), "vda.full.data", nil)
	put(t, filepath.Join(from, "virt", "entities"), "vmconfig.virtnbdbackup.0.xml", []byte(`<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><domain><name>&b;</name></domain>`))

	// A folder that says it is a repository, and descriptions that are none.
	put(t, from, "vault/repository.json", []byte(`{"format":"ferry"`))
	put(t, from, "yaml1/ferry.yaml", []byte("a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nmachines: [*b,*b]\n"))
	put(t, from, "yaml1/disk.raw", noise(13, 4096))
	put(t, from, "yaml2/ferry.yaml", []byte("machines:\n  - name: x\n    points:\n      - disks: {root: ../../../../etc/passwd}\n"))

	// Names that a terminal or a log would act on. These are sound images, and copied.
	for _, name := range []string{"line\nbreak.raw", "es\x1b[31mcape.raw", "not\xff\xfeutf8.raw", "bell\a\r.raw", "c1\u009b31m.raw", "%41%.raw", "-rf.raw", "dots...raw"} {
		put(t, from, name, noise(uint64(len(name)), 8192))
	}
	put(t, from, "fol\nder\x1b/disk.raw", noise(14, 8192))

	// What is no file, and what leads elsewhere.
	if err := syscall.Mkfifo(filepath.Join(from, "vzdump-qemu-130-2026_11_20-01_00_00.vma.zst"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(from, "pipe.raw"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"link1.raw": "link2.raw", "link2.raw": "link1.raw", "link out.raw": filepath.Join(outside, "secret.raw"), "up.raw": "../" + filepath.Base(outside) + "/secret.raw",
		"loop": ".", "folder out": outside, "dangling\x1b.raw": "nothing", "device.raw": "/dev/zero", "images/linked/link out.raw": filepath.Join(outside, "secret.raw"),
	} {
		if err := os.Symlink(target, filepath.Join(from, link)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, from, "unreadable.raw", noise(15, 4096))
	if err := os.Chmod(filepath.Join(from, "unreadable.raw"), 0); err != nil {
		t.Fatal(err)
	}
}

// bombs are small files that are large when unpacked, or say that they need much memory.
func bombs(t *testing.T, from string) {
	t.Helper()
	zeros := make([]byte, mib)
	compressed(t, filepath.Join(from, "vzdump-qemu-140-2026_11_20-01_00_00.vma.zst"), func(w io.Writer) error {
		for range 4 << 10 {
			if _, err := w.Write(zeros); err != nil {
				return err
			}
		}
		return nil
	})
	// A true header, and then gigabytes that are no table.
	archive := dump{vmid: 141, uuid: uuidTwo, name: "bomb", disks: []vma.DeviceContent{{Name: "drive-scsi0", Size: 1 << 40}}}.archive()
	archive.Order = func(func(vma.Slot) bool) {}
	compressed(t, filepath.Join(from, "vzdump-qemu-141-2026_11_20-01_00_00.vma.zst"), func(w io.Writer) error {
		if _, err := archive.WriteTo(w); err != nil {
			return err
		}
		for range 4 << 10 {
			if _, err := w.Write(zeros); err != nil {
				return err
			}
		}
		return nil
	})
	// zstd frames that want a window of 2 GiB, and that promise a content of an exabyte in one piece.
	put(t, from, "vzdump-qemu-142-2026_11_20-01_00_00.vma.zst", []byte("\x28\xb5\x2f\xfd\x00\xa8\x03\x00\x10\x00"))
	put(t, from, "vzdump-qemu-143-2026_11_20-01_00_00.vma.zst", []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x00\x00\x10\x03\x00\x10\x00"))
}

// A folder full of what should not be there: the good machine is copied, the rest is named with reasons, and nothing
// outside the folder is read.
func TestHostileFolder(t *testing.T) {
	t.Parallel()
	from, outside := t.TempDir(), t.TempDir()
	put(t, outside, "secret.raw", []byte(strings.Repeat("secret of another folder ", 4000)))
	hostileFolder(t, from, outside)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	check := func(code int, args ...string) result {
		t.Helper()
		r := u.run(args...)
		if r.code != code {
			t.Errorf("exit %d, not %d: %v", r.code, code, r)
		}
		printsClean(t, r)
		small(t, r)
		return r
	}
	check(0, "points", from)
	check(0, "points", from, "--json")
	check(0, "copy", from, to, "--create", "--dry-run")
	first := check(4, "copy", from, to, "--create")
	mentions(t, first.out, "copied  good", "FAILED")
	again := check(4, "copy", from, to, "--all", "--json")
	report := decode[copyReport](t, again)
	for _, step := range report.Steps {
		if step.Action != "copy" && step.Action != "already there" && step.Reason == "" {
			t.Errorf("%s is %s without a reason", step.Machine.ID, step.Action)
		}
	}
	check(4, "points", from, "--check")
	printsClean(t, u.want(0, "points", to))
	u.verified(to)

	good, odd := 0, 0
	for _, p := range u.points(to) {
		r := u.want(0, "restore", to, p.Machine.ID, "--point", p.ID, "--to", filepath.Join(t.TempDir(), "out"), "--json")
		printsClean(t, r)
		printsClean(t, u.want(0, "restore", to, p.Machine.ID, "--point", p.ID, "--to", filepath.Join(t.TempDir(), "out")))
		if p.Machine.Name == "good" {
			good++
		} else if p.Machine.Platform == "image" {
			odd++
		}
	}
	if good != 1 || odd < 8 {
		t.Errorf("%d good machines, %d with odd names: %s", good, odd, u.want(0, "points", to).out)
	}
	stored := reachable(t, u, to)
	if strings.Contains(stored, "secret of another folder") || strings.Contains(stored, "root:x:") {
		t.Error("a file from outside the source was copied")
	}
}

// reachable is all that can be restored from a repository, in one text.
func reachable(t *testing.T, u *user, repository string) string {
	t.Helper()
	var all strings.Builder
	for _, p := range u.points(repository) {
		if p.Machine.Name == "good" {
			continue
		}
		out := filepath.Join(t.TempDir(), "out")
		u.want(0, "restore", repository, p.Machine.ID, "--point", p.ID, "--to", out)
		for _, name := range treeOf(t, out) {
			content, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(content)
		}
	}
	return all.String()
}
