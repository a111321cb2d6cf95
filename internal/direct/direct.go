// Package direct says what can be written past the page cache. For large pieces that is faster than through it and costs
// a third of the processor's time, a sync finds little to wait for, and the machine's cache keeps what it had.
//
// The package needs Linux.
package direct

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Align is what memory, offset and length of a write past the page cache must be multiples of, in bytes: the largest
// block of the disks there are.
const Align = 4096

// hugePage is the size of a huge page, in bytes, on the machines where they pay most.
const hugePage = 2 << 20

// Memory makes memory that can be written past the page cache. If the size is a multiple of 2 MiB it is of huge pages where
// the kernel has some to give: it hands the disk a few long pieces then, not one for each 4 KiB.
//
// To begin where a huge page begins it takes 2 MiB more of the heap than the size, so twice as much for a piece of 2 MiB. That
// counts for the collector and its limit: it is for pieces that are used again and again.
func Memory(size int) []byte {
	room := make([]byte, size+hugePage)
	skip := -int(uintptr(unsafe.Pointer(&room[0]))) & (hugePage - 1)
	memory := room[skip : skip+size : skip+size]
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // advice: small pages do as well
	return memory
}

// Fit is true if the file lies on one of the file systems whose writes past the page cache were measured to be faster
// and cheaper, and that take them as they come. On others the kernel's own writing is best.
func Fit(file *os.File) bool {
	var status unix.Statfs_t
	err := control(file, func(fd int) error { return unix.Fstatfs(fd, &status) })
	return err == nil && (status.Type == unix.EXT4_SUPER_MAGIC || status.Type == unix.XFS_SUPER_MAGIC)
}

// Aligned is true if the bytes can be written at the offset past the page cache.
func Aligned(p []byte, offset int64) bool {
	return len(p)%Align == 0 && offset%Align == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))%Align == 0
}

// Set makes all writes to an open file go past the page cache, or through it.
func Set(file *os.File, past bool) error {
	return control(file, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		flags &^= unix.O_DIRECT
		if past {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
		return err
	})
}

func control(file *os.File, call func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = call(int(fd)) })
	return errors.Join(err, failed)
}
