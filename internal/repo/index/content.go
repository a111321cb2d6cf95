package index

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// content is a segment's bytes.
type content struct {
	// bytes are all of them: mapped, or in memory.
	bytes []byte
	// file that is mapped; nil: the bytes are in memory.
	file *os.File
}

// mapFile maps a file, which belongs to the content from then on. Neighbours of what is looked at are not read: ids
// are hashes, and the next one is anywhere.
func mapFile(file *os.File) (content, error) {
	info, err := file.Stat()
	if err == nil && (info.Size() <= 0 || int64(int(info.Size())) != info.Size()) {
		err = errors.New(file.Name() + " has no size that can be mapped")
	}
	var mapped []byte
	if err == nil {
		mapped, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		file.Close()
		return content{}, err
	}
	_ = unix.Madvise(mapped, unix.MADV_RANDOM) // without, it is slower
	return content{bytes: mapped, file: file}, nil
}

// ReadAt reads as from a file: what goes through all of a segment reads it in large pieces, and maps nothing.
func (c content) ReadAt(p []byte, offset int64) (int, error) {
	if c.file != nil {
		return c.file.ReadAt(p, offset)
	}
	n := copy(p, c.bytes[min(offset, int64(len(c.bytes))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// write puts bytes in their place in the file.
func (c content) write(p []byte, offset int64) error {
	_, err := c.file.WriteAt(p, offset)
	return err
}

// release gives back the memory that mapped bytes of a file take up. They stay where they are.
func (c content) release(from, to int64) {
	if c.file == nil {
		return
	}
	const page = 1 << 16
	if from = from / page * page; from < to {
		_ = unix.Madvise(c.bytes[from:to], unix.MADV_DONTNEED) // what it cannot release it keeps
	}
}

func (c content) close() error {
	if c.file == nil {
		return nil
	}
	return errors.Join(unix.Munmap(c.bytes), c.file.Close())
}
