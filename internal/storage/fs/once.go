package fs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ReadOnceAt is ReadAt for bytes that are not wanted again soon. What was not in the system's cache before does not stay
// there: reading a whole repository pushes nothing out that others use. What was there stays.
func (r *reader) ReadOnceAt(p []byte, off int64) (int, error) {
	keep := cached(r.file, off, int64(len(p)))
	n, err := r.ReadAt(p, off)
	if !keep {
		_ = control(r.file, func(fd int) error { return unix.Fadvise(fd, off, int64(n), unix.FADV_DONTNEED) })
	}
	return n, err
}

// cached is true if the end of a range is in the cache, or if that cannot be told. The end, because the kernel reads ahead:
// it may have the beginning already although nobody but this reader asked for it.
func cached(file *os.File, off, length int64) bool {
	if length <= 0 {
		return true
	}
	last := [][]byte{make([]byte, 1)}
	err := control(file, func(fd int) error {
		_, err := unix.Preadv2(fd, last, off+length-1, unix.RWF_NOWAIT)
		return err
	})
	return !errors.Is(err, unix.EAGAIN)
}
