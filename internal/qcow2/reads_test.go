package qcow2

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// countingReader counts reads.
type countingReader struct {
	*bytes.Reader
	mutex sync.Mutex
	reads int
}

func (r *countingReader) ReadAt(p []byte, offset int64) (int, error) {
	r.mutex.Lock()
	r.reads++
	r.mutex.Unlock()
	return r.Reader.ReadAt(p, offset)
}

func TestContiguousClustersAreOneRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "raw"), bytes.Repeat([]byte{7}, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for options, limit := range map[string]int{"cluster_size=64k": 8 + 2, "cluster_size=4k": 8 + 8, "extended_l2=on": 8 + 2} {
		run(t, dir, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, "raw", "disk")
		content, err := os.ReadFile(filepath.Join(dir, "disk"))
		if err != nil {
			t.Fatal(err)
		}
		reader := &countingReader{Reader: bytes.NewReader(content)}
		image, err := Open(reader, int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		reader.reads = 0
		readAll(t, image, 1<<20)
		if reader.reads > limit {
			t.Errorf("%s: %d reads for eight pieces", options, reader.reads)
		}
	}
}

var countAllocations = true

func TestParallelReadsAndMemory(t *testing.T) {
	dir := t.TempDir()
	for _, options := range []string{"cluster_size=512", "cluster_size=64k", "compression_type=zstd,cluster_size=64k"} {
		command := []string{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, "raw", "disk"}
		if strings.Contains(options, "zstd") {
			command = append(command[:2:2], append([]string{"-c"}, command[2:]...)...)
		}
		want := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuv"), 3<<20/32)
		if err := os.WriteFile(filepath.Join(dir, "raw"), want, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, dir, command...)
		image := openChain(t, dir, "disk")
		var wait sync.WaitGroup
		for worker := range 4 {
			wait.Go(func() {
				p := make([]byte, 10000)
				for k := range 200 {
					offset := (k*7919 + worker*104729) * 13 % (len(want) - len(p))
					if _, err := image.ReadAt(p, int64(offset)); err != nil || !bytes.Equal(p, want[offset:offset+len(p)]) {
						t.Errorf("%s: read at %d: %v", options, offset, err)
						return
					}
				}
			})
		}
		wait.Wait()
		p := make([]byte, 256<<10)
		offset := int64(0)
		allocations := testing.AllocsPerRun(50, func() {
			if _, err := image.ReadAt(p, offset); err != nil {
				t.Error(err)
			}
			offset = (offset + 100000) % (int64(len(want) - len(p)))
		})
		if countAllocations && allocations > 1 {
			t.Errorf("%s: %.0f allocations a read", options, allocations)
		}
	}
}

func BenchmarkSequentialRead(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "raw"), bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuv"), 32<<20/32), 0o600); err != nil {
		b.Fatal(err)
	}
	run(b, dir, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "raw", "disk")
	image := openChain(b, dir, "disk")
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for k := 0; b.Loop(); k++ {
		if _, err := image.ReadAt(p, int64(k%32)<<20); err != nil {
			b.Fatal(err)
		}
	}
}
