// Package keyring holds the keys of an encrypted repository, and the key files that wrap them for people (docs/format.md,
// sections 10.1 and 10.2).
//
// A [Ring] is all that is secret about a repository. [Seal] and [Open] make and read one key file; [Load] finds the ring
// in a repository's keys/ folder, and [Add] and [Remove] change who can.
package keyring

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"ferry/internal/repo/format"
)

// Errors of key rings.
var (
	// ErrNoGeneration: the ring has no data key of this generation. A rotation made it that left this key out.
	ErrNoGeneration = errors.New("the key given does not have data keys of this generation")
	// ErrForeign: the ring is of another repository, or somebody made it who does not have this one's keys.
	ErrForeign = errors.New("key ring is not of this repository")
	// ErrForged: two rings have different keys of one generation: one of them was made by somebody who should not.
	ErrForged = errors.New("key rings contradict each other")
)

const (
	ringFormat  = "ferry-key-ring"
	ringVersion = 1
	// MaxGeneration is the greatest generation of a data key.
	MaxGeneration  = 999999
	maxGenerations = 256
)

// Key is 32 secret bytes. It prints as a placeholder.
type Key [32]byte

// String never tells the key.
func (Key) String() string { return "(secret)" }

// GoString never tells the key.
func (Key) GoString() string { return "(secret)" }

// Format never tells the key, whatever the verb.
func (Key) Format(state fmt.State, _ rune) { fmt.Fprint(state, "(secret)") }

// randomKey makes a fresh key.
func randomKey() (key Key) {
	rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	return key
}

// DataKey is the key of one generation.
type DataKey struct {
	// Generation is 1 to MaxGeneration.
	Generation uint32
	Key        Key
	Created    time.Time
	// After is the generation that was current when this one was made, 0 for the first. Proof shows that its maker had
	// that generation's key.
	After uint32
	Proof Key
}

// Ring is all that is secret about a repository. Do not change one that others use: it is safe for parallel reading.
type Ring struct {
	// Repository that the ring is for.
	Repository format.Name
	// IDKey makes the ids of blocks and nodes. It never changes.
	IDKey Key
	// DataKeys in ascending order of generation; at least one.
	DataKeys []DataKey

	// from is the key file that it was read from; zero if it was not read from one.
	from File
	// united is true if other key files had to be read for it as well.
	united bool
}

// New makes a ring of fresh keys, with one data key of generation 1.
func New(repository format.Name, now time.Time) *Ring {
	return &Ring{Repository: repository, IDKey: randomKey(), DataKeys: []DataKey{{Generation: 1, Key: randomKey(), Created: now.UTC().Truncate(time.Second)}}}
}

// Current is the data key for what is written from now on where the log has a MAC of the generation reached; 0: it has none.
func (r *Ring) Current(reached uint32) DataKey {
	current := r.DataKeys[0]
	if key := r.find(reached); key != nil {
		current = *key
	}
	for {
		// Ascending order: the first that follows is the least.
		next := slices.IndexFunc(r.DataKeys, func(k DataKey) bool { return k.After == current.Generation })
		if next < 0 {
			return current
		}
		current = r.DataKeys[next]
	}
}

// Follows is true if a generation is the earlier one, or was made, through any number of others, by who had its key.
func (r *Ring) Follows(generation, earlier uint32) bool {
	for key := r.find(generation); key != nil; key = r.find(key.After) {
		if key.Generation == earlier {
			return true
		}
	}
	return false
}

// Forked is true if two data keys were made after the same one: by two rotations at once, or by somebody who had the ring
// before a rotation.
func (r *Ring) Forked() bool {
	seen := map[uint32]bool{}
	for _, key := range r.DataKeys {
		if seen[key.After] {
			return true
		}
		seen[key.After] = true
	}
	return false
}

// Newest is the greatest generation in the ring.
func (r *Ring) Newest() uint32 { return r.DataKeys[len(r.DataKeys)-1].Generation }

