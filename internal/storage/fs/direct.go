package fs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// directLeast is the least that is written past the page cache at once, in bytes: packs come in such pieces, and
	// nothing else that is read again soon.
	directLeast = 1 << 20
	// directAlign is what memory, offset and length must be multiples of: the largest block of the disks there are.
	directAlign = 4096
)

// directFit is true on the file systems whose writes past the page cache were measured to be faster and cheaper, and
// that take them as they come. On others the kernel's own writing is best.
func directFit(folder *os.File) bool {
	var status unix.Statfs_t
	err := control(folder, func(fd int) error { return unix.Fstatfs(fd, &status) })
	return err == nil && (status.Type == unix.EXT4_SUPER_MAGIC || status.Type == unix.XFS_SUPER_MAGIC)
}

// write appends to the draft: large aligned pieces past the page cache, which the machine has better uses for, and
// which the sync in Commit would have to wait for.
func (w *writer) write(p []byte) (int, error) {
	direct := w.directFit && len(p) >= directLeast && len(p)%directAlign == 0 && w.size%directAlign == 0 &&
		uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directAlign == 0
	if direct != w.direct {
		if err := w.setDirect(direct); err != nil {
			w.directFit, direct = false, false
		}
	}
	n, err := w.draft.file.Write(p)
	if direct && errors.Is(err, unix.EINVAL) { // a device with blocks that are larger still
		w.directFit = false
		if err := w.setDirect(false); err != nil {
			return n, err
		}
		more, err := w.draft.file.Write(p[n:])
		return n + more, err
	}
	return n, err
}

// setDirect makes writes go past the page cache, or through it.
func (w *writer) setDirect(direct bool) error {
	err := control(w.draft.file, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		flags &^= unix.O_DIRECT
		if direct {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
		return err
	})
	if err == nil {
		w.direct = direct
	}
	return err
}
