package spill

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Pieces keeps bytes in a temporary file, one piece behind the other. It takes at most half of the space that is free: it is for what can
// be had again, at a cost. It belongs to one goroutine.
type Pieces struct {
	dir  string
	file *os.File
	size int64
}

// NewPieces makes a file of pieces, once the first is added; an empty dir means the system's folder for temporary files.
func NewPieces(dir string) *Pieces { return &Pieces{dir: dir} }

// Add adds a piece and returns where it begins. An error, which wraps ErrTemporary, leaves the others as they are.
func (p *Pieces) Add(piece []byte) (offset int64, err error) {
	if p.file == nil {
		if p.file, err = temporary(p.dir); err != nil {
			return 0, err
		}
	}
	var free unix.Statfs_t
	if err := unix.Fstatfs(int(p.file.Fd()), &free); err != nil {
		return 0, failed(err)
	}
	if p.size+int64(len(piece)) > int64(free.Bavail)*free.Frsize {
		return 0, failed(unix.ENOSPC)
	}
	if _, err := p.file.WriteAt(piece, p.size); err != nil {
		return 0, failed(err)
	}
	offset = p.size
	p.size += int64(len(piece))
	return offset, nil
}

// Read fills b with what was added from an offset on. Errors wrap ErrTemporary; there are fewer bytes: io.EOF, too.
func (p *Pieces) Read(b []byte, offset int64) error {
	if p.file == nil {
		return failed(io.EOF)
	}
	if _, err := p.file.ReadAt(b, offset); err != nil {
		return failed(err)
	}
	return nil
}

// Close gives the space back, and forgets all pieces. More can be added afterwards.
func (p *Pieces) Close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file, p.size = nil, 0
	return err
}