// Has is true if the ring has a data key of the generation.
func (r *Ring) Has(generation uint32) bool { return r.find(generation) != nil }

func (r *Ring) find(generation uint32) *DataKey {
	for i := range r.DataKeys {
		if r.DataKeys[i].Generation == generation {
			return &r.DataKeys[i]
		}
	}
	return nil
}

// Derive makes the key for one use from the data key of a generation (D in section 10.1). The error wraps ErrNoGeneration.
func (r *Ring) Derive(generation uint32, salt []byte, info string) ([32]byte, error) {
	key := r.find(generation)
	if key == nil {
		return [32]byte{}, fmt.Errorf("%w: %d", ErrNoGeneration, generation)
	}
	return derive(key.Key, salt, info), nil
}

func derive(key Key, salt []byte, info string) (derived [32]byte) {
	out, err := hkdf.Key(sha256.New, key[:], salt, info, len(derived))
	if err != nil {
		panic(err) // only for lengths that HKDF cannot give
	}
	copy(derived[:], out)
	return derived
}

// Check is what repository.json says about the ring: which one is the right one, without telling anything of it.
func (r *Ring) Check() format.Name {
	check := derive(r.DataKeys[0].Key, r.Repository[:], "ferry v1 key check")
	return format.Name(check[:16])
}

// Fits returns an error that wraps ErrForeign unless this is the ring of the repository with the id and key check.
func (r *Ring) Fits(repository, check format.Name) error {
	if r.Repository != repository {
		return fmt.Errorf("%w: it is that of repository %s", ErrForeign, r.Repository)
	}
	if own := r.Check(); !hmac.Equal(own[:], check[:]) {
		return fmt.Errorf("%w: its keys are not those that repository.json was made with; that is damaged, or the key file is somebody else's", ErrForeign)
	}
	return nil
}

// For returns a ring with the same keys for another repository.
func (r *Ring) For(repository format.Name) *Ring {
	return &Ring{Repository: repository, IDKey: r.IDKey, DataKeys: slices.Clone(r.DataKeys)}
}

// SameDataKey is true if both rings have the same data key of a generation, so that frames may go from one repository to
// the other as they are.
func (r *Ring) SameDataKey(other *Ring, generation uint32) bool {
	a, b := r.find(generation), other.find(generation)
	return a != nil && b != nil && hmac.Equal(a.Key[:], b.Key[:])
}

// rotated returns a ring that has a fresh data key of the generation too, which must be greater than all it has. It comes after
// the current one where the log has reached a generation.
func (r *Ring) rotated(generation, reached uint32, now time.Time) (*Ring, error) {
	if len(r.DataKeys) >= maxGenerations || generation > MaxGeneration {
		return nil, fmt.Errorf("no more than %d generations of data keys: copy into a new repository instead", maxGenerations)
	}
	next := r.For(r.Repository)
	next.from = r.from
	after := r.Current(reached)
	key := DataKey{Generation: generation, Key: randomKey(), Created: now.UTC().Truncate(time.Second), After: after.Generation}
	key.Proof = prove(after.Key, key)
	next.DataKeys = append(next.DataKeys, key)
	return next, nil
}

func prove(after Key, next DataKey) Key {
	return derive(after, next.Key[:], "ferry v1 next data key "+strconv.FormatUint(uint64(next.Generation), 10))
}

// unite returns a ring with the data keys of both. The error wraps ErrForged.
func (r *Ring) unite(other *Ring) (*Ring, error) {
	if r.Repository != other.Repository || !hmac.Equal(r.IDKey[:], other.IDKey[:]) {
		return nil, ErrForged
	}
	united := r.For(r.Repository)
	united.from, united.united = r.from, true
	for _, key := range other.DataKeys {
		if own := r.find(key.Generation); own == nil {
			united.DataKeys = append(united.DataKeys, key)
		} else if !hmac.Equal(own.Key[:], key.Key[:]) || own.After != key.After {
			return nil, fmt.Errorf("%w: generation %d", ErrForged, key.Generation)
		}
	}
	slices.SortFunc(united.DataKeys, func(a, b DataKey) int { return int(a.Generation) - int(b.Generation) })
	if len(united.DataKeys) > maxGenerations {
		return nil, fmt.Errorf("%w: more than %d generations of data keys", ErrForged, maxGenerations)
	}
	return united, nil
}

