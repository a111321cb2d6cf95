package qcow2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	reader "github.com/lima-vm/go-qcow2reader"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

func init() {
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		decoder, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	})
}

// run runs a QEMU tool in dir. Without the tools the test fails, except in short runs.
func run(t testing.TB, dir string, command ...string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		if testing.Short() {
			t.Skip(command[0] + " is not installed")
		}
		t.Fatalf("%s is needed; install the package qemu-utils", command[0])
	}
	for try := 1; ; try++ {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		// LUKS times its key derivation, which can fail where other programs take the processor.
		if err != nil && try < 10 && bytes.Contains(out, []byte("Unable to get accurate CPU usage")) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
		return
	}
}

// tries runs a tool that may fail.
func tries(dir string, command ...string) bool {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	return cmd.Run() == nil
}

// qemuIO writes to an image in dir.
func qemuIO(t testing.TB, dir, image string, commands ...string) {
	t.Helper()
	arguments := []string{"qemu-io", "-f", "qcow2"}
	for _, c := range commands {
		arguments = append(arguments, "-c", c)
	}
	run(t, dir, append(arguments, image)...)
}

// rawReader is a backing file of plain bytes.
type rawReader struct{ *bytes.Reader }

func (r rawReader) Size() int64 { return r.Reader.Size() }

// openChain opens an image in dir and its backing files beside it.
func openChain(t testing.TB, dir, name string) *Image {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	image, err := Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	switch h := image.Header(); {
	case h.BackingName == "":
	case h.BackingFormat == "raw":
		below, err := os.ReadFile(filepath.Join(dir, h.BackingName))
		if err != nil {
			t.Fatal(err)
		}
		image.SetBacking(rawReader{bytes.NewReader(below)})
	default:
		image.SetBacking(openChain(t, dir, h.BackingName))
	}
	return image
}

// readAll reads a disk in pieces of an odd size.
func readAll(t testing.TB, image *Image, piece int) []byte {
	t.Helper()
	content := make([]byte, image.Size())
	for offset := 0; offset < len(content); offset += piece {
		end := min(offset+piece, len(content))
		if n, err := image.ReadAt(content[offset:end], int64(offset)); n != end-offset || (err != nil && err != io.EOF) {
			t.Fatalf("read of %d at %d: %d, %v", end-offset, offset, n, err)
		}
	}
	return content
}

// fill writes a pattern that leaves holes, crosses clusters and ends in the last bytes of a disk of 3 MiB + 1536.
var fill = []string{
	"write -P 0x11 0 70000", "write -P 0x22 131072 65536", "write -P 0x33 1M 300k", "write -z 1100k 100k",
	"write -P 0x44 2000000 1111", "write -P 0x55 3145000 2264", "discard 1088k 4k",
}

const filledSize = "3147264"

// compare reads image and its reference made by qemu-img, and the runs of the image.
func compare(t *testing.T, dir, name string) {
	t.Helper()
	run(t, dir, "qemu-img", "convert", "-O", "raw", name, "want.raw")
	want, err := os.ReadFile(filepath.Join(dir, "want.raw"))
	if err != nil {
		t.Fatal(err)
	}
	image := openChain(t, dir, name)
	for _, piece := range []int{1 << 20, 4096 + 13} {
		if got := readAll(t, image, piece); !bytes.Equal(got, want) {
			t.Fatalf("%s in pieces of %d: first difference at %d of %d", name, piece, difference(got, want), len(want))
		}
	}
	checkRuns(t, image, want)
}

// checkRuns checks that runs cover the disk and that zeros are zeros.
func checkRuns(t testing.TB, image *Image, want []byte) {
	t.Helper()
	var next int64
	last := Kind(255)
	err := image.Extents(context.Background(), func(r Run) bool {
		if r.Offset != next || r.Length <= 0 || r.Kind == last {
			t.Fatalf("run %+v after kind %d at %d", r, last, next)
		}
		if r.Kind == Zero && len(bytes.Trim(want[r.Offset:r.End()], "\x00")) > 0 {
			t.Fatalf("run %+v is not zeros", r)
		}
		next, last = r.End(), r.Kind
		return true
	})
	if err != nil || next != image.Size() {
		t.Fatalf("runs end at %d of %d: %v", next, image.Size(), err)
	}
}

func difference(a, b []byte) int {
	for k := range min(len(a), len(b)) {
		if a[k] != b[k] {
			return k
		}
	}
	return min(len(a), len(b))
}

// secondOpinion compares with another reader of the format.
func secondOpinion(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := reader.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	want := make([]byte, other.Size())
	if _, err := io.ReadFull(io.NewSectionReader(other, 0, other.Size()), want); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, openChain(t, dir, name), 1<<20); !bytes.Equal(got, want) {
		t.Fatalf("%s: first difference at %d", name, difference(got, want))
	}
}

func TestFormatsAgainstQEMU(t *testing.T) {
	for _, options := range []string{
		"compat=0.10", "compat=0.10,cluster_size=512", "compat=1.1", "cluster_size=512", "cluster_size=4k", "cluster_size=2M",
		"refcount_bits=1", "lazy_refcounts=on", "extended_l2=on,cluster_size=128k", "extended_l2=on,cluster_size=16k",
		"preallocation=metadata", "extended_l2=on,preallocation=metadata", "compression_type=zstd",
	} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", options, "disk", filledSize)
			qemuIO(t, dir, "disk", fill[:4]...)
			compare(t, dir, "disk")
			qemuIO(t, dir, "disk", fill[4:]...)
			compare(t, dir, "disk")
			secondOpinion(t, dir, "disk")
		})
	}
}

