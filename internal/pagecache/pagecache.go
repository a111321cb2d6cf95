// Package pagecache keeps what is read only once from pushing out of the machine's page cache what others use.
//
// The package needs Linux.
package pagecache

import (
	"errors"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// leastWindow is the least of a file that stays or goes as one, in bytes: a huge page, so that no folio is larger.
	leastWindow = 2 << 20
	// mostWindows bounds what is remembered of a file: of one above 128 GiB the windows are larger.
	mostWindows = 1 << 16
	// stayBytes is how much stays behind the readers of a file: parallel ones are not far from each other.
	stayBytes = 64 << 20
	// little is what may be read of a file without anything being dropped, in bytes: headers that each listing reads again.
	little = 1 << 20
	// section is how many windows are looked at together. It is more than the kernel reads ahead.
	section = 8
	// mappedAtOnce is how much is mapped at once where the kernel cannot tell by itself, in bytes.
	mappedAtOnce = 64 << 20
)

// Resident returns how many pages of a range of a file are in the page cache. It is an error where that cannot be told: the file
// belongs to somebody else, or the kernel does not say.
func Resident(file *os.File, offset, length int64) (pages int64, err error) {
	err = control(file, func(fd int) error {
		var found unix.Cachestat_t
		err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(offset), Len: uint64(length)}, &found, 0)
		if pages = int64(found.Cache); errors.Is(err, unix.ENOSYS) { // before Linux 6.5
			pages, err = resident(fd, offset, length)
		}
		return err
	})
	return pages, err
}

// resident is Resident by mappings, which are not touched. The offset is a multiple of a page's size.
func resident(fd int, offset, length int64) (pages int64, err error) {
	for end := offset + length; offset < end && err == nil; offset += mappedAtOnce {
		var more int64
		more, err = residentPiece(fd, offset, min(mappedAtOnce, end-offset))
		pages += more
	}
	return pages, err
}

func residentPiece(fd int, offset, length int64) (pages int64, err error) {
	mapped, err := unix.Mmap(fd, offset, int(length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	page := os.Getpagesize()
	present := make([]byte, (len(mapped)+page-1)/page)
	err = mincore(mapped, present)
	for _, p := range present {
		pages += int64(p & 1)
	}
	return pages, errors.Join(err, unix.Munmap(mapped))
}

// Drop takes a range of a file out of the page cache, but what is not on the disk yet or mapped by somebody. It is advice.
func Drop(file *os.File, offset, length int64) {
	_ = control(file, func(fd int) error { return unix.Fadvise(fd, offset, length, unix.FADV_DONTNEED) })
}

// Behind drops behind the readers of a file what was not in the page cache before they came:
//
//  1. Before the first read of a section of the file it looks which of its windows have something in the cache, and which of the next
//     section's, before the kernel reads ahead there. Somebody else uses that, perhaps the virtual machine: those stay. The kernel goes
//     through all pages that are there to say it, so nothing is asked of sections that nobody reads.
//  2. Of the windows that are read, some stay as long as parallel readers may want them. The oldest is dropped for each that comes.
//  3. At the end all goes that was looked at and did not stay: what the kernel read ahead, too. Where little was read nothing goes.
//
// What others bring into the cache meanwhile goes as well, unless they have it mapped or changed it: they read it once more. It is safe
// for parallel use.
type Behind struct {
	file   *os.File
	size   int64
	window int64 // bytes
	count  int64 // of windows

	mu     sync.Mutex
	read   int64   // bytes
	looked numbers // a bit for each section that was looked at
	keep   numbers // a bit for each window that stays
	recent []int64 // windows that are read and do not stay, oldest first
}

// numbers are as many as were set.
type numbers []uint64

func (b numbers) has(number int64) bool {
	return number/64 < int64(len(b)) && b[number/64]&(1<<(number%64)) != 0
}

func (b *numbers) set(number int64) {
	for number/64 >= int64(len(*b)) {
		*b = append(*b, 0)
	}
	(*b)[number/64] |= 1 << (number % 64)
}

// NewBehind is for a file of so many bytes, of which nothing is read yet.
func NewBehind(file *os.File, size int64) *Behind {
	window := int64(leastWindow)
	for size/window >= mostWindows {
		window *= 2
	}
	return &Behind{file: file, size: size, window: window, count: (size + window - 1) / window}
}

// Reading is called before a range is read.
func (b *Behind) Reading(offset, length int64) {
	if offset < 0 || length <= 0 || offset >= b.size {
		return
	}
	last := min(length-1, b.size-1-offset) + offset
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read += last - offset + 1
	first := offset / b.window
	last /= b.window
	for number := first / section; number <= last/section+1; number++ {
		b.look(number)
	}
	for ; first <= last; first++ {
		b.enter(first)
	}
}

// look finds out which windows of a section stay, once.
func (b *Behind) look(number int64) {
	if from, to := number*section, min((number+1)*section, b.count); from < to && !b.looked.has(number) {
		b.looked.set(number)
		b.lookAt(from, to)
	}
}

// lookAt finds out which windows stay, from one up to another that is none of them. If some of them is in the cache, and some not, it
// looks at each half.
func (b *Behind) lookAt(from, to int64) {
	offset := from * b.window
	length := min(to*b.window, b.size) - offset
	pages, err := Resident(b.file, offset, length)
	page := int64(os.Getpagesize())
	switch full := pages >= (length+page-1)/page; {
	case err == nil && pages == 0:
	case err != nil || full || to-from == 1:
		for ; from < to; from++ {
			b.keep.set(from)
		}
	default:
		half := (from + to) / 2
		b.lookAt(from, half)
		b.lookAt(half, to)
	}
}

func (b *Behind) enter(number int64) {
	if slices.Contains(b.recent, number) || b.keep.has(number) {
		return
	}
	b.recent = append(b.recent, number)
	if int64(len(b.recent))*b.window > max(stayBytes, 2*b.window) {
		Drop(b.file, b.recent[0]*b.window, b.window)
		b.recent = slices.Delete(b.recent, 0, 1)
	}
}

// Close drops what is left. It is for before the file is closed.
func (b *Behind) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read <= little {
		return
	}
	goes := func(number int64) bool { return b.looked.has(number/section) && !b.keep.has(number) }
	for from := int64(0); from < b.count; from++ {
		to := from
		for to < b.count && goes(to) {
			to++
		}
		if to > from {
			Drop(b.file, from*b.window, (to-from)*b.window)
			from = to
		}
	}
}

func control(file *os.File, call func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}
