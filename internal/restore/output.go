package restore

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ferry/internal/direct"
	"ferry/internal/repo"
)

const (
	// pieceSize is how much is written at once: a huge page.
	pieceSize = 2 << 20
	// piecesBehind is how many pieces may wait to be written before those who read wait.
	piecesBehind = 4
	// pieceWriters write at once: one is on its way to the disk while another gets there.
	pieceWriters = 2
	// directLeast is the least that is written past the page cache: the kernel puts smaller pieces together.
	directLeast = 256 << 10
)

// output writes an object to a file, which has none but zeros yet:
//
//	blocks, in about the object's order -> without long runs of zeros -> gathered to pieces -> written behind
//
// Large pieces go past the page cache where that is known to be good, others through it.
type output struct {
	file *os.File
	// past is the same file, opened to be written to past the page cache; nil if that does not fit.
	past    *os.File
	notFit  atomic.Bool // past turned out not to work
	pieces  chan piece
	writing sync.WaitGroup
	behind  writeback
	failed  atomic.Pointer[error]
}

// piece is data that lies together.
type piece struct {
	offset int64
	data   []byte
}

// memory of pieces, shared by all outputs.
var memory = sync.Pool{New: func() any { return direct.Memory(pieceSize) }}

// newOutput begins to write. The file has its size already. If it is read again soon, it is to stay in the page cache.
func newOutput(file *os.File, cached bool) *output {
	o := &output{file: file, pieces: make(chan piece, piecesBehind), behind: writeback{file: file}}
	if !cached && direct.Fit(file) {
		if past, err := os.OpenFile(file.Name(), os.O_WRONLY|unix.O_DIRECT, 0); err == nil {
			o.past = past
		}
	}
	for range pieceWriters {
		o.writing.Go(o.run)
	}
	return o
}

// run writes pieces until there are no more. After an error it only takes them.
func (o *output) run() {
	for p := range o.pieces {
		if o.failure() == nil {
			if err := o.write(p); err != nil {
				o.failed.CompareAndSwap(nil, &err)
			}
		}
		memory.Put(p.data[:pieceSize]) //nolint:staticcheck // a header for each piece
	}
}

func (o *output) failure() error {
	if err := o.failed.Load(); err != nil {
		return full(*err, o.file.Name())
	}
	return nil
}

// write writes a piece: its whole pages past the page cache, and what is left of it through it.
func (o *output) write(p piece) error {
	whole := p.data[:len(p.data)/direct.Align*direct.Align]
	if o.past != nil && !o.notFit.Load() && len(whole) >= directLeast && direct.Aligned(whole, p.offset) {
		_, err := o.past.WriteAt(whole, p.offset)
		switch {
		case errors.Is(err, unix.EINVAL): // a device with blocks that are larger still
			o.notFit.Store(true)
		case err != nil:
			return err
		default:
			p.offset, p.data = p.offset+int64(len(whole)), p.data[len(whole):]
		}
	}
	if len(p.data) == 0 {
		return nil
	}
	_, err := o.file.WriteAt(p.data, p.offset)
	o.behind.wrote(int64(len(p.data)))
	return err
}

// close waits until all is written.
func (o *output) close() error {
	close(o.pieces)
	o.writing.Wait()
	if o.past != nil {
		o.past.Close() // nothing waits in it
	}
	return o.failure()
}

// sink makes a sink for blocks of the object.
func (o *output) sink() repo.Sink { return &gatherer{output: o} }

// gatherer puts blocks together to pieces.
type gatherer struct {
	output *output
	open   piece
	// holed is a copy of a block with a hole.
	holed []byte
}

// Room for a block is in the open piece if it goes on there, else in a new one.
func (g *gatherer) Room(block repo.Block) []byte {
	if block.Length > pieceSize {
		return nil
	}
	if !g.goesOn(block.Offset) || int64(len(g.open.data))+block.Length > pieceSize {
		g.hand()
		g.begin(block.Offset)
	}
	at := len(g.open.data)
	return g.open.data[at : at : at+int(block.Length)]
}

// Use takes a block.
func (g *gatherer) Use(block repo.Block, plain []byte) error {
	for start := 0; start < len(plain); {
		end, next := dataRun(plain, start)
		if start == 0 && next < len(plain) { // the open piece, which it may lie in, is handed over before its end
			g.holed = append(g.holed[:0], plain...)
			plain = g.holed
		}
		g.add(block.Offset+int64(start), plain[start:end])
		start = next
	}
	return g.output.failure()
}

// End hands over what is left.
func (g *gatherer) End() error {
	g.hand()
	return g.output.failure()
}

func (g *gatherer) add(offset int64, data []byte) {
	for len(data) > 0 {
		if !g.goesOn(offset) || len(g.open.data) == pieceSize {
			g.hand()
			g.begin(offset)
		}
		at := len(g.open.data)
		n := min(len(data), pieceSize-at)
		g.open.data = g.open.data[:at+n]
		if &g.open.data[at] != &data[0] { // else it was put into its room
			copy(g.open.data[at:], data)
		}
		offset, data = offset+int64(n), data[n:]
	}
}

// goesOn is true if what lies at the offset comes next in the open piece.
func (g *gatherer) goesOn(offset int64) bool {
	return g.open.data != nil && g.open.offset+int64(len(g.open.data)) == offset
}

func (g *gatherer) begin(offset int64) {
	g.open = piece{offset, memory.Get().([]byte)[:0]}
}

func (g *gatherer) hand() {
	if g.open.data != nil {
		g.output.pieces <- g.open
		g.open = piece{}
	}
}

const (
	// sparseGrain is the alignment of holes: the page of most file systems.
	sparseGrain = 4 << 10
	// sparseLeast is the shortest run of zeros inside a block that is left out.
	sparseLeast = 16 << 10
)

var zeroGrain [sparseGrain]byte

// dataRun finds where the data from start ends, and where data begins again behind a hole.
func dataRun(p []byte, start int) (end, next int) {
	zeros := 0
	for at := start; at < len(p); at += sparseGrain {
		grain := p[at:min(at+sparseGrain, len(p))]
		if bytes.Equal(grain, zeroGrain[:len(grain)]) {
			zeros += len(grain)
			continue
		}
		if zeros >= sparseLeast {
			return at - zeros, at
		}
		zeros = 0
	}
	if zeros >= sparseLeast {
		return len(p) - zeros, len(p)
	}
	return len(p), len(p)
}
