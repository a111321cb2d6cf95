package stream

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pierrec/lz4/v4"

	"ferry/internal/backup"
)

const (
	lz4Magic = 0x184D2204
	// Flags of an lz4 frame's descriptor: the content's size is stated, it has a checksum, every block has one.
	lz4HasSize         = 1 << 3
	lz4ContentChecksum = 1 << 2
	lz4BlockChecksum   = 1 << 4

	// pieceSize is how much decoded content is kept and dropped at a time.
	pieceSize = 256 << 10
	// keepBefore is how many pieces passed on the way to a wanted one are kept, because parallel readers that are a
	// little behind want them next.
	keepBefore = 32
	// decoderLimit is how many decoders wait where the last reader left them. Each holds about 512 KiB.
	decoderLimit = 16
	// inputSize is the buffer between a file and a decoder.
	inputSize = 256 << 10
)

// Cache gives random access to lz4 frames. Their blocks build on one another, so that a frame (up to 32 MiB of
// content) can only be entered at its start: the cache keeps decoded pieces, and decoders that can go on from where
// they are. Reading ascending offsets, in parallel too, decodes everything once. It is safe for parallel use; what
// several readers want at once is decoded by one of them.
type Cache struct {
	limit   int
	decoded atomic.Int64
	// unchecked is set once a frame without checksums has been read.
	unchecked atomic.Bool

	mu       sync.Mutex
	pieces   map[pieceKey]*piece
	recent   list.List // of *piece, the one used last in front
	decoders map[partKey]*decoder
	clock    int64
}

// NewCache makes a cache that keeps at most limit bytes of decoded content.
func NewCache(limit int64) *Cache {
	return &Cache{
		limit: max(1, int(limit/pieceSize)), pieces: map[pieceKey]*piece{}, decoders: map[partKey]*decoder{},
	}
}

// Decoded counts the bytes that were decoded, repetitions included.
func (c *Cache) Decoded() int64 { return c.decoded.Load() }

// Unchecked is true if content was decoded that neither block nor content checksums cover.
func (c *Cache) Unchecked() bool { return c.unchecked.Load() }

// partKey identifies a run of lz4 frames: file is a pointer.
type partKey struct {
	file     io.ReaderAt
	position int64
}

type pieceKey struct {
	partKey
	number int64
}

// piece is decoded content. users counts readers, and one for the cache itself.
type piece struct {
	key    pieceKey
	users  int
	place  *list.Element
	length int
	buffer [pieceSize]byte
}

var piecePool = sync.Pool{New: func() any { return new(piece) }}

// ReadAt fills p with the content of a compressed extent of file, from offset bytes behind the extent's start. The
// range lies within the extent. The errors wrap backup.ErrBroken if the content is damaged or not as long as the
// extent.
func (c *Cache) ReadAt(file io.ReaderAt, extent Extent, p []byte, offset int64) error {
	for len(p) > 0 {
		found, err := c.get(file, extent, offset/pieceSize)
		if err != nil {
			return err
		}
		n := copy(p, found.buffer[offset%pieceSize:found.length])
		c.done(found)
		if n == 0 {
			return broken(extent.Position, "no content at %d of an extent of %d bytes", offset, extent.Length)
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// get returns a piece that the caller gives back with done.
func (c *Cache) get(file io.ReaderAt, extent Extent, number int64) (*piece, error) {
	key := pieceKey{partKey{file, extent.Position}, number}
	if found := c.lookup(key); found != nil {
		return found, nil
	}
	d := c.acquire(key.partKey, extent)
	defer c.release(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	if found := c.lookup(key); found != nil { // another reader decoded it while this one waited
		return found, nil
	}
	return d.decode(number)
}

func (c *Cache) lookup(key pieceKey) *piece {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.pieces[key]
	if found != nil {
		found.users++
		c.recent.MoveToFront(found.place)
	}
	return found
}

// keep puts a piece into the cache and drops the ones unused for longest. The piece has a user already.
func (c *Cache) keep(p *piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pieces[p.key] != nil {
		return
	}
	p.users++
	c.pieces[p.key] = p
	p.place = c.recent.PushFront(p)
	for len(c.pieces) > c.limit {
		oldest := c.recent.Remove(c.recent.Back()).(*piece)
		delete(c.pieces, oldest.key)
		c.drop(oldest)
	}
}

// done gives a piece back.
func (c *Cache) done(p *piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(p)
}

func (c *Cache) drop(p *piece) {
	if p.users--; p.users == 0 {
		p.place = nil
		p.key = pieceKey{}
		piecePool.Put(p)
	}
}

// acquire returns the decoder for a part, which release gives back.
func (c *Cache) acquire(key partKey, extent Extent) *decoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.decoders[key]
	if d == nil {
		d = &decoder{cache: c, key: key, extent: extent}
		c.decoders[key] = d
	}
	d.users++
	c.clock++
	d.used = c.clock
	return d
}

// release gives a decoder back, and closes the one unused for longest if there are too many.
func (c *Cache) release(d *decoder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.users--
	for len(c.decoders) > decoderLimit {
		var oldest *decoder
		for _, other := range c.decoders {
			if other.users == 0 && (oldest == nil || other.used < oldest.used) {
				oldest = other
			}
		}
		if oldest == nil {
			return // all in use: as many as there are readers
		}
		delete(c.decoders, oldest.key)
		oldest.stop()
	}
}

// Close gives all memory back. No reads may be running or follow.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.decoders {
		d.stop()
	}
	for _, p := range c.pieces {
		c.drop(p)
	}
	clear(c.decoders)
	clear(c.pieces)
	c.recent.Init()
}

// checkFrame looks at the descriptor of the part's first lz4 frame. Other magics, which the library would take too,
// are never written by virtnbdbackup and have no checksums.
func (c *Cache) checkFrame(file io.ReaderAt, position int64) error {
	var b [5]byte
	if n, err := file.ReadAt(b[:], position); n < len(b) {
		return shortRead(position, err)
	}
	if binary.LittleEndian.Uint32(b[:]) != lz4Magic {
		return broken(position, "no lz4 frame where one should be")
	}
	if b[4]&(lz4BlockChecksum|lz4ContentChecksum) == 0 {
		c.unchecked.Store(true)
	}
	return nil
}

// failure tells a damaged part from a file that cannot be read.
func failure(position int64, source *sourceReader, err error) error {
	if source.err != nil && !errors.Is(source.err, io.EOF) {
		return &backup.Error{Offset: position, Err: source.err}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return broken(position, "an lz4 frame ends before its content does")
	}
	return &backup.Error{Offset: position, Err: fmt.Errorf("%w: %w", backup.ErrBroken, err)}
}

// sourceReader reads the stored bytes of a part, and remembers an error that is not the end.
type sourceReader struct {
	*io.SectionReader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.SectionReader.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// newLZ4 makes a decoder without goroutines of its own.
func newLZ4(r io.Reader) *lz4.Reader {
	reader := lz4.NewReader(r)
	// The only error is that of a reader in use.
	_ = reader.Apply(lz4.ConcurrencyOption(1))
	return reader
}
