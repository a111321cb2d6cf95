package repo

import (
	"io"
	"sync"

	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// aheadPiece is how much of a pack is read at once, in bytes.
const aheadPiece = 4 << 20

// readAhead reads a pack's frames front to back in large pieces, each while the one before is looked at. Reads elsewhere
// go to the file. It belongs to one goroutine; what reads ahead ends with Close.
type readAhead struct {
	file storage.Reader
	// piece holds the bytes from start on, in memory; spare is memory for the next.
	piece         []byte
	start         int64
	memory, spare *[aheadPiece]byte
	// pending is the read of the next piece, if one is under way.
	pending chan aheadResult
	from    int64
}

type aheadResult struct {
	memory *[aheadPiece]byte
	piece  []byte
	err    error
}

// aheadPieces are used again by the packs that follow.
var aheadPieces = sync.Pool{New: func() any { return new([aheadPiece]byte) }}

// newReadAhead takes the file over.
func newReadAhead(file storage.Reader) *readAhead { return &readAhead{file: file} }

func (r *readAhead) read(p []byte, offset int64) (int, error) {
	if once, ok := r.file.(storage.OnceReader); ok {
		return once.ReadOnceAt(p, offset)
	}
	return r.file.ReadAt(p, offset)
}

// fetch begins to read the piece from an offset on.
func (r *readAhead) fetch(offset int64) {
	size := min(aheadPiece, r.file.Size()-offset)
	if size <= 0 {
		return
	}
	if r.spare == nil {
		r.spare = aheadPieces.Get().(*[aheadPiece]byte)
	}
	memory := r.spare
	r.spare = nil
	buffer := memory[:size]
	pending := make(chan aheadResult, 1)
	r.pending, r.from = pending, offset
	go func() {
		n, err := r.read(buffer, offset)
		if n == len(buffer) {
			err = nil
		}
		pending <- aheadResult{memory, buffer[:n], err}
	}()
}

// wait ends the read that is under way and makes its piece the current one. An error is one of what lies behind the piece.
func (r *readAhead) wait() error {
	got := <-r.pending
	r.pending = nil
	r.spare, r.memory, r.piece, r.start = r.memory, got.memory, got.piece, r.from
	return got.err
}

// ReadAt reads at an offset. A read that goes on where the last one ended is served from the pieces.
func (r *readAhead) ReadAt(p []byte, offset int64) (int, error) {
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		end := r.start + int64(len(r.piece))
		switch {
		case at >= r.start && at < end:
			done += copy(p[done:], r.piece[at-r.start:])
		case r.pending != nil && at == r.from:
			if err := r.wait(); err != nil || len(r.piece) == 0 {
				n, err := r.file.ReadAt(p[done:], at) // again, for what is wrong at just this place; what follows is read so, too
				return done + n, err
			}
			r.fetch(r.start + int64(len(r.piece)))
		case r.pending == nil && r.piece == nil && at == pack.FirstFrame:
			r.fetch(at)
		default:
			n, err := r.file.ReadAt(p[done:], at)
			return done + n, err
		}
	}
	return done, nil
}

// Close waits for the read that is under way and closes the file.
func (r *readAhead) Close() error {
	if r.pending != nil {
		_ = r.wait()
	}
	for _, memory := range []*[aheadPiece]byte{r.memory, r.spare} {
		if memory != nil {
			aheadPieces.Put(memory)
		}
	}
	r.memory, r.spare, r.piece = nil, nil, nil
	return r.file.Close()
}

var _ io.ReaderAt = (*readAhead)(nil)
