// Package commitlog holds the repository's log: a chain of commits, each created only if absent, that says what the
// repository is (docs/format.md section 4). It knows bytes and state; storing them is the repository's.
package commitlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// Payload is what one entry says, and in a checkpoint what all entries up to it say.
type Payload struct {
	Time    time.Time `json:"time"`
	Writer  string    `json:"writer"`
	Program string    `json:"program,omitempty"`
	// Keyless is true for an entry of an encrypted repository that nobody with the key wrote. See State.CheckKeyless.
	Keyless bool `json:"-"`
	// Generation of the key of the MAC; 0: there is none.
	Generation uint32 `json:"-"`

	Repository       *Repository      `json:"repository,omitempty"`
	Domains          []Domain         `json:"domains,omitempty"`
	Packs            []Pack           `json:"packs,omitempty"`
	Condemned        []format.Name    `json:"condemned,omitempty"`
	Deleted          []format.Name    `json:"deleted,omitempty"`
	CondemnedFiles   []string         `json:"condemnedFiles,omitempty"`
	DeletedFiles     []string         `json:"deletedFiles,omitempty"`
	CondemnedIn      []Condemnation   `json:"condemnedIn,omitempty"`
	Index            []Segment        `json:"index,omitempty"`
	IndexRemoved     []format.Name    `json:"indexRemoved,omitempty"`
	Points           []Point          `json:"points,omitempty"`
	PointsRemoved    []backup.PointID `json:"pointsRemoved,omitempty"`
	Claims           []Claim          `json:"claims,omitempty"`
	ClaimsWithdrawn  []Claim          `json:"claimsWithdrawn,omitempty"`
	Holds            []Hold           `json:"holds,omitempty"`
	HoldsReleased    []Hold           `json:"holdsReleased,omitempty"`
	Tombstones       []Tombstone      `json:"tombstones,omitempty"`
	TombstonesLifted []backup.PointID `json:"tombstonesLifted,omitempty"`
	Bad              []Bad            `json:"bad,omitempty"`
	BadHealed        []Bad            `json:"badHealed,omitempty"`
	Damaged          []Damaged        `json:"damaged,omitempty"`
	DamagedHealed    []backup.PointID `json:"damagedHealed,omitempty"`
	Partials         []Partial        `json:"partials,omitempty"`
	// Rotated is the generation whose key files a rotation has made, all of them; 0: the entry does not end one.
	Rotated uint32 `json:"rotated,omitempty"`
	// Locked: until then at least everything is locked that is to be (docs/format.md section 15).
	Locked        *time.Time    `json:"locked,omitempty"`
	PartialsEnded []format.Name `json:"partialsEnded,omitempty"`
}

// Repository binds the log to its repository.json.
type Repository struct {
	ID       format.Name `json:"id"`
	Checksum format.ID   `json:"checksum"`
}

// Domain is a border of deduplication and trust.
type Domain struct {
	ID     format.Name `json:"id"`
	Sealed bool        `json:"sealed,omitempty"`
}

// Pack is a sealed pack.
type Pack struct {
	ID     format.Name `json:"id"`
	Kind   string      `json:"kind"`
	Domain format.Name `json:"domain"`
	// Size of the file in bytes.
	Size   int64     `json:"size"`
	Frames int       `json:"frames"`
	Root   format.ID `json:"root"`
	// Entry is the number of the log entry that named the pack last. Only checkpoints write it.
	Entry uint64 `json:"entry,omitempty"`
}

// Condemnation says in which entry packs and files were condemned. Only checkpoints have it.
type Condemnation struct {
	Entry uint64        `json:"entry"`
	Packs []format.Name `json:"packs,omitempty"`
	Files []string      `json:"files,omitempty"`
}

// Segment is an index segment and the packs it covers.
type Segment struct {
	ID       format.Name `json:"id"`
	Size     int64       `json:"size"`
	Checksum format.ID   `json:"checksum"`
	Packs    Names       `json:"packs"`
}

// Claim is a job's wish to keep a point.
type Claim struct {
	Point  backup.PointID `json:"point"`
	Job    string         `json:"job"`
	Reason string         `json:"reason,omitempty"`
	Flags  []string       `json:"flags,omitempty"`
}

