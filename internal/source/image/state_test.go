package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
)

func TestChangesAreNoticed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"grows", "vanishes", "later", "reads"} {
		writeFile(t, dir, name+".raw", bytes.Repeat([]byte{1}, 100000))
	}
	create(t, dir, "over.qcow2", "grows.raw", "1M")
	create(t, dir, "gone.qcow2", "later.raw", "1M")
	root, listing := openRoot(t, dir)
	writeFile(t, dir, "grows.raw", bytes.Repeat([]byte{1}, 200000))
	os.Remove(filepath.Join(dir, "vanishes.raw"))
	os.Remove(filepath.Join(dir, "gone.qcow2"))
	s := scanListing(t, root, listing)
	expect(t, s, "grows.raw locked grows\ngrows.raw locked grows\nlater.raw complete later\nreads.raw complete reads")
	content := opened(t, s.of(t, "reads", 1)[0])
	d := disk(t, content, 0)
	if err := os.Truncate(filepath.Join(dir, "reads.raw"), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(make([]byte, 100), 50); !errors.Is(err, backup.ErrChanged) || !strings.Contains(err.Error(), "reads.raw") {
		t.Errorf("reading a file that became shorter: %v", err)
	}
	if err := content.Revalidate(context.Background()); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("revalidate: %v", err)
	}
	os.Remove(filepath.Join(dir, "reads.raw"))
	if err := content.Revalidate(context.Background()); !errors.Is(err, backup.ErrVanished) {
		t.Errorf("revalidate: %v", err)
	}
	point := s.of(t, "later", 1)[0]
	writeFile(t, dir, "later.raw", []byte("other"))
	if _, err := point.Opener.Open(context.Background()); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("open after a change: %v", err)
	}
	os.Remove(filepath.Join(dir, "later.raw"))
	if _, err := point.Opener.Open(context.Background()); !errors.Is(err, backup.ErrVanished) {
		t.Errorf("open after removal: %v", err)
	}
}

