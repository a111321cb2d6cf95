package vzdump

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"ferry/internal/source"
	"ferry/internal/vma"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	qemuBase = "vzdump-qemu-100-2026_11_20-01_00_00"
	lxcBase  = "vzdump-lxc-101-2026_11_20-01_00_00"
	smbios   = "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f"
	conf     = "name: web01\ntags: prod;web\nsmbios1: uuid=" + smbios + "\n"
)

var created = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

// testVMA is a small machine with a disk of data and zeros, EFI variables, TPM state and RAM state.
func testVMA(config string) (*vma.Archive, [][]byte) {
	random := rand.New(rand.NewPCG(5, 6))
	archive := &vma.Archive{UUID: [16]byte{0xaa, 15: 0xbb}, Created: created, Configs: []vma.Config{{Name: "qemu-server.conf", Data: []byte(config)}}}
	var contents [][]byte
	for _, device := range []struct {
		name string
		size int
	}{{"drive-scsi0", 40*vma.ClusterSize + 1536}, {"drive-efidisk0", 540672}, {"drive-tpmstate0-backup", 4 << 20}, {vma.StateDevice, 3 * vma.ClusterSize}} {
		content := make([]byte, device.size)
		for at := 0; at+8 <= min(device.size, 10*vma.ClusterSize); at += 8 {
			binary.LittleEndian.PutUint64(content[at:], random.Uint64())
		}
		content[len(content)-1] = 1
		contents = append(contents, content)
		archive.Devices = append(archive.Devices, vma.DeviceContent{Name: device.name, Size: int64(device.size), Content: bytes.NewReader(content)})
	}
	return archive, contents
}

func encodeVMA(t testing.TB, archive *vma.Archive) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := archive.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// testTar is a container as vzdump writes it: the configuration comes first.
func testTar(t testing.TB, config string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, file := range []struct{ name, content string }{
		{"./etc/vzdump/pct.conf", config}, {"./etc/hostname", "ct101\n"}, {"./var/big", strings.Repeat("lorem ipsum ", 100_000)},
	} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.content)), Mode: 0o644, ModTime: created}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, file.content)
	}
	w.Close()
	return out.Bytes()
}

func compressed(t testing.TB, raw []byte, compression string) []byte {
	t.Helper()
	var out bytes.Buffer
	switch compression {
	case "":
		return raw
	case "gz", "tgz":
		w := gzip.NewWriter(&out)
		w.Write(raw)
		w.Close()
	case "zst":
		out.Write(zstdFrame(t, raw, true))
	case "lzo":
		out.Write(storedLzop(raw))
	default:
		t.Fatalf("no encoder for %s", compression)
	}
	return out.Bytes()
}

func zstdFrame(t testing.TB, raw []byte, checksum bool) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderCRC(checksum), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	w.Write(raw)
	w.Close()
	return out.Bytes()
}

// storedLzop is an lzop file whose blocks are stored as they are, with adler32.
func storedLzop(raw []byte) []byte {
	header := []byte{0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 1, 5, 0, 0, 0, 1, 17: 0, 24: 0}
	out := append([]byte("\x89LZO\x00\r\n\x1a\n"), header...)
	out = binary.BigEndian.AppendUint32(out, adler32.Checksum(header))
	for len(raw) > 0 {
		block := raw[:min(len(raw), 256<<10)]
		raw = raw[len(block):]
		out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
		out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
		out = binary.BigEndian.AppendUint32(out, adler32.Checksum(block))
		out = append(out, block...)
	}
	return append(out, 0, 0, 0, 0)
}

func put(t testing.TB, folder, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// onePoint scans a folder with one file in it.
func onePoint(t testing.TB, name string, content []byte) source.Point {
	t.Helper()
	folder := t.TempDir()
	put(t, folder, name, content)
	points := scanFolder(t, folder)
	if len(points) != 1 {
		t.Fatalf("%d points, want 1", len(points))
	}
	return points[0]
}
