package pack

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"ferry/internal/repo/format"
)

const (
	// TagSize is what encryption adds to a frame's stored bytes.
	TagSize = format.TagSize
	// dataLabel begins the associated data of a frame.
	dataLabel = "ferry v1"
)

// scratch is what encrypting or decrypting one frame needs beside it.
type scratch struct {
	nonce [12]byte
	data  [len(dataLabel) + 1 + 1 + 4 + 32]byte
	bytes []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// set makes nonce and associated data of a frame's header. They say what the frame is and nothing of where it lies.
func (s *scratch) set(header []byte) {
	binary.LittleEndian.PutUint64(s.nonce[4:], binary.LittleEndian.Uint64(header[24:]))
	rest := s.data[copy(s.data[:], dataLabel):]
	rest[0], rest[1] = header[4], header[5]
	copy(rest[2:6], header[8:12])
	copy(rest[6:], header[48:80])
}

// Sealer encrypts the frames that one session of a writer makes, under a salt of its own. It is safe for parallel use.
type Sealer struct {
	generation uint32
	salt       [format.SaltSize]byte
	aead       cipher.AEAD
	counter    atomic.Uint64
}

// NewSealer makes a sealer with a fresh salt for the current data key.
func NewSealer(keys format.Keys) (*Sealer, error) {
	s := &Sealer{generation: keys.Generation()}
	rand.Read(s.salt[:]) // never fails: crypto/rand ends the program instead
	var err error
	s.aead, err = format.NewAEAD(keys, s.generation, s.salt[:], format.InfoFrame)
	return s, err
}

// Generation of the key, as in a pack's header; 0 for a nil sealer, which encrypts nothing.
func (s *Sealer) Generation() uint32 {
	if s == nil {
		return 0
	}
	return s.generation
}

// seal encrypts what lies behind a frame's header in place, and appends the tag.
func (s *Sealer) seal(header, body []byte) []byte {
	binary.LittleEndian.PutUint32(header[16:], s.generation)
	binary.LittleEndian.PutUint64(header[24:], s.counter.Add(1)-1)
	copy(header[32:], s.salt[:])
	with := scratches.Get().(*scratch)
	defer scratches.Put(with)
	with.set(header)
	return s.aead.Seal(body[:0], with.nonce[:], body, with.data[:])
}

// Opener decrypts frames. It is safe for parallel use. A nil Opener has no key: what is encrypted stays so.
type Opener struct {
	keys   format.Keys
	hasher *format.Hasher
	mu     sync.RWMutex
	aeads  map[session]cipher.AEAD
}

// session is what a derived key depends on.
type session struct {
	generation uint32
	salt       [format.SaltSize]byte
}

// maxSessions bounds the derived keys that are kept: about a kilobyte each.
const maxSessions = 1024

// NewOpener makes an opener with the keys of a repository.
func NewOpener(keys format.Keys, hasher *format.Hasher) *Opener {
	return &Opener{keys: keys, hasher: hasher, aeads: map[session]cipher.AEAD{}}
}

func (o *Opener) aead(of session) (cipher.AEAD, error) {
	o.mu.RLock()
	aead := o.aeads[of]
	o.mu.RUnlock()
	if aead != nil {
		return aead, nil
	}
	return o.derive(of)
}

// derive is the slow way of aead: apart from it, so that the fast one does not allocate.
func (o *Opener) derive(of session) (cipher.AEAD, error) {
	aead, err := format.NewAEAD(o.keys, of.generation, of.salt[:], format.InfoFrame)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for other := range o.aeads { // in no order: a key that is missed is derived again
		if len(o.aeads) < maxSessions {
			break
		}
		delete(o.aeads, other)
	}
	o.aeads[of] = aead
	return aead, nil
}

// Prove checks that a holder of the key sealed the content of an encrypted frame under its id, without decompressing it.
func (o *Opener) Prove(frame []byte) error {
	f, err := parseWhole(frame)
	if err != nil {
		return err
	}
	with := scratches.Get().(*scratch)
	defer scratches.Put(with)
	opened, err := o.open(with.bytes[:0], f, frame, with)
	if err == nil {
		with.bytes = opened
	}
	return err
}

// open appends a whole frame's stored bytes to dst, decrypted. If they are not what a holder of the key wrote, the error
// wraps format.ErrForged where the checksum holds, else format.ErrCorrupt.
func (o *Opener) open(dst []byte, f Frame, frame []byte, with *scratch) ([]byte, error) {
	if o == nil {
		return dst, format.ErrNeedsKey
	}
	aead, err := o.aead(session{f.Generation, f.Salt})
	if err == nil {
		with.set(frame)
		var opened []byte
		if opened, err = aead.Open(dst, with.nonce[:], frame[FrameHeaderSize:], with.data[:]); err == nil {
			return opened, nil
		}
	}
	if checksum(o.hasher, frame) == f.Sum {
		return dst, fmt.Errorf("%w: frame of %s: %w", format.ErrForged, f.ID, err)
	}
	return dst, fmt.Errorf("%w: frame checksum differs", format.ErrCorrupt)
}