// A folder's images are one machine. One that goes while the folder is looked at does not make a whole machine of the others.
func TestVanishedDiskLocksItsMachine(t *testing.T) {
	for _, when := range []string{"before it is looked into", "after"} {
		dir := t.TempDir()
		for _, name := range []string{"vm/a.raw", "vm/b.raw", "other/a.raw", "a.raw", "b.raw"} {
			writeFile(t, dir, name, []byte("disk"))
		}
		root, listing := openRoot(t, dir)
		s := newScan(t.Context(), listing)
		remove := func() {
			for _, name := range []string{"vm/b.raw", "b.raw"} {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if when != "after" {
			remove()
		}
		if err := s.examineAll(); err != nil {
			t.Fatal(err)
		}
		if when == "after" {
			remove()
		}
		points, err := s.judge()
		if err != nil {
			t.Fatal(err)
		}
		expect(t, scanned{root, listing, points}, "a.raw complete a\nother%2F complete a\nvm%2F locked a")
		if reason := points[2].Reason; reason != "b.raw vanished" {
			t.Errorf("reason %q", reason)
		}
	}
}

// A disk that cannot be reached is as good as one that cannot be read. Other names in the folder are no disks.
func TestUnreachableDiskBreaksItsMachine(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"outside.raw", "src/vm/a.raw", "src/nowhere/a.raw", "src/pipe/a.raw", "src/fine/a.raw", "src/fine/b.raw", "src/c.raw"} {
		writeFile(t, dir, name, []byte("disk"))
	}
	for name, target := range map[string]string{
		"vm/b.raw": "../../outside.raw", "nowhere/b.qcow2": "gone", "fine/current": "gone", "fine/.b.raw": "gone", "fine/c.raw": "b.raw", "fine/d.raw": "../vm", "b.raw": "../outside.raw",
	} {
		if err := os.Symlink(target, filepath.Join(dir, "src", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "src/pipe/b.img"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := scanDir(t, filepath.Join(dir, "src"))
	expect(t, s, "c.raw complete c\nfine%2F complete a,b,c\nnowhere%2F broken a\npipe%2F broken a\nvm%2F broken a")
	for k, want := range map[int]string{
		2: "b.qcow2 cannot be looked at: no such file or directory", 3: "b.img cannot be looked at: neither a file nor a folder",
		4: "b.raw cannot be looked at: path escapes from parent",
	} {
		if reason := s.points[k].Reason; reason != want {
			t.Errorf("reason %q", reason)
		}
	}
}

func TestLockedByQEMU(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, "base.qcow2", "", "1M")
	create(t, dir, "vm.qcow2", "base.qcow2", "1M")
	before := scanDir(t, dir).of(t, "base", 2)
	for _, c := range []struct{ mode, want string }{
		{"-n", "base.qcow2 complete base\nbase.qcow2 locked base"},
		{"-r", "base.qcow2 complete base\nbase.qcow2 complete base"},
	} {
		qemu := exec.Command("qemu-io", c.mode, "-f", "qcow2", filepath.Join(dir, "vm.qcow2"))
		stdin, err := qemu.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := qemu.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := qemu.Start(); err != nil {
			t.Fatal(err)
		}
		// The answer to a command shows that the image is open.
		if _, err := fmt.Fprintln(stdin, "length"); err != nil {
			t.Fatal(err)
		}
		var answer []byte
		for !bytes.Contains(answer, []byte("MiB")) {
			part := make([]byte, 100)
			n, err := stdout.Read(part)
			if err != nil {
				t.Fatalf("qemu-io ended: %v", err)
			}
			answer = append(answer, part[:n]...)
		}
		s := scanDir(t, dir)
		expect(t, s, c.want)
		if c.mode == "-n" {
			if reason := s.of(t, "base", 2)[1].Reason; reason != "a running QEMU has the image open for writing" {
				t.Errorf("reason %q", reason)
			}
			if _, err := before[1].Opener.Open(context.Background()); !errors.Is(err, backup.ErrLocked) && !errors.Is(err, backup.ErrChanged) {
				t.Errorf("open: %v", err)
			}
		}
		stdin.Close()
		if err := qemu.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// createLUKS makes an encrypted image. qemu-img measures how fast the machine derives keys, and gives up where the clock
// of the processor's time is too coarse for that just now: then it is asked again.
func createLUKS(t *testing.T, dir, name string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if testing.Short() {
			t.Skip("qemu-img is not installed")
		}
		t.Fatal("qemu-img is needed; install the package qemu-utils")
	}
	var out []byte
	for range 50 {
		command := exec.Command("qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x",
			"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", name, "1M")
		command.Dir = dir
		var err error
		if out, err = command.CombinedOutput(); err == nil {
			return
		}
	}
	t.Fatalf("qemu-img: %s", out)
}

func TestEncryptedAndUnsupportedAreNamed(t *testing.T) {
	dir := t.TempDir()
	createLUKS(t, dir, "luks.qcow2")
	tool(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", "data_file=data.raw", "external.qcow2", "1M")
	create(t, dir, "over.qcow2", "luks.qcow2", "1M")
	create(t, dir, "foreign.qcow2", "old.vmdk", "1M")
	writeFile(t, dir, "old.vmdk", []byte("KDMV"))
	create(t, dir, "cut.qcow2", "", "1M", "write -P 1 0 1M")
	if err := os.Truncate(filepath.Join(dir, "cut.qcow2"), 200000); err != nil {
		t.Fatal(err)
	}
	s := scanDir(t, dir)
	expect(t, s, `cut.qcow2 broken cut
external.qcow2 unsupported external
luks.qcow2 encrypted luks
luks.qcow2 encrypted luks
old.vmdk unsupported old
old.vmdk unsupported old`)
	// A data file is no disk, but the one who misses it is told where it went.
	if len(s.listing.Problems) != 1 || !strings.Contains(s.listing.Problems[0].Error(), "data.raw: it is left out: it is the external data file of external.qcow2") {
		t.Errorf("problems %v", s.listing.Problems)
	}
	if reason := s.of(t, "luks", 2)[1].Reason; !strings.HasPrefix(reason, "backing file luks.qcow2: qcow2 image with LUKS") {
		t.Errorf("reason %q", reason)
	}
}

func TestScanReadsLittle(t *testing.T) {
	dir := t.TempDir()
	// 16 TiB in clusters of 64 KiB have a first-level table of 256 KiB; in clusters of 4 KiB it would have 64 MiB.
	create(t, dir, "huge.qcow2", "", "16T", "write -P 1 15T 1M")
	tool(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "table.qcow2", "4T")
	for k := range 20 {
		tool(t, dir, "qemu-img", "snapshot", "-c", fmt.Sprint("s", k), "huge.qcow2")
	}
	s := scanDir(t, dir)
	if read := s.root.BytesRead(); read > 2*source.ScanLimit {
		t.Errorf("%d bytes read of two files", read)
	}
	s.of(t, "huge", 21)
	content := opened(t, s.of(t, "table", 1)[0])
	var zero int64
	for e, err := range disk(t, content, 0).Extents(context.Background(), nil) {
		if err != nil || e.Kind != backup.ExtentZero {
			t.Fatalf("%+v, %v", e, err)
		}
		zero += e.Length
	}
	if zero != 4<<40 {
		t.Errorf("%d bytes of zeros", zero)
	}
}

func TestPreallocatedClustersAreZeros(t *testing.T) {
	dir := t.TempDir()
	tool(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "disk.qcow2", "32M")
	write(t, dir, "disk.qcow2", "write -P 1 5M 1M")
	_, kinds := readDisk(t, disk(t, opened(t, scanDir(t, dir).of(t, "disk", 1)[0]), 0), nil, nil)
	if kinds[backup.ExtentZero] < 30<<20 {
		t.Errorf("%v", kinds)
	}
}

func TestCancelledScan(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "a.raw", []byte("a"))
	_, listing := openRoot(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (Format{}).Scan(ctx, listing); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
