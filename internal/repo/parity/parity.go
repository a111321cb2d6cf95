// Package parity makes and uses parity files: Reed–Solomon over fixed shards of a whole pack file (docs/format.md
// section 7.4). It knows nothing of what is in a pack, so it needs no key.
//
// Encoding and repairing go through a pack once, a shard at a time: in memory are one shard, and those that are computed.
package parity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/reedsolomon"

	"ferry/internal/repo/format"
)

const (
	headSize     = 64
	sumSize      = 16
	checksumSize = 32
	// leastShard is the least size of shards in bytes, but for what rounding takes: a sector of a disk.
	leastShard = 4096
	// shardGrain is what the size of shards is a multiple of, in bytes.
	shardGrain = 64
)

// ErrTooMuch: more shards are damaged than there are parity shards.
var ErrTooMuch = errors.New("more of the pack is damaged than its parity can make again")

// ObjectName is the name of a pack's parity file in its repository. It is deleted with the pack.
func ObjectName(pack format.Name) string { return "parity/" + pack.String() }

// Layout is how a pack is cut.
type Layout struct {
	Pack format.Name
	// Size of the pack, and of each shard, in bytes.
	Size, Shard int64
	// Data and Parity are numbers of shards.
	Data, Parity int
}

// NewLayout is how a pack of that size is cut where the repository asks for that parity.
func NewLayout(pack format.Name, size int64, wanted format.Parity) Layout {
	data := int(min(int64(wanted.Data), max(1, ceil(size, leastShard))))
	shard := ceil(ceil(size, int64(data)), shardGrain) * shardGrain
	return Layout{
		Pack: pack, Size: size, Shard: shard, Data: data,
		Parity: int(ceil(int64(wanted.Parity)*int64(data), int64(wanted.Data))),
	}
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

// FileSize is the size of the parity file in bytes.
func (l Layout) FileSize() int64 { return l.shardsAt() + int64(l.Parity)*l.Shard }

func (l Layout) shardsAt() int64 {
	return headSize + sumSize*int64(l.Data+l.Parity) + checksumSize
}

// File is what a parity file says before its shards.
type File struct {
	Layout
	sums [][sumSize]byte
}

// Coder computes shards. It is safe for parallel use.
type Coder struct {
	hasher *format.Hasher
	mu     sync.Mutex
	codes  map[[2]int]code
}

// code can also make shards again one input at a time.
type code interface {
	reedsolomon.Encoder
	DecodeIdx(dst [][]byte, expectInput []bool, input [][]byte) error
}

// NewCoder makes a coder for a repository's hash.
func NewCoder(hasher *format.Hasher) *Coder {
	return &Coder{hasher: hasher, codes: map[[2]int]code{}}
}

// maxCodes is how many codes are kept: full packs share one, small ones have some of their own.
const maxCodes = 16

// code returns the code of so many shards. Making one inverts a matrix.
func (c *Coder) code(data, parity int) (code, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]int{data, parity}
	if made := c.codes[key]; made != nil {
		return made, nil
	}
	encoder, err := reedsolomon.New(data, parity, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, err
	}
	made, ok := encoder.(code)
	if !ok {
		return nil, fmt.Errorf("parity: no code for %d and %d shards", data, parity)
	}
	for old := range c.codes {
		if len(c.codes) < maxCodes {
			break
		}
		delete(c.codes, old)
	}
	c.codes[key] = made
	return made, nil
}

// Encode reads a pack once and returns its parity file.
func (c *Coder) Encode(pack io.ReaderAt, layout Layout) ([]byte, error) {
	code, err := c.code(layout.Data, layout.Parity)
	if err != nil {
		return nil, err
	}
	file := make([]byte, layout.FileSize())
	parity := make([][]byte, layout.Parity)
	for i := range parity {
		at := layout.shardsAt() + int64(i)*layout.Shard
		parity[i] = file[at : at+layout.Shard]
	}
	shard := make([]byte, layout.Shard)
	for i := range layout.Data {
		if err := layout.read(pack, shard, i); err != nil {
			return nil, err
		}
		c.putSum(file, i, shard)
		if err := code.EncodeIdx(shard, i, parity); err != nil {
			return nil, err
		}
	}
	for i, made := range parity {
		c.putSum(file, layout.Data+i, made)
	}
	head := format.AppendPrelude(file[:0], format.MagicParity)
	head = append(head, layout.Pack[:]...)
	head = binary.LittleEndian.AppendUint64(head, uint64(layout.Size))
	head = binary.LittleEndian.AppendUint32(head, uint32(layout.Shard))
	head = binary.LittleEndian.AppendUint16(head, uint16(layout.Data))
	binary.LittleEndian.AppendUint16(head, uint16(layout.Parity))
	covered := layout.shardsAt() - checksumSize
	sum := c.hasher.Sum(format.ContextParity, file[:covered])
	copy(file[covered:], sum[:])
	return file, nil
}

