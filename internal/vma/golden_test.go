package vma

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const samples = "../source/vzdump/testdata/golden"

func unpackSample(t testing.TB, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join(samples, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var unpacked io.Reader
	if filepath.Ext(name) == ".gz" {
		unpacked, err = gzip.NewReader(file)
	} else {
		unpacked, err = zstd.NewReader(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// The writer is held against Proxmox's own: given the same content in the same order it writes the same bytes.
func TestWriterAgainstSamples(t *testing.T) {
	for _, name := range []string{"vzdump-qemu-100-2026_11_20-01_00_00.vma.zst", "vzdump-qemu-100-2026_11_21-01_00_00.vma.gz"} {
		t.Run(name, func(t *testing.T) {
			raw := unpackSample(t, name)
			header, contents, err := read(t, bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			archive := &Archive{UUID: header.UUID, Created: header.Created, Configs: header.Configs}
			for i, device := range header.Devices {
				archive.Devices = append(archive.Devices, DeviceContent{Name: device.Name, Size: device.Size, Content: bytes.NewReader(contents[i])})
			}
			archive.Order = func(yield func(Slot) bool) {
				for _, at := range extents(raw) {
					for i := range slotsPerExtent {
						slot := u64(raw, at+offSlots+8*i)
						if !yield(Slot{Device: int(slotDevice(slot)) - 1, Cluster: slotCluster(slot)}) {
							return
						}
					}
				}
			}
			if !bytes.Equal(write(t, archive), raw) {
				t.Error("written archive differs from the sample")
			}
		})
	}
}
