package repo

import (
	"context"
	"errors"
	"sync"

	"ferry/internal/answer"
	"ferry/internal/direct"
	"ferry/internal/storage"
)

const (
	// chunkSize is how much of a data pack is written at once: enough for a storage to write past the page cache, and a huge
	// page.
	chunkSize = 2 << 20
	// chunksBehind is how many chunks of a pack may wait for the storage before those who fill the pack wait.
	chunksBehind = 4
)

var errAborted = errors.New("pack was dropped")

// chunks are shared by all packs.
var chunks = sync.Pool{New: func() any { chunk := direct.Memory(chunkSize)[:0]; return &chunk }}

// packOut gathers what is written to a pack into chunks and writes them behind the caller: while one is on its way to
// the storage, the next is filled. One goroutine at a time may use it. It ends with Commit or Abort.
type packOut struct {
	out     storage.Writer
	chunk   *[]byte
	full    chan *[]byte
	writing sync.WaitGroup
	ended   bool

	mu     sync.Mutex // guards failed
	failed error
}

func newPackOut(out storage.Writer) *packOut {
	p := &packOut{out: out, full: make(chan *[]byte, chunksBehind)}
	p.writing.Go(p.run)
	return p
}

// run writes full chunks until there are no more. After an error it only takes them.
func (p *packOut) run() {
	for chunk := range p.full {
		if p.failure() == nil {
			if _, err := p.out.Write(*chunk); err != nil {
				p.mu.Lock()
				p.failed = err
				p.mu.Unlock()
				if errors.Is(err, answer.ErrNone) {
					continue // it may still be read
				}
			}
		}
		chunks.Put(chunk)
	}
}

func (p *packOut) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// behind is true while the storage is slower than those who fill the pack.
func (p *packOut) behind() bool { return len(p.full) == cap(p.full) }

// Write takes bytes. An error may be of any write before.
func (p *packOut) Write(bytes []byte) (int, error) {
	written := len(bytes)
	for len(bytes) > 0 {
		if p.chunk == nil {
			p.chunk = chunks.Get().(*[]byte)
			*p.chunk = (*p.chunk)[:0]
		}
		n := min(len(bytes), cap(*p.chunk)-len(*p.chunk))
		*p.chunk = append(*p.chunk, bytes[:n]...)
		bytes = bytes[n:]
		if len(*p.chunk) == cap(*p.chunk) {
			p.hand()
		}
	}
	return written, p.failure()
}

// hand gives the chunk to run.
func (p *packOut) hand() {
	p.full <- p.chunk
	p.chunk = nil
}

// end waits until all is written.
func (p *packOut) end() {
	if p.ended {
		return
	}
	p.ended = true
	if p.chunk != nil {
		p.hand()
	}
	close(p.full)
	p.writing.Wait()
}

// Commit writes what is left and publishes the pack.
func (p *packOut) Commit(ctx context.Context) error {
	p.end()
	if err := p.failure(); err != nil {
		p.out.Abort()
		return err
	}
	return p.out.Commit(ctx)
}

// Abort drops what was written.
func (p *packOut) Abort() {
	p.mu.Lock()
	if p.failed == nil {
		p.failed = errAborted // what waits need not be written
	}
	p.mu.Unlock()
	p.end()
	p.out.Abort()
}
