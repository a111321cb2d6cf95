package format

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"time"
)

// Description is repository.json: what never changes about a repository (section 3).
type Description struct {
	Format           string    `json:"format"`
	Version          int       `json:"version"`
	RequiredFeatures uint32    `json:"requiredFeatures"`
	OptionalFeatures uint32    `json:"optionalFeatures"`
	ID               Name      `json:"id"`
	Created          time.Time `json:"created"`
	Hash             string    `json:"hash"`
	BlockSize        int       `json:"blockSize"`
	Encrypted        bool      `json:"encrypted"`
	// KeyCheck says which key ring is the right one (section 10.1); zero where the repository is not encrypted.
	KeyCheck Name `json:"keyCheck,omitzero"`
	// Parity asks for a parity file beside each pack; nil for none.
	Parity *Parity `json:"parity,omitempty"`
	// Lock says how files are locked; nil: they are not (section 15).
	Lock *Lock `json:"lock,omitempty"`
}

// Lock says how the storage keeps files from going before their time, and for how long.
type Lock struct {
	// Mode is compliance, governance or host.
	Mode string `json:"mode"`
	// Seconds that a point is kept from when it is committed.
	Seconds int64 `json:"seconds"`
}

// leastLock and mostLock bound Lock.Seconds: a century of what cannot be undone is a mistake.
const leastLock, mostLock = 60, 100 * 366 * 24 * 3600

// Check returns an error unless it is a lock that a repository can have.
func (l Lock) Check() error {
	if l.Mode != "compliance" && l.Mode != "governance" && l.Mode != "host" {
		return fmt.Errorf("lock of mode %q: there are compliance, governance and host", l.Mode)
	}
	if l.Seconds < leastLock || l.Seconds > mostLock {
		return fmt.Errorf("lock for %d seconds: it is to be a minute at least and a hundred years at most", l.Seconds)
	}
	return nil
}

// End is until when what is needed at a time is locked: the period from then on, and on to the end of a generation.
func (l Lock) End(at time.Time) time.Time {
	generation := l.Seconds / 3
	until := at.Unix() + l.Seconds
	if at.Nanosecond() > 0 {
		until++
	}
	return time.Unix((until+generation-1)/generation*generation, 0).UTC()
}

// Locks makes it the description of a repository whose files are locked.
func (d *Description) Locks(lock Lock) {
	d.Lock = &lock
	d.OptionalFeatures |= OptionalLocked
}

// Parity says in how many shards packs are protected (section 7.4).
type Parity struct {
	// Data and Parity shards of a pack: as many damaged shards as there are parity shards can be made again.
	Data   int `json:"data"`
	Parity int `json:"parity"`
}

// maxShards of a pack in all: the field that they are computed in has no more elements.
const maxShards = 256

// Check returns an error unless the numbers are ones that a repository can have.
func (p Parity) Check() error {
	if p.Data < 1 || p.Parity < 1 || p.Parity > p.Data || p.Data > maxShards-p.Parity {
		return fmt.Errorf("parity of %d data and %d parity shards: there are 1 to %d shards in all, and not more parity than data", p.Data, p.Parity, maxShards)
	}
	return nil
}

const descriptionFormat = "ferry-repository"

// DescriptionName is the name of the file that makes a folder a repository.
const DescriptionName = "repository.json"

// Encrypt makes it the description of an encrypted repository whose key ring has this check.
func (d *Description) Encrypt(check Name) {
	d.Encrypted, d.KeyCheck = true, check
	d.RequiredFeatures |= RequiredEncrypted
}

// NewDescription describes a new repository with a random id.
func NewDescription(algorithm Hash, blockSize int, now time.Time) Description {
	return Description{
		Format: descriptionFormat, Version: Version, ID: RandomName(), Created: now.UTC().Truncate(time.Second),
		Hash: algorithm.String(), BlockSize: blockSize,
	}
}

// ParseDescription reads repository.json.
func ParseDescription(content []byte) (Description, Hash, error) {
	var d Description
	if err := json.Unmarshal(content, &d); err != nil {
		return d, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	switch {
	case d.Format != descriptionFormat:
		return d, 0, fmt.Errorf("%w: not the description of a ferry repository", ErrCorrupt)
	case d.Version < 1 || d.ID.IsZero():
		return d, 0, fmt.Errorf("%w: no version or no id", ErrCorrupt)
	case d.Version > Version:
		return d, 0, fmt.Errorf("%w: format version %d", ErrNewer, d.Version)
	case d.RequiredFeatures&^RequiredEncrypted != 0:
		return d, 0, fmt.Errorf("%w: required features %#x", ErrNewer, d.RequiredFeatures)
	case d.Encrypted != (d.RequiredFeatures&RequiredEncrypted != 0) || d.Encrypted == d.KeyCheck.IsZero():
		return d, 0, fmt.Errorf("%w: half of it says that the repository is encrypted", ErrCorrupt)
	}
	if err := CheckBlockSize(d.BlockSize); err != nil {
		return d, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if (d.Lock != nil) != (d.OptionalFeatures&OptionalLocked != 0) {
		return d, 0, fmt.Errorf("%w: half of it says that files are locked", ErrCorrupt)
	}
	if d.Lock != nil {
		if err := d.Lock.Check(); err != nil {
			return d, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if d.Parity != nil {
		if err := d.Parity.Check(); err != nil {
			return d, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	algorithm, err := ParseHash(d.Hash)
	return d, algorithm, err
}

// CheckBlockSize returns an error unless the size is a power of two from 4 KiB to 4 MiB.
func CheckBlockSize(size int) error {
	if size < MinBlockSize || size > MaxBlockSize || bits.OnesCount(uint(size)) != 1 {
		return fmt.Errorf("block size %d is not a power of two from %d to %d bytes", size, MinBlockSize, MaxBlockSize)
	}
	return nil
}
