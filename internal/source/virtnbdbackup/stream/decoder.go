package stream

import (
	"bufio"
	"io"
	"sync"

	"github.com/pierrec/lz4/v4"
)

// decoder decodes one part of a file front to back, piece by piece, and can start over.
type decoder struct {
	cache  *Cache
	key    partKey
	extent Extent
	// users and used belong to the cache's lock.
	users int
	used  int64

	// mu is held while decoding: readers that want pieces of the same part wait for one another.
	mu     sync.Mutex
	lz4    *lz4.Reader
	source *sourceReader
	input  *bufio.Reader
	// next is the number of the piece that comes next.
	next int64
}

var inputPool = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, inputSize) }}

// decode goes on, or starts over, until it has the piece with that number. The caller gives it back.
func (d *decoder) decode(number int64) (*piece, error) {
	if d.lz4 == nil || d.next > number {
		if err := d.start(); err != nil {
			return nil, err
		}
	}
	for {
		p, err := d.step()
		if err != nil {
			d.stop()
			return nil, err
		}
		if number-p.key.number <= keepBefore {
			d.cache.keep(p)
		}
		if p.key.number == number {
			return p, nil
		}
		d.cache.done(p)
	}
}

// step decodes one piece. With the last one it checks that the content ends there, which also checks the content's
// checksum.
func (d *decoder) step() (*piece, error) {
	start := d.next * pieceSize
	p := piecePool.Get().(*piece)
	p.key, p.users = pieceKey{d.key, d.next}, 1
	p.length = int(min(pieceSize, d.extent.Length-start))
	if p.length <= 0 {
		d.cache.done(p)
		return nil, broken(d.extent.Position, "no content at %d of an extent of %d bytes", start, d.extent.Length)
	}
	n, err := io.ReadFull(d.lz4, p.buffer[:p.length])
	d.cache.decoded.Add(int64(n))
	d.next++
	if err == nil && start+int64(p.length) == d.extent.Length {
		err = d.checkEnd()
	} else if err != nil {
		err = failure(d.extent.Position, d.source, err)
	}
	if err != nil {
		d.cache.done(p)
		return nil, err
	}
	return p, nil
}

func (d *decoder) checkEnd() error {
	var more [1]byte
	switch n, err := d.lz4.Read(more[:]); {
	case n > 0:
		return broken(d.extent.Position, "lz4 content longer than the %d bytes announced", d.extent.Length)
	case err == io.EOF:
		return nil
	default:
		return failure(d.extent.Position, d.source, err)
	}
}

// start begins at the part's first byte. The library's reader is made anew: a used one would let damaged frames refer
// back to what it decoded before.
func (d *decoder) start() error {
	d.stop()
	if err := d.cache.checkFrame(d.key.file, d.extent.Position); err != nil {
		return err
	}
	d.source = &sourceReader{SectionReader: io.NewSectionReader(d.key.file, d.extent.Position, d.extent.Stored)}
	d.input = inputPool.Get().(*bufio.Reader)
	d.input.Reset(d.source)
	d.lz4 = newLZ4(d.input)
	d.next = 0
	return nil
}

// stop gives the decoder's buffers back.
func (d *decoder) stop() {
	if d.lz4 == nil {
		return
	}
	d.lz4.Reset(nil)
	d.input.Reset(nil)
	inputPool.Put(d.input)
	d.lz4, d.input, d.source = nil, nil, nil
}
