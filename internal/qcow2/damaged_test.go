package qcow2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestDamagedImagesAgainstQEMU flips bits in headers and tables. What is read then is what qemu-img reads, if both read it. That one
// of the two refuses it is no mistake: QEMU looks at reference counts, which are not read here, and shows zeros for what a
// file does not have, which is refused here.
func TestDamagedImagesAgainstQEMU(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for _, options := range []string{"compat=0.10,cluster_size=512", "cluster_size=4k", "extended_l2=on,cluster_size=16k", "extended_l2=on,compression_type=zstd"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", options, "good", "700000")
			qemuIO(t, dir, "good", "write -P 1 0 70000", "write -P 2 128k 64k", "write -z 320k 64k", "write -P 3 400k 30k")
			for _, at := range []string{"256k", "512k"} {
				run(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -c -P 4 "+at+" 64k", "good")
			}
			good, err := os.ReadFile(filepath.Join(dir, "good"))
			if err != nil {
				t.Fatal(err)
			}
			places := tablePlaces(t, good)
			random := rand.New(rand.NewPCG(uint64(len(options)), 0))
			equal := 0
			for range rounds {
				bad := bytes.Clone(good)
				bad[places[random.IntN(len(places))]] ^= 1 << random.IntN(8)
				bad[random.IntN(headerV3)] ^= byte(random.IntN(2) * random.IntN(256))
				if sameAsQEMU(t, dir, bad) {
					equal++
				}
			}
			if equal == 0 {
				t.Error("none was read by both")
			}
		})
	}
}

// tablePlaces are the offsets of the bytes of an image's tables that map its disk.
func tablePlaces(t *testing.T, content []byte) []int {
	t.Helper()
	image, err := Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	var places []int
	for k := range image.needed() {
		entry, err := image.entry(k)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 8 {
			places = append(places, int(image.l1Offset+8*k)+n)
		}
		offset, err := image.tableOffset(entry, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range int(min(image.file.header.ClusterSize, 1024)) {
			if offset != 0 {
				places = append(places, int(offset)+n)
			}
		}
	}
	return places
}

// sameAsQEMU is true if both read an image; then they read the same.
func sameAsQEMU(t *testing.T, dir string, content []byte) bool {
	t.Helper()
	image, err := Open(bytes.NewReader(content), int64(len(content)))
	if err != nil || image.Size() > 16<<20 {
		return false
	}
	image.SetBacking(nil)
	got := make([]byte, image.Size())
	if _, err := image.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	if err := os.WriteFile(filepath.Join(dir, "bad"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if !tries(dir, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "bad", "want") {
		return false
	}
	want, err := os.ReadFile(filepath.Join(dir, "want"))
	if err != nil {
		t.Fatal(err)
	}
	// QEMU's disks have whole sectors.
	if len(want) != len(got)/512*512 || !bytes.Equal(got[:len(want)], want) {
		kept := filepath.Join(os.TempDir(), "damaged.qcow2")
		t.Errorf("first difference at %d of %d and %d; the image is %s (%v)", difference(got, want), len(got), len(want), kept, os.WriteFile(kept, content, 0o600))
	}
	return true
}
