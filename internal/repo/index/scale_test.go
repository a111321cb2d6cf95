//go:build scale

package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/repo/format"
)

// Measures the index at the size in FERRY_SCALE_BLOCKS, in the folder FERRY_SCALE_DIR, which needs 100 bytes for each.
// docs/performance.md has the figures. Packs have 512 blocks: 64 MiB of blocks of 128 KiB that do not shrink.

const (
	scalePack = 512
	scaleRun  = 1024 * scalePack // entries of a run: what is sorted in memory
)

// scaleID is the id of block n: as good as a hash.
func scaleID(n uint64) (id format.ID) {
	for i := range 4 {
		x := n*4 + uint64(i) + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(id[i*8:], x^x>>31)
	}
	return id
}

func scaleEntry(n uint64) Entry {
	e := Entry{ID: scaleID(n)}
	random := scaleID(1<<60 + n/scalePack)
	copy(e.Pack[:8], random[:])
	binary.BigEndian.PutUint64(e.Pack[8:], n/scalePack)
	e.Offset, e.Stored, e.Plain = 64+uint32(n%scalePack)*131168, 131072, 131072
	return e
}

func scaleCovered(from, to uint64) []Covered {
	var covered []Covered
	for n := from; n < to; n += scalePack {
		covered = append(covered, Covered{scaleEntry(n).Pack, scalePack})
	}
	return covered
}

// peak returns the most memory that was resident since the last call, in MiB.
func peak() int {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return kib >> 10
}

// processor is how long this process has used one.
func processor() time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestScaleIndex(t *testing.T) {
	blocks, err := strconv.ParseUint(os.Getenv("FERRY_SCALE_BLOCKS"), 10, 64)
	dir := os.Getenv("FERRY_SCALE_DIR")
	if err != nil || dir == "" {
		t.Skip("FERRY_SCALE_BLOCKS and FERRY_SCALE_DIR say how much and where")
	}
	blocks = blocks / scaleRun * scaleRun
	debug.FreeOSMemory()
	peak()
	began, used := time.Now(), processor()
	step := func(what string, args ...any) {
		t.Logf("%-60s %8.2f s, processor %8.2f s, peak %4d MiB", fmt.Sprintf(what, args...), time.Since(began).Seconds(), (processor() - used).Seconds(), peak())
		debug.FreeOSMemory()
		peak()
		began, used = time.Now(), processor()
	}
	paths := scaleSegments(t, dir, blocks, step)
	open := func(checked bool) *Set {
		s := NewSet(format.Name{}, nil)
		for i, path := range paths {
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			segment, err := OpenFile(file, testHasher, checked)
			if err != nil {
				t.Fatal(err)
			}
			s.AddSegment(format.Name{byte(i)}, segment, nil)
		}
		return s
	}
	open(false).Close()
	step("opened, checked for the first time")
	s := open(true)
	step("opened %d segments", len(paths))
	lookups := 1_000_000
	for _, known := range []bool{true, false} {
		random := rand.New(rand.NewPCG(1, 2))
		for range lookups {
			n := random.Uint64N(blocks)
			if !known {
				n += 1 << 40
			}
			if place, ok, err := s.Find(t.Context(), scaleID(n)); err != nil || ok != known || (ok && place != scaleEntry(n).Place) {
				t.Fatalf("block %d: %v, %v, %v", n, place, ok, err)
			}
		}
		step("looked up %d ids, known: %v", lookups, known)
	}
	var entries uint64
	var last format.ID
	for e, err := range s.All(t.Context()) {
		if err != nil || bytes.Compare(e.ID[:], last[:]) < 0 {
			t.Fatal(err, "or out of order")
		}
		last = e.ID
		entries++
	}
	if entries != blocks {
		t.Fatalf("%d entries of %d", entries, blocks)
	}
	step("went through all %d entries in order", entries)
	s.Close()
	scaleCold(t, paths, blocks, step)
}

// scaleSegments makes the segments: runs that are sorted in memory, merged by fours as an ingest does, but at once.
func scaleSegments(t *testing.T, dir string, blocks uint64, step func(string, ...any)) []string {
	var runs []*Segment
	var raw int64
	for from := uint64(0); from < blocks; from += scaleRun {
		entries := make([]Entry, scaleRun)
		for i := range entries {
			entries[i] = scaleEntry(from + uint64(i))
		}
		content := Build(testHasher, entries)
		file, err := os.Create(filepath.Join(dir, "run"))
		if err == nil {
			_, err = file.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
		run, err := OpenFile(file, testHasher, true)
		if err != nil {
			t.Fatal(err)
		}
		raw += run.Size()
		runs = append(runs, run)
		os.Remove(file.Name())
	}
	step("%d blocks sorted in runs, %d MiB", blocks, raw>>20)
	var paths []string
	var size int64
	at := 0
	for _, group := range []int{64, 16, 4, 1} {
		for at+group <= len(runs) {
			path := filepath.Join(dir, fmt.Sprint("segment-", at))
			file, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			done, err := Merge(t.Context(), file, testHasher, runs[at:at+group], scaleCovered(uint64(at)*scaleRun, uint64(at+group)*scaleRun))
			if err != nil {
				t.Fatal(err)
			}
			file.Close()
			size += done.Size
			for _, run := range runs[at : at+group] {
				run.Close()
			}
			paths = append(paths, path)
			at += group
		}
	}
	step("merged into %d segments, %d MiB", len(paths), size>>20)
	return paths
}

// scaleCold looks up the blocks of a machine of 80,000 blocks, 10 GiB, in segments of which nothing is here.
func scaleCold(t *testing.T, paths []string, blocks uint64, step func(string, ...any)) {
	requests, read, tables := 0, 0, 0
	s := NewSet(format.Name{}, func(_ context.Context, pack format.Name) ([]Entry, error) {
		tables++
		number := binary.BigEndian.Uint64(pack[8:])
		entries := make([]Entry, scalePack)
		for i := range entries {
			entries[i] = scaleEntry(number*scalePack + uint64(i))
		}
		return entries, nil
	})
	for i, path := range paths {
		source, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		info, err := source.Stat()
		if err != nil {
			t.Fatal(err)
		}
		segment, err := OpenParts(Parts{Size: info.Size(), File: fileOf(t, nil), Whole: func(*Segment) error { return nil },
			Fetch: func(_ context.Context, p []byte, offset int64) error {
				requests++
				read += len(p)
				_, err := source.ReadAt(p, offset)
				return err
			}}, testHasher)
		if err != nil {
			t.Fatal(err)
		}
		s.AddSegment(format.Name{byte(i)}, segment, nil)
	}
	defer s.Close()
	// A first copy of 60,000 blocks, and 40 increments of 500, each in packs that others fill, too.
	find := func(n uint64) {
		if place, ok, err := s.Find(t.Context(), scaleID(n)); err != nil || !ok || place != scaleEntry(n).Place {
			t.Fatalf("block %d: %v, %v, %v", n, place, ok, err)
		}
	}
	first := blocks / 3
	for n := range uint64(60_000) {
		find(first + n)
	}
	for i := range uint64(40) {
		for n := range uint64(500) {
			find((blocks/50*i + 7777) + n)
		}
	}
	step("cold: 80,000 blocks: %d requests, %d MiB; %d pack tables", requests, read>>20, tables)
}
