//go:build integration

package e2e

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/vma"
)

// memoryLimit is what any one run may have resident.
const memoryLimit = 400 * mib

// small fails the test if a run took more memory than it may.
func small(t *testing.T, r result) {
	t.Helper()
	if r.peak > memoryLimit {
		t.Errorf("%d MiB resident: ferry %v", r.peak/mib, r.args)
	}
}

// A clever order of clusters is the worst that a one-pass source can do: reversed, no block of it is whole before its
// second half came, and ids are found in the opposite order of the tree.
func TestMemoryOfALargeDisk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a disk of 2 TiB takes most of a minute")
	}
	const size = int64(2) << 40
	from := t.TempDir()
	began := time.Now()
	data := reversedArchive(t, filepath.Join(from, "vzdump-qemu-900-2026_11_20-01_00_00.vma.zst"), size)
	t.Logf("%d clusters of data; made in %s", len(data), time.Since(began).Round(time.Second))

	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	step := func(args ...string) result {
		t.Helper()
		began := time.Now()
		r := u.want(0, args...)
		t.Logf("%s: %s, %d MiB", args[0], time.Since(began).Round(100*time.Millisecond), r.peak/mib)
		small(t, r)
		return r
	}
	step("copy", from, to, "--create", "--json")
	step("verify", to, "--json")
	out := filepath.Join(t.TempDir(), "out")
	step("restore", to, "900", "--to", out, "--json")
	again := decode[copyReport](t, step("copy", from, to, "--json"))
	if again.Copied != 0 || again.SourceBytesRead > headLimit {
		t.Errorf("%+v", again)
	}

	disk, err := os.Open(filepath.Join(out, "drive-scsi0.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if info, err := disk.Stat(); err != nil || info.Size() != size {
		t.Fatalf("%v, %v", info, err)
	}
	got, want := make([]byte, vma.ClusterSize), make([]byte, vma.ClusterSize)
	for cluster := range data {
		if _, err := disk.ReadAt(got, cluster*vma.ClusterSize); err != nil {
			t.Fatal(err)
		}
		if clusterContent(want, cluster); !bytes.Equal(got, want) {
			t.Fatalf("cluster %d is not as it was", cluster)
		}
	}
	// What else is there must be holes: reading 2 TiB of zeros would take an hour.
	if blocks := allocated(t, disk); blocks > int64(len(data))*2*vma.ClusterSize+mib {
		t.Errorf("%d bytes are allocated for %d clusters", blocks, len(data))
	}
}

// clusterContent is what a cluster of the archive holds.
func clusterContent(p []byte, cluster int64) {
	source := rand.New(rand.NewPCG(uint64(cluster), 2))
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], source.Uint64())
	}
}

// reversedArchive writes an archive of one disk whose clusters descend, nearly all of them zeros, and returns those that
// are not. The header is package vma's; the tables are made here, because the writer would look at every zero.
func reversedArchive(t *testing.T, path string, size int64) map[int64]bool {
	t.Helper()
	const slots, tableSize = 59, 512
	data := map[int64]bool{}
	for source, clusters := rand.New(rand.NewPCG(9, 0)), size/vma.ClusterSize; len(data) < 600; {
		// Single clusters all over the disk, and some neighbours, of which both halves of a block come apart.
		at := source.Int64N(clusters - 2)
		data[at], data[at+1] = true, true
	}
	archive := dump{
		vmid: 900, uuid: uuidOne, name: "large", disks: []vma.DeviceContent{{Name: "drive-scsi0", Size: size}},
		order: func(a *vma.Archive) { a.Order = func(func(vma.Slot) bool) {} },
	}.archive()
	compressed(t, path, func(w io.Writer) error {
		if _, err := archive.WriteTo(w); err != nil {
			return err
		}
		table, blocks := make([]byte, tableSize), []byte(nil)
		piece := make([]byte, vma.ClusterSize)
		for cluster := size/vma.ClusterSize - 1; cluster >= 0; {
			clear(table)
			copy(table, "VMAE")
			copy(table[8:], archive.UUID[:])
			blocks = blocks[:0]
			for i := 0; i < slots && cluster >= 0; i++ {
				entry := uint64(1)<<32 | uint64(cluster)
				if data[cluster] {
					entry |= 0xffff << 48
					clusterContent(piece, cluster)
					blocks = append(blocks, piece...)
				}
				binary.BigEndian.PutUint64(table[40+8*i:], entry)
				cluster--
			}
			binary.BigEndian.PutUint16(table[6:], uint16(len(blocks)/4096))
			sum := md5.Sum(table)
			copy(table[24:], sum[:])
			for _, part := range [][]byte{table, blocks} {
				if _, err := w.Write(part); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return data
}
