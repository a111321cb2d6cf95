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
// the storage, the next is filled. One goroutine at a time may use it. It ends with Commit or Abort. Nobody waits for the storage
// but these: who writes on while it is behind makes it take more memory.
type packOut struct {
	out     storage.Writer
	chunk   *[]byte
	writing sync.WaitGroup
	ended   bool
	// moved is called when a chunk is taken to be written, so that there is room for another, with no lock held.
	moved func()

	mu sync.Mutex // guards what follows
	// full are the chunks that wait for the storage; more is signalled when there is one more, or none will come.
	full   []*[]byte
	more   *sync.Cond
	last   bool
	failed error
}

func newPackOut(out storage.Writer, moved func()) *packOut {
	p := &packOut{out: out, moved: moved}
	p.more = sync.NewCond(&p.mu)
	p.writing.Go(p.run)
	return p
}

// run writes full chunks until there are no more. After an error it only takes them.
func (p *packOut) run() {
	for chunk, failed := p.next(); chunk != nil; chunk, failed = p.next() {
		p.moved()
		if failed == nil {
			if _, err := p.out.Write(*chunk); err != nil {
				p.fail(err)
				if errors.Is(err, answer.ErrNone) {
					continue // it may still be read
				}
			}
		}
		chunks.Put(chunk)
	}
}

// next waits for a full chunk; nil if there will be none.
func (p *packOut) next() (chunk *[]byte, failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.full) == 0 && !p.last {
		p.more.Wait()
	}
	if len(p.full) == 0 {
		return nil, nil
	}
	chunk, p.full = p.full[0], p.full[1:]
	return chunk, p.failed
}

// fail keeps the first error.
func (p *packOut) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

func (p *packOut) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// behind is true while the storage is slower than those who fill the pack: they are to wait.
func (p *packOut) behind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.full) >= chunksBehind
}

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
			p.hand(false)
		}
	}
	return written, p.failure()
}

// hand gives the chunk to run, if there is one; with last none comes after it.
func (p *packOut) hand(last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chunk != nil {
		p.full = append(p.full, p.chunk)
	}
	p.chunk, p.last = nil, last
	p.more.Signal()
}

// end waits until all is written.
func (p *packOut) end() {
	if p.ended {
		return
	}
	p.ended = true
	p.hand(true)
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
	p.fail(errAborted) // what waits need not be written
	p.end()
	p.out.Abort()
}