// Format prints which ring this is and never a key, whatever the verb.
func (r *Ring) Format(state fmt.State, _ rune) {
	fmt.Fprintf(state, "key ring of repository %s with %d data keys", r.Repository, len(r.DataKeys))
}

// ringJSON is the ring as section 10.1 has it.
type ringJSON struct {
	Format     string        `json:"format"`
	Version    int           `json:"version"`
	Repository format.Name   `json:"repository"`
	IDKey      format.ID     `json:"idKey"`
	DataKeys   []dataKeyJSON `json:"dataKeys"`
}

type dataKeyJSON struct {
	Generation uint32     `json:"generation"`
	Key        format.ID  `json:"key"`
	Created    time.Time  `json:"created"`
	After      uint32     `json:"after,omitempty"`
	Proof      *format.ID `json:"proof,omitempty"`
}

// Encode returns the ring as JSON: secret.
func (r *Ring) Encode() []byte {
	out := ringJSON{Format: ringFormat, Version: ringVersion, Repository: r.Repository, IDKey: format.ID(r.IDKey)}
	for _, k := range r.DataKeys {
		key := dataKeyJSON{Generation: k.Generation, Key: format.ID(k.Key), Created: k.Created, After: k.After}
		if k.After != 0 {
			proof := format.ID(k.Proof)
			key.Proof = &proof
		}
		out.DataKeys = append(out.DataKeys, key)
	}
	raw, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		panic(err) // only for times that no clock shows
	}
	return append(raw, '\n')
}

// Decode reads what Encode made. Errors wrap format.ErrCorrupt or format.ErrNewer and tell nothing of the content.
func Decode(raw []byte) (*Ring, error) {
	var in ringJSON
	if json.Unmarshal(raw, &in) != nil || in.Format != ringFormat || in.Version < 1 {
		return nil, fmt.Errorf("%w: not a key ring", format.ErrCorrupt)
	}
	if in.Version > ringVersion {
		return nil, fmt.Errorf("%w: key ring version %d", format.ErrNewer, in.Version)
	}
	if len(in.DataKeys) == 0 || len(in.DataKeys) > maxGenerations || in.Repository.IsZero() {
		return nil, fmt.Errorf("%w: key ring with %d data keys", format.ErrCorrupt, len(in.DataKeys))
	}
	ring := &Ring{Repository: in.Repository, IDKey: Key(in.IDKey)}
	for i, k := range in.DataKeys {
		key := DataKey{Generation: k.Generation, Key: Key(k.Key), Created: k.Created, After: k.After}
		if k.Proof != nil {
			key.Proof = Key(*k.Proof)
		}
		switch {
		case k.Generation < 1 || k.Generation > MaxGeneration || i > 0 && k.Generation <= ring.Newest():
			return nil, fmt.Errorf("%w: key ring with generations out of order", format.ErrCorrupt)
		case k.Key.IsZero():
			return nil, fmt.Errorf("%w: key ring without the key of generation %d", format.ErrCorrupt, k.Generation)
		case (i == 0) != (k.After == 0) || i == 0 && k.Proof != nil:
			return nil, fmt.Errorf("%w: key ring with two beginnings, or none", format.ErrCorrupt)
		}
		if i > 0 {
			after := ring.find(k.After)
			if after == nil {
				return nil, fmt.Errorf("%w: key ring lacks generation %d", format.ErrCorrupt, k.After)
			}
			if want := prove(after.Key, key); !hmac.Equal(want[:], key.Proof[:]) {
				return nil, fmt.Errorf("%w: the maker of generation %d did not have generation %d", ErrForeign, k.Generation, k.After)
			}
		}
		ring.DataKeys = append(ring.DataKeys, key)
	}
	return ring, nil
}
