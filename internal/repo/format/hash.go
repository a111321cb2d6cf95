package format

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"

	"github.com/zeebo/blake3"

	"ferry/internal/repo/blake3x16"
)

// Hash names the algorithm that a repository's ids and checksums are made with (section 3).
type Hash uint8

// The algorithms, with their values in pack headers.
const (
	HashBLAKE3     Hash = 1
	HashHMACSHA256 Hash = 2
)

// String returns the name in repository.json.
func (h Hash) String() string {
	switch h {
	case HashBLAKE3:
		return "blake3-256"
	case HashHMACSHA256:
		return "hmac-sha-256"
	}
	return fmt.Sprintf("hash %d", uint8(h))
}

// ParseHash reads the name in repository.json.
func ParseHash(name string) (Hash, error) {
	for _, h := range []Hash{HashBLAKE3, HashHMACSHA256} {
		if h.String() == name {
			return h, nil
		}
	}
	return 0, fmt.Errorf("%w: hash %q", ErrNewer, name)
}

// Context separates the uses of the hash from each other (section 3).
type Context uint8

// The contexts. Those up to ContextValidator are keyed with the id key.
const (
	ContextBlock Context = iota
	ContextLeaf
	ContextParent
	ContextStreamLeaf
	ContextStreamParent
	ContextRoot
	ContextMachine
	ContextChunker
	ContextValidator
	ContextFrame
	ContextPack
	ContextLogEntry
	ContextCheckpoint
	ContextPoint
	ContextIndex
	ContextPartial
	ContextRepository
	ContextParity
	ContextParityShard
	ContextVerified
	ContextLastRun
	ContextJob
	ContextJobName
	contexts
)

var contextNames = [contexts]string{
	"ferry v1 block", "ferry v1 leaf", "ferry v1 parent", "ferry v1 stream leaf", "ferry v1 stream parent", "ferry v1 root",
	"ferry v1 machine", "ferry v1 chunker", "ferry v1 validator", "ferry v1 frame", "ferry v1 pack", "ferry v1 log entry", "ferry v1 checkpoint",
	"ferry v1 point", "ferry v1 index", "ferry v1 partial", "ferry v1 repository",
	"ferry v1 parity", "ferry v1 parity shard", "ferry v1 verified", "ferry v1 last run",
	"ferry v1 job", "ferry v1 job name",
}

// String returns the context string of the specification.
func (c Context) String() string { return contextNames[c] }

// keyed is true for contexts whose hash depends on the id key.
func (c Context) keyed() bool { return c <= ContextValidator }

// Hasher computes ids and checksums of one repository. It is safe for parallel use and does not allocate per call.
type Hasher struct {
	hash  Hash
	idKey [32]byte
	// encrypted without keys: locked.
	encrypted bool
	keys      Keys
	pools     [contexts]sync.Pool
}

// NewHasher makes a hasher. The id key is zeros where the repository is not encrypted.
func NewHasher(algorithm Hash, idKey [32]byte) *Hasher {
	h := &Hasher{hash: algorithm, idKey: idKey}
	for c := range contexts {
		h.pools[c].New = func() any { return h.newState(c) }
	}
	return h
}

// Algorithm returns the hash's algorithm.
func (h *Hasher) Algorithm() Hash { return h.hash }

// Sum hashes the parts, one after the other, in a context: K for keyed contexts, U for others.
func (h *Hasher) Sum(context Context, parts ...[]byte) ID {
	h.mustHaveKey(context)
	state := h.pools[context].Get().(*state)
	defer h.pools[context].Put(state)
	if sum, done := state.sumWide(parts); done {
		return sum
	}
	state.Reset()
	for _, part := range parts {
		state.Write(part) // a hash's Write never fails
	}
	copy(state.sum[:], state.Hash.Sum(state.sum[:0]))
	return state.sum
}

// SameIDs is true if equal content has equal ids by both hashers: the algorithm and the id key are the same.
func (h *Hasher) SameIDs(other *Hasher) bool {
	return h.hash == other.hash && h.Sum(ContextBlock) == other.Sum(ContextBlock)
}

// Stream returns a hash for content that comes in pieces. It belongs to one goroutine.
func (h *Hasher) Stream(context Context) hash.Hash {
	h.mustHaveKey(context)
	return h.newState(context).Hash
}

// mustHaveKey panics for ids of a locked repository: the callers are to look before.
func (h *Hasher) mustHaveKey(context Context) {
	if context.keyed() && h.Locked() {
		panic("format: the hash in context " + context.String() + " needs the id key")
	}
}

type state struct {
	hash.Hash
	sum ID
	// wide is set where the processor hashes what is long in a faster way, with this key in this mode.
	wide *blake3x16.Key
	mode blake3x16.Mode
}

// sumWide hashes what is long enough: a message of one part, or of a short one and another, as a frame's header and content are.
func (s *state) sumWide(parts [][]byte) (sum ID, done bool) {
	if s.wide == nil || len(parts) == 0 || len(parts) > 2 {
		return sum, false
	}
	var head []byte
	if len(parts) == 2 {
		head = parts[0]
	}
	body := parts[len(parts)-1]
	if total := len(head) + len(body); len(head) > blake3x16.MostHead || total < blake3x16.Least || total > blake3x16.Most {
		return sum, false
	}
	return blake3x16.Sum(s.wide, s.mode, head, body), true
}

// wideAgrees is true where the processor has what the faster way needs, and comes to the same there as the library, which is
// found out once: ids by which nobody else finds a block would do harm for as long as a repository lives.
var wideAgrees = sync.OnceValue(func() bool {
	if !blake3x16.Available {
		return false
	}
	message := make([]byte, 33<<10+7)
	for i := range message {
		message[i] = byte(i * 131 >> 3)
	}
	var library [32]byte
	blake3.DeriveKey(ContextFrame.String(), message, library[:])
	key := blake3x16.ContextKey(ContextFrame.String())
	return blake3x16.Sum(&key, blake3x16.DeriveKeyMaterial, message[:80], message[80:]) == library
})

// newState implements U and K of section 3.
func (h *Hasher) newState(context Context) *state {
	name := context.String()
	switch h.hash {
	case HashBLAKE3:
		if !context.keyed() {
			made := &state{Hash: blake3.NewDeriveKey(name)}
			if wideAgrees() {
				key := blake3x16.ContextKey(name)
				made.wide, made.mode = &key, blake3x16.DeriveKeyMaterial
			}
			return made
		}
		var key [32]byte
		blake3.DeriveKey(name, h.idKey[:], key[:])
		keyed, err := blake3.NewKeyed(key[:])
		if err != nil {
			panic(err) // only for keys that are not 32 bytes
		}
		made := &state{Hash: keyed}
		if wideAgrees() {
			words := blake3x16.NewKey(key)
			made.wide, made.mode = &words, blake3x16.KeyedHash
		}
		return made
	case HashHMACSHA256:
		if !context.keyed() {
			return &state{Hash: hmac.New(sha256.New, []byte(name))}
		}
		outer := hmac.New(sha256.New, []byte(name))
		outer.Write(h.idKey[:])
		return &state{Hash: hmac.New(sha256.New, outer.Sum(nil))}
	}
	panic("format: hasher without algorithm")
}

// RandomName makes a fresh name.
func RandomName() Name {
	var name Name
	rand.Read(name[:]) // never fails: crypto/rand ends the program instead
	return name
}
