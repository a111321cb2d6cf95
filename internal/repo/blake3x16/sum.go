// Package blake3x16 computes BLAKE3 of messages of some KiB on processors with AVX-512, sixteen chunks at a time. There it takes
// two thirds of the time of a library that does eight; elsewhere, and for what is short, that library is the one to use.
//
// A message is cut into chunks of 1024 bytes. They are the leaves of a binary tree whose root is the hash:
//
//	16 chunks side by side, block by block    -> 16 chaining values
//	chaining values of neighbours, in pairs   -> half as many; an odd one goes up as it is
//	... until one is left
//
// Going up as it is gives the tree of the specification, in which every left subtree is full.
package blake3x16

import (
	"encoding/binary"
	"sync"
	"unsafe"
)

const (
	// Least is the length of a message in bytes from which on this is the faster way.
	Least = 9 << 10
	// Most is the length in bytes of the longest message.
	Most = subtree * subtree * chunkSize
	// MostHead is the length in bytes of the longest head.
	MostHead = chunkSize - 1

	chunkSize   = 1024
	blockSize   = 64
	chunkBlocks = chunkSize / blockSize
	width       = 16
	// subtree is how many chunks are reduced to one chaining value before the next ones are looked at.
	subtree = 128
)

// Mode says what a key is for.
type Mode uint32

// The modes, as the specification's flags.
const (
	KeyedHash         Mode = 1 << 4
	deriveKeyContext  Mode = 1 << 5
	DeriveKeyMaterial Mode = 1 << 6
)

// The other flags of the specification.
const (
	chunkStart = 1 << iota
	chunkEnd
	parent
	root
)

// Key that a message is hashed with, in words.
type Key [8]uint32

