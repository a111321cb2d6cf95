package pagecache_test

import (
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/pagecache"
	"ferry/internal/pagecache/pagecachetest"
)

const mebibyte = 1 << 20

// readBehind reads a file in pieces, in the order of their numbers, and returns how much of it was in the cache at most.
func readBehind(t *testing.T, path string, piece int64, order []int64) (most int64) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	behind := pagecache.NewBehind(file, info.Size())
	buffer := make([]byte, piece)
	for _, number := range order {
		behind.Reading(number*piece, piece)
		if _, err := file.ReadAt(buffer, number*piece); err != nil {
			t.Fatal(err)
		}
		pages, err := pagecache.Resident(file, 0, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, pages*int64(os.Getpagesize()))
	}
	behind.Close()
	return most
}

func count(n int64) (order []int64) {
	for i := range n {
		order = append(order, i)
	}
	return order
}

func TestWhatIsReadOnceLeavesTheCache(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	for _, piece := range []int64{128 << 10, 3 * mebibyte} {
		const size = 192 * mebibyte
		pagecachetest.File(t, path, size, 0)
		if most := readBehind(t, path, piece, count(size/piece)); most > 128*mebibyte {
			t.Errorf("pieces of %d: %d MiB were in the cache at once", piece, most/mebibyte)
		}
		pagecachetest.Resident(t, path, 0, size, 0)
	}
}

// A header that each listing reads again stays.
func TestWhatIsLittleStays(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	const size, piece = 16 * mebibyte, 128 << 10
	pagecachetest.File(t, path, size, 0)
	readBehind(t, path, piece, []int64{0, size/piece - 1})
	pagecachetest.Resident(t, path, 0, piece, piece)
	pagecachetest.Resident(t, path, size-piece, piece, piece)
}

func TestWhatIsReadInAnyOrderLeavesTheCache(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	const size = 16 * mebibyte
	pagecachetest.File(t, path, size, 0)
	order := count(16)
	for i := range order {
		order[i] = order[i] * 7 % 16
	}
	readBehind(t, path, mebibyte, order)
	pagecachetest.Resident(t, path, 0, size, 0)
}

func TestWhatWasInTheCacheStays(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	const size, warm = 16 * mebibyte, 4 * mebibyte
	pagecachetest.File(t, path, size, warm)
	readBehind(t, path, mebibyte, count(16))
	pagecachetest.Resident(t, path, 0, warm, warm)
	pagecachetest.Resident(t, path, warm, size-warm, 0)
}

// The kernel goes through all pages that are in the cache to say how many they are: it is not asked of what nobody reads.
func TestOnlyWhatIsReadIsLookedAt(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	const size, section = 192 * mebibyte, 16 * mebibyte
	pagecachetest.File(t, path, size, size)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	behind := pagecache.NewBehind(file, size)
	defer behind.Close()
	for _, c := range []struct{ offset, length, looked int64 }{
		{0, 12, 2}, // and the one after it, where the kernel may read ahead
		{100, mebibyte, 2},
		{5 * section, 1, 4},
		{6*section - 1, 2, 5},
		{size - 1, 1, 6},
		{0, size, size / section},
	} {
		if behind.Reading(c.offset, c.length); int64(behind.Looked()) != c.looked {
			t.Errorf("with %d bytes at %d the kernel was asked of %d sections, want %d", c.length, c.offset, behind.Looked(), c.looked)
		}
	}
	pagecachetest.Resident(t, path, 0, size, size)
}

func TestAMappingTellsTheSame(t *testing.T) {
	path := filepath.Join(pagecachetest.Folder(t), "file")
	const size, warm = 80*mebibyte + 8, 70 * mebibyte
	pagecachetest.File(t, path, size, warm)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	told := func(resident func(*os.File, int64, int64) (int64, error)) int64 {
		pages, err := resident(file, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	// The kernel may take some of it at any moment, and nobody reads more.
	before, mapped, after := told(pagecache.Resident), told(pagecache.ResidentByMapping), told(pagecache.Resident)
	if mapped > before || mapped < after {
		t.Errorf("%d pages are in the cache as of a mapping, %d before and %d afterwards", mapped, before, after)
	}
}
