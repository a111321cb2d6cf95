//go:build integration

package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"ferry/internal/vma"
)

// sourceTime is when the first made backup was taken; later ones follow in days.
var sourceTime = time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)

// dump is a vzdump archive to be made.
type dump struct {
	vmid int
	// uuid is the machine's, in qemu-server.conf; empty writes none.
	uuid string
	name string
	day  int
	// disks are sources of content, in files so that the test's own memory stays small: a child's peak begins with it.
	disks []vma.DeviceContent
	order func(*vma.Archive)
}

func (d dump) fileName() string {
	return fmt.Sprintf("vzdump-qemu-%d-%s.vma.zst", d.vmid, sourceTime.AddDate(0, 0, d.day).Format("2006_01_02-15_04_05"))
}

func (d dump) archive() *vma.Archive {
	config := fmt.Sprintf("name: %s\nmemory: 512\n", d.name)
	if d.uuid != "" {
		config += "smbios1: uuid=" + d.uuid + "\n"
	}
	archive := &vma.Archive{
		Created: sourceTime.AddDate(0, 0, d.day), Devices: d.disks, Configs: []vma.Config{{Name: "qemu-server.conf", Data: []byte(config)}},
	}
	binary.BigEndian.PutUint64(archive.UUID[:], uint64(d.vmid)<<32|uint64(d.day))
	copy(archive.UUID[8:], d.uuid)
	if d.order != nil {
		d.order(archive)
	}
	return archive
}

// write makes the archive in a folder and returns its path.
func (d dump) write(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(folder, d.fileName())
	compressed(t, path, func(w io.Writer) error {
		_, err := d.archive().WriteTo(w)
		return err
	})
	when := sourceTime.AddDate(0, 0, d.day)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
	return path
}

// compressed makes a zstd file of what write writes.
func compressed(t *testing.T, path string, write func(io.Writer) error) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	encoder, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewWriterSize(encoder, 1<<20)
	for _, step := range []func() error{func() error { return write(buffered) }, buffered.Flush, encoder.Close, file.Close} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// content makes size bytes that are the same for the same seed: mostly noise, some text, some zeros, in runs of 256
// KiB, so that packs fill by stored size and by content, and blocks of every kind meet.
func content(w io.Writer, seed uint64, size int64) error {
	source := rand.New(rand.NewPCG(seed, 1))
	piece := make([]byte, 256*kib)
	for size > 0 {
		p := piece[:min(size, int64(len(piece)))]
		switch kind := source.IntN(10); {
		case kind < 7:
			for i := 0; i+8 <= len(p); i += 8 {
				binary.LittleEndian.PutUint64(p[i:], source.Uint64())
			}
		case kind < 9:
			p = p[:0]
			for int64(len(p)) < min(size, int64(len(piece))) {
				p = fmt.Appendf(p, "%016x the quick brown ferry jumps over the lazy dock %d\n", source.Uint64(), size)
			}
			p = p[:min(size, int64(len(piece)))]
		default:
			clear(p)
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		size -= int64(len(p))
	}
	return nil
}

// contentFile makes a file of such content.
func contentFile(t *testing.T, path string, seed uint64, size int64) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buffered := bufio.NewWriterSize(file, 1<<20)
	if err := content(buffered, seed, size); err != nil {
		t.Fatal(err)
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
}

// device is a disk whose content is a file of such content, made beside the sources.
func device(t *testing.T, name string, seed uint64, size int64) vma.DeviceContent {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	contentFile(t, path, seed, size)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return vma.DeviceContent{Name: name, Size: size, Content: file}
}

// sumOf is the SHA-256 of a made disk.
func sumOf(t *testing.T, d vma.DeviceContent) string {
	t.Helper()
	return sumFile(t, d.Content.(*os.File).Name())
}

const (
	uuidOne = "0ab5b3a4-9f5e-4f7f-8f63-4cf1c2a6a111"
	uuidTwo = "1bc6c4b5-af6f-5a80-9074-5d02d3b7b222"
)