// NewKey makes a key of its 32 bytes.
func NewKey(raw [32]byte) Key {
	var key Key
	for i := range key {
		key[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return key
}

// ContextKey makes the key that key material is hashed with in a context, in mode DeriveKeyMaterial. The context has 1 to 64 bytes.
func ContextKey(context string) Key {
	if context == "" || len(context) > blockSize {
		panic("blake3x16: a context of another length")
	}
	w := works.Get().(*work)
	defer w.end()
	initial := Key{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
	w.begin(&initial, deriveKeyContext, nil, []byte(context))
	w.place(0, 1)
	w.compress(0, 1, chunkStart|chunkEnd|root, uint32(len(context)))
	return w.lanes.value(0)
}

// Sum hashes head and then body: together Least to Most bytes, of which head has at most MostHead. It allocates nothing.
func Sum(key *Key, mode Mode, head, body []byte) [32]byte {
	if total := len(head) + len(body); total < Least || total > Most || len(head) > MostHead {
		panic("blake3x16: a message of another length")
	}
	w := works.Get().(*work)
	defer w.end()
	w.begin(key, mode, head, body)
	top, count := &w.leaves, w.chunks
	if w.chunks <= subtree {
		w.hashChunks(0, count)
	} else {
		top, count = &w.subtrees, 0
		for first := 0; first < w.chunks; first += subtree {
			n := min(subtree, w.chunks-first)
			w.hashChunks(first, n)
			w.reduce(&w.leaves, n, 1)
			top.set(count, w.leaves.value(0))
			count++
		}
	}
	w.reduce(top, count, 2)
	parents(&top[0][0], &top[0][0], &w.key, w.flags|parent|root)
	var sum [32]byte
	for i, word := range top.value(0) {
		binary.LittleEndian.PutUint32(sum[4*i:], word)
	}
	return sum
}

// values are chaining values: word w of the i-th is values[w][i]. Beyond the last there is room for what is read and written
// needlessly, because it is done by sixteens.
type values [8][subtree + 2*width]uint32

func (v *values) value(i int) (value Key) {
	for w := range v {
		value[w] = v[w][i]
	}
	return value
}

func (v *values) set(i int, value Key) {
	for w := range v {
		v[w][i] = value[w]
	}
}

// lanes are 16 chunks under way. The assembly knows where the fields are.
type lanes struct {
	chaining [8][width]uint32
	counter  [2][width]uint32
	length   [width]uint32
	flags    [width]uint32
	chunk    [width]unsafe.Pointer // each has chunkSize bytes
}

func (l *lanes) value(lane int) (value Key) {
	for w := range l.chaining {
		value[w] = l.chaining[w][lane]
	}
	return value
}

// work is what one message needs.
type work struct {
	key   Key
	flags uint32
	// start has the key in each lane.
	start [8][width]uint32
	lanes lanes
	// leaves of one subtree, and the subtrees.
	leaves, subtrees values

	chunks int
	// tail is the length of the last chunk, 1 to chunkSize.
	tail int
	// first and last are the chunks that body does not have whole: first only if headed.
	first, last [chunkSize]byte
	headed      bool
	body        []byte
}

var works = sync.Pool{New: func() any { return new(work) }}

func (w *work) begin(key *Key, mode Mode, head, body []byte) {
	w.key, w.flags = *key, uint32(mode)
	for word := range w.start {
		for lane := range w.start[word] {
			w.start[word][lane] = key[word]
		}
	}
	total := len(head) + len(body)
	w.chunks = (total + chunkSize - 1) / chunkSize
	w.tail = total - (w.chunks-1)*chunkSize
	w.headed = len(head) > 0
	if w.headed {
		body = body[copy(w.first[copy(w.first[:], head):], body):]
	}
	w.body = body
	if w.tail < chunkSize {
		clear(w.last[copy(w.last[:], body[len(body)-w.tail:]):])
	}
}

// end gives the memory back. It lets go of the message.
func (w *work) end() {
	w.body, w.lanes.chunk = nil, [width]unsafe.Pointer{}
	works.Put(w)
}

// place puts count chunks from the first on into the lanes. Those without one get any bytes.
func (w *work) place(first, count int) {
	l := &w.lanes
	l.chaining = w.start
	for lane := range width {
		number := first + lane
		l.counter[0][lane] = uint32(number)
		switch {
		case lane >= count, number == w.chunks-1 && w.tail < chunkSize:
			l.chunk[lane] = unsafe.Pointer(&w.last)
		case !w.headed:
			l.chunk[lane] = unsafe.Pointer((*[chunkSize]byte)(w.body[number*chunkSize:]))
		case number == 0:
			l.chunk[lane] = unsafe.Pointer(&w.first)
		default:
			l.chunk[lane] = unsafe.Pointer((*[chunkSize]byte)(w.body[(number-1)*chunkSize:]))
		}
	}
}

// compress does blocks from, until to of all lanes.
func (w *work) compress(from, to int, flags, length uint32) {
	if from >= to {
		return
	}
	l := &w.lanes
	for lane := range width {
		l.flags[lane], l.length[lane] = w.flags|flags, length
	}
	blocks(l, uintptr(from)*blockSize, uintptr(to-from))
}

// compressWhole does blocks from, until to of all lanes as those of whole chunks.
func (w *work) compressWhole(from, to int) {
	if from == 0 {
		w.compress(0, min(1, to), chunkStart, blockSize)
	}
	w.compress(max(from, 1), min(to, chunkBlocks-1), 0, blockSize)
	if to == chunkBlocks {
		w.compress(max(from, chunkBlocks-1), to, chunkEnd, blockSize)
	}
}

// hashChunks makes the chaining values of count chunks from the first on.
func (w *work) hashChunks(first, count int) {
	for i := 0; i < count; i += width {
		n := min(width, count-i)
		w.place(first+i, n)
		if first+i+n == w.chunks && w.tail < chunkSize {
			w.compressTail(n - 1)
		} else {
			w.compressWhole(0, chunkBlocks)
		}
		for word := range w.leaves {
			copy(w.leaves[word][i:i+width], w.lanes.chaining[word][:])
		}
	}
}

// compressTail does all blocks where the last chunk, which is not whole, is in a lane. Those before it are whole.
func (w *work) compressTail(lane int) {
	l, final := &w.lanes, (w.tail-1)/blockSize
	w.compressWhole(0, final)
	before := l.chaining
	var flags uint32 = chunkEnd
	if final == 0 {
		flags |= chunkStart
	}
	w.compress(final, final+1, flags, uint32(w.tail-final*blockSize))
	value := l.value(lane)
	if lane > 0 {
		l.chaining = before
		w.compressWhole(final, chunkBlocks)
	}
	for word := range l.chaining {
		l.chaining[word][lane] = value[word]
	}
}

// reduce makes parents of count values and parents of these, until no more than limit are left.
func (w *work) reduce(v *values, count, limit int) {
	for count > limit {
		half, odd := count/2, v.value(count-1)
		for i := 0; i < half; i += width {
			parents(&v[0][i], &v[0][2*i], &w.key, w.flags|parent)
		}
		if count%2 == 1 {
			v.set(half, odd)
			half++
		}
		count = half
	}
}