// Hold keeps a point while something reads it, or because a person said so.
type Hold struct {
	Point  backup.PointID `json:"point"`
	ID     string         `json:"id"`
	Reason string         `json:"reason,omitempty"`
	Until  *time.Time     `json:"until,omitempty"`
}

// Tombstone is a removed point that must not be copied again.
type Tombstone struct {
	ID      backup.PointID `json:"id"`
	Machine format.Name    `json:"machine"`
	Created time.Time      `json:"created"`
	Reason  string         `json:"reason,omitempty"`
	// Job is the one that gave it up last, and Flags are those of its claim.
	Job   string   `json:"job,omitempty"`
	Flags []string `json:"flags,omitempty"`
}

// Bad is a frame known to be damaged.
type Bad struct {
	Pack   format.Name `json:"pack"`
	Offset int64       `json:"offset"`
	Length int64       `json:"length"`
	ID     format.ID   `json:"id"`
}

// Damaged is a point of which not everything can be read.
type Damaged struct {
	Point backup.PointID `json:"point"`
	// Places is the number of ranges that cannot be read, Bytes their length in all.
	Places int   `json:"places,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
	// File is true if the point's own file is damaged: nothing of the point can be read then.
	File bool `json:"file,omitempty"`
}

// Partial is a part of an unfinished copy.
type Partial struct {
	Task     format.Name    `json:"task"`
	Point    backup.PointID `json:"point"`
	Machine  format.Name    `json:"machine"`
	File     string         `json:"file"`
	Checksum format.ID      `json:"checksum"`
}

// Head identifies a state of the log: the number of its last entry and that entry's checksum.
type Head struct {
	N        uint64    `json:"n"`
	Checksum format.ID `json:"checksum"`
}

// EntryName and CheckpointName are the names of log entry n and of the checkpoint after it.
func EntryName(n uint64) string { return fmt.Sprintf("log/%012d", n) }

// CheckpointName is the name of the checkpoint after entry n.
func CheckpointName(n uint64) string { return fmt.Sprintf("checkpoints/%012d", n) }

// ParseNumber reads n from the last element of a name that EntryName or CheckpointName made.
func ParseNumber(base string) (uint64, bool) {
	n, err := strconv.ParseUint(base, 10, 64)
	return n, err == nil && len(base) == 12 && n > 0
}

// NumberOf is the number that the bytes of an entry or a checkpoint say they have; 0 if they are neither.
func NumberOf(raw []byte) uint64 {
	if len(raw) < headerSize+tailSize {
		return 0
	}
	return binary.LittleEndian.Uint64(raw[24:])
}

const (
	headerSize = 68
	tailSize   = 64
	// MaxSize bounds what is read as one entry or checkpoint, in bytes.
	MaxSize = 1 << 30
)

// Encode makes the bytes of entry n after the entry whose checksum is previous. It returns them with the new head.
func Encode(hasher *format.Hasher, n uint64, previous format.ID, payload *Payload) ([]byte, Head, error) {
	return encode(hasher, format.MagicLog, format.ContextLogEntry, n, previous, payload)
}

// EncodeCheckpoint makes the bytes of the checkpoint after the head.
func EncodeCheckpoint(hasher *format.Hasher, head Head, state *Payload) ([]byte, error) {
	raw, _, err := encode(hasher, format.MagicCheckpoint, format.ContextCheckpoint, head.N, head.Checksum, state)
	return raw, err
}

func encode(hasher *format.Hasher, magic format.Magic, context format.Context, n uint64, link format.ID, payload *Payload) ([]byte, Head, error) {
	raw, head, err := enclose(hasher, magic, context, n, link, func(raw []byte) ([]byte, error) { return appendPayload(raw, payload) })
	payload.Generation = hasher.Generation()
	return raw, head, err
}

// enclose puts a payload, which is appended to what it is given, between the header and the proofs of a log entry.
func enclose(hasher *format.Hasher, magic format.Magic, context format.Context, n uint64, link format.ID, appendTo func([]byte) ([]byte, error)) ([]byte, Head, error) {
	raw := format.AppendPrelude(nil, magic)
	generation := hasher.Generation()
	raw = binary.LittleEndian.AppendUint32(raw, generation)
	raw = binary.LittleEndian.AppendUint64(raw, n)
	raw = append(raw, link[:]...)
	raw = append(raw, 0, 0, 0, 0) // the payload's length
	raw, err := appendTo(raw)
	if err != nil {
		return nil, Head{}, err
	}
	binary.LittleEndian.PutUint32(raw[headerSize-4:], uint32(len(raw)-headerSize))
	mac, err := hasher.MAC(format.InfoLog, generation, raw)
	if err != nil {
		return nil, Head{}, err
	}
	raw = append(raw, mac[:]...)
	sum := hasher.Sum(context, raw)
	return append(raw, sum[:]...), Head{N: n, Checksum: sum}, nil
}

// Decode reads entry n. The caller compares link with the checksum of the entry before, and asks State.CheckKeyless about
// a payload that is Keyless. Errors wrap format.ErrCorrupt (format.ErrForged among them) or format.ErrNewer, or are those of
// keys that lack the generation.
func Decode(hasher *format.Hasher, n uint64, raw []byte) (payload Payload, link format.ID, head Head, err error) {
	return decode(hasher, format.MagicLog, format.ContextLogEntry, n, raw)
}

// DecodeCheckpoint reads the checkpoint after entry n; link is that entry's checksum.
func DecodeCheckpoint(hasher *format.Hasher, n uint64, raw []byte) (state Payload, link format.ID, err error) {
	state, link, _, err = decode(hasher, format.MagicCheckpoint, format.ContextCheckpoint, n, raw)
	if err == nil && state.Keyless {
		err = fmt.Errorf("%w: a checkpoint without a MAC", format.ErrForged)
	}
	return state, link, err
}

func decode(hasher *format.Hasher, magic format.Magic, context format.Context, n uint64, raw []byte) (payload Payload, link format.ID, head Head, err error) {
	opened, err := disclose(hasher, magic, context, n, raw)
	if err != nil {
		return payload, link, head, err
	}
	payload.Packs = roomForPacks(opened.payload)
	if err := json.Unmarshal(opened.payload, &payload); err != nil {
		return payload, link, head, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	payload.Keyless, payload.Generation = opened.keyless, opened.generation
	return payload, opened.link, Head{N: n, Checksum: opened.sum}, nil
}

// disclosed is what enclose has put together.
type disclosed struct {
	payload    []byte
	link, sum  format.ID
	generation uint32
	keyless    bool
}

// disclose checks everything but the payload.
func disclose(hasher *format.Hasher, magic format.Magic, context format.Context, n uint64, raw []byte) (disclosed, error) {
	if err := format.CheckPrelude(raw, magic); err != nil {
		return disclosed{}, err
	}
	corrupt := func(what string) (disclosed, error) {
		return disclosed{}, fmt.Errorf("%w: %s", format.ErrCorrupt, what)
	}
	if len(raw) < headerSize+tailSize {
		return corrupt("shorter than any log entry")
	}
	body := raw[:len(raw)-32]
	sum := hasher.Sum(context, body)
	switch {
	case sum != format.ID(raw[len(body):]):
		return corrupt("checksum differs")
	case binary.LittleEndian.Uint64(raw[24:]) != n:
		return corrupt("entry has another number than its name")
	case uint64(binary.LittleEndian.Uint32(raw[64:])) != uint64(len(raw)-headerSize-tailSize):
		return corrupt("payload length differs from the file's")
	}
	proven := raw[:len(raw)-tailSize]
	generation := binary.LittleEndian.Uint32(raw[20:])
	keyless, err := hasher.CheckMAC(format.InfoLog, generation, proven, raw[len(proven):len(body)])
	if err != nil {
		return disclosed{}, err
	}
	return disclosed{proven[headerSize:], format.ID(raw[32:64]), sum, generation, keyless}, nil
}

// leastPack is the least that a pack takes in a payload, in bytes: its names and its root in hex, and their keys.
const leastPack = 180

// roomForPacks makes room for the packs of a payload, of which a checkpoint may have a hundred thousands: growing to that
// takes three times the memory. Whatever the payload says, it is less than the payload takes.
func roomForPacks(payload []byte) []Pack {
	packs := min(bytes.Count(payload, []byte(`"root":`)), len(payload)/leastPack)
	if packs == 0 {
		return nil
	}
	return make([]Pack, 0, packs)
}