func (c *Coder) sum(shard []byte) [sumSize]byte {
	sum := c.hasher.Sum(format.ContextParityShard, shard)
	return [sumSize]byte(sum[:sumSize])
}

func (c *Coder) putSum(file []byte, i int, shard []byte) {
	sum := c.sum(shard)
	copy(file[headSize+i*sumSize:], sum[:])
}

// read fills a shard of the pack; behind the pack's end are zeros.
func (l Layout) read(pack io.ReaderAt, shard []byte, i int) error {
	at := int64(i) * l.Shard
	clear(shard)
	want := max(0, min(l.Shard, l.Size-at))
	return readFull(pack, shard[:want], at)
}

func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: ends at byte %d", format.ErrCorrupt, offset+int64(n))
	}
	return err
}

// Open reads the head of a parity file and checks it. Errors of content wrap format.ErrCorrupt or format.ErrNewer.
func (c *Coder) Open(file io.ReaderAt, size int64, pack format.Name, packSize int64) (*File, error) {
	head := make([]byte, headSize)
	if err := readFull(file, head, 0); err != nil {
		return nil, err
	}
	if err := format.CheckPrelude(head, format.MagicParity); err != nil {
		return nil, err
	}
	l := Layout{
		Pack: format.Name(head[20:36]), Size: int64(binary.LittleEndian.Uint64(head[36:])), Shard: int64(binary.LittleEndian.Uint32(head[44:])),
		Data: int(binary.LittleEndian.Uint16(head[48:])), Parity: int(binary.LittleEndian.Uint16(head[50:])),
	}
	corrupt := func(what string) (*File, error) {
		return nil, fmt.Errorf("%w: parity file %s", format.ErrCorrupt, what)
	}
	switch {
	case [12]byte(head[52:64]) != [12]byte{}:
		return corrupt("has reserved bytes set")
	case l.Pack != pack || l.Size != packSize:
		return corrupt("is that of another pack")
	case l.Data < 1 || l.Parity < 1 || l.Data+l.Parity > 256 || l.Shard < 1 || l.Shard%shardGrain != 0 || l.Shard*int64(l.Data) < l.Size || l.FileSize() != size:
		return corrupt("has an impossible layout")
	}
	rest := make([]byte, l.shardsAt()-headSize)
	if err := readFull(file, rest, headSize); err != nil {
		return nil, err
	}
	table := rest[:len(rest)-checksumSize]
	if c.hasher.Sum(format.ContextParity, head, table) != format.ID(rest[len(table):]) {
		return corrupt("checksum differs")
	}
	opened := &File{Layout: l, sums: make([][sumSize]byte, l.Data+l.Parity)}
	for i := range opened.sums {
		copy(opened.sums[i][:], table[i*sumSize:])
	}
	return opened, nil
}

// Check returns an error unless the file's own shards are whole. It does not look at the pack.
func (c *Coder) Check(file io.ReaderAt, opened *File) error {
	shard := make([]byte, opened.Shard)
	for i := range opened.Parity {
		if err := opened.readParity(file, shard, i); err != nil {
			return err
		}
		if c.sum(shard) != opened.sums[opened.Data+i] {
			return fmt.Errorf("%w: parity shard %d of %d differs from its checksum", format.ErrCorrupt, i+1, opened.Parity)
		}
	}
	return nil
}

func (f *File) readParity(file io.ReaderAt, shard []byte, i int) error {
	return readFull(file, shard, f.shardsAt()+int64(i)*f.Shard)
}