func TestCompressedAgainstQEMU(t *testing.T) {
	source := t.TempDir()
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog. "), 30000)
	noise := make([]byte, 1<<20)
	state := uint32(1)
	for k := range noise {
		state = state*1664525 + 1013904223
		noise[k] = byte(state >> 24)
	}
	content := append(append(append([]byte{}, text...), make([]byte, 1<<20)...), noise[:len(noise)-512]...)
	content = content[:len(content)/512*512]
	if err := os.WriteFile(filepath.Join(source, "raw"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, options := range []string{
		"compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M", "compression_type=zstd",
		"compression_type=zstd,cluster_size=2M", "compression_type=zstd,cluster_size=4k", "extended_l2=on,compression_type=zstd",
	} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", options, filepath.Join(source, "raw"), "disk")
			if got := readAll(t, openChain(t, dir, "disk"), 1<<20); !bytes.Equal(got, content) {
				t.Fatalf("first difference at %d", difference(got, content))
			}
			// A mix of compressed and plain clusters.
			qemuIO(t, dir, "disk", "write -P 0x77 100000 200", "write -P 0x78 1M 70000")
			compare(t, dir, "disk")
			// The other reader cannot read compressed clusters below 64 KiB.
			if !strings.Contains(options, "cluster_size=512") && !strings.Contains(options, "cluster_size=4k") {
				secondOpinion(t, dir, "disk")
			}
		})
	}
}

func TestBackingAgainstQEMU(t *testing.T) {
	for _, c := range []struct{ options, middle, top string }{
		{"cluster_size=64k", "3147264", "3147264"},
		{"cluster_size=4k", "2000384", "4000256"},
		{"extended_l2=on", "5000192", "1000448"},
		{"compat=0.10", "1000448", "3147264"},
	} {
		t.Run(fmt.Sprintf("%s,%s,%s", c.options, c.middle, c.top), func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", c.options, "base", filledSize)
			qemuIO(t, dir, "base", fill...)
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", c.options, "-b", "base", "-F", "qcow2", "middle", c.middle)
			qemuIO(t, dir, "middle", "write -P 0x66 200k 5000", "write -P 0x67 970k 1000")
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top", c.top)
			qemuIO(t, dir, "top", "write -P 0x68 100k 90000", "write -z 300k 64k")
			for _, name := range []string{"base", "middle", "top"} {
				compare(t, dir, name)
			}
			// The other reader is wrong about backing files that are shorter than the image.
			if c.middle == c.top {
				secondOpinion(t, dir, "top")
			}
			run(t, dir, "qemu-img", "convert", "-O", "raw", "base", "base.raw")
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over", c.top)
			qemuIO(t, dir, "over", "write -P 0x69 64k 64k")
			compare(t, dir, "over")
		})
	}
}

func TestSnapshotsAndBitmapsAgainstQEMU(t *testing.T) {
	for _, options := range []string{"compat=0.10", "cluster_size=4k", "extended_l2=on", "refcount_bits=64"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", options, "disk", filledSize)
			var want [][]byte
			for k, command := range fill[:3] {
				qemuIO(t, dir, "disk", command)
				run(t, dir, "qemu-img", "snapshot", "-c", fmt.Sprintf("state %d", k), "disk")
				run(t, dir, "qemu-img", "convert", "-O", "raw", "disk", "state.raw")
				content, err := os.ReadFile(filepath.Join(dir, "state.raw"))
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, content)
			}
			qemuIO(t, dir, "disk", "write -P 0x99 0 1M")
			if options != "compat=0.10" {
				run(t, dir, "qemu-img", "bitmap", "--add", "disk", "bitmap0")
				run(t, dir, "qemu-img", "resize", "disk", "5M")
				qemuIO(t, dir, "disk", "write -P 0x9a 4M 70000")
			}
			compare(t, dir, "disk")
			image := openChain(t, dir, "disk")
			snapshots, err := image.Snapshots()
			if err != nil || len(snapshots) != len(want) {
				t.Fatalf("%d snapshots, %v", len(snapshots), err)
			}
			for k, s := range snapshots {
				if s.Name != fmt.Sprintf("state %d", k) || s.ID != fmt.Sprint(k+1) || s.Size != int64(len(want[k])) || s.Created.Year() < 2020 {
					t.Errorf("snapshot %+v", s)
				}
				state, err := image.Snapshot(k)
				if err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, state, 100000); !bytes.Equal(got, want[k]) {
					t.Fatalf("snapshot %d: first difference at %d", k, difference(got, want[k]))
				}
				checkRuns(t, state, want[k])
			}
			if _, err := image.Snapshot(len(want)); err == nil {
				t.Error("a snapshot that is not there was opened")
			}
		})
	}
}

func TestRefusedByName(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", "data_file=data", "external", "1M")
	run(t, dir, "qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks", "1M")
	run(t, dir, "qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", "aes", "1M")
	for name, want := range map[string]string{"external": "external data file: unsupported", "luks": "LUKS: encrypted", "aes": "AES: encrypted"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(bytes.NewReader(content), int64(len(content))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
