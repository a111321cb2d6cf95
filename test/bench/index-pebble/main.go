// Command index-pebble does with Pebble, an embedded database, what the scale test of internal/repo/index does with segments:
// it puts as many ids with their places as it is told, looks some up, and says how long that takes and what it takes up. It is
// a module of its own, so that Ferry does not depend on Pebble's.
//
//	go run . -dir /var/tmp/pebble -blocks 50000000
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

const (
	packBlocks = 512
	batchSize  = 10_000
	lookups    = 1_000_000
	cacheSize  = 256 << 20
)

// blockID is the id of block n, the same as in the scale test.
func blockID(n uint64) []byte {
	id := make([]byte, 32)
	for i := range 4 {
		x := n*4 + uint64(i) + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(id[i*8:], x^x>>31)
	}
	return id
}

// place is pack, offset and two lengths: 28 bytes.
func place(n uint64) []byte {
	p := append(make([]byte, 0, 28), blockID(1<<60 + n/packBlocks)[:8]...)
	p = binary.BigEndian.AppendUint64(p, n/packBlocks)
	p = binary.BigEndian.AppendUint32(p, 64+uint32(n%packBlocks)*131168)
	return binary.BigEndian.AppendUint64(p, 131072<<32|131072)
}

// peak is the most memory that was resident, in MiB.
func peak() int {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return kib >> 10
}

// processor is how long this process has used one.
func processor() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	dir := flag.String("dir", "", "an empty folder")
	blocks := flag.Uint64("blocks", 1_000_000, "how many ids")
	flag.Parse()
	if err := run(*dir, *blocks); err != nil {
		log.Fatal(err)
	}
}

func run(dir string, blocks uint64) error {
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	options := &pebble.Options{Cache: cache, MemTableSize: 64 << 20, CompactionConcurrencyRange: func() (int, int) { return 1, 2 }}

	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	began, used := time.Now(), processor()
	step := func(what string, args ...any) {
		fmt.Printf("%-60s %8.2f s, processor %8.2f s, peak %4d MiB\n", fmt.Sprintf(what, args...), time.Since(began).Seconds(), (processor() - used).Seconds(), peak())
		began, used = time.Now(), processor()
	}
	db, err := pebble.Open(dir, options)
	if err != nil {
		return err
	}
	for from := uint64(0); from < blocks; from += batchSize {
		batch := db.NewBatch()
		for n := from; n < min(from+batchSize, blocks); n++ {
			if err := batch.Set(blockID(n), place(n), nil); err != nil {
				return err
			}
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
	}
	if err := db.Flush(); err != nil {
		return err
	}
	step("put %d ids", blocks)
	metrics := db.Metrics().Total()
	fmt.Printf("  written %d MiB\n", (metrics.TableBytesFlushed+metrics.TableBytesCompacted)>>20)
	if err := db.Close(); err != nil {
		return err
	}
	step("closed; %d MiB on disk", sizeOf(dir)>>20)
	if db, err = pebble.Open(dir, options); err != nil {
		return err
	}
	step("opened")
	for _, known := range []bool{true, false} {
		random := rand.New(rand.NewPCG(1, 2))
		for range lookups {
			n := random.Uint64N(blocks)
			if !known {
				n += 1 << 40
			}
			_, closer, err := db.Get(blockID(n))
			if (err == nil) != known {
				return fmt.Errorf("block %d: %w", n, err)
			}
			if err == nil {
				closer.Close()
			}
		}
		step("looked up %d ids, known: %v", lookups, known)
	}
	entries := uint64(0)
	all, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	for all.First(); all.Valid(); all.Next() {
		entries++
	}
	if err := all.Close(); err != nil || entries != blocks {
		return fmt.Errorf("%d entries, %w", entries, err)
	}
	step("went through all %d entries in order", entries)
	return db.Close()
}

func sizeOf(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}
