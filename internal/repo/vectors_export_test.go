package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// What the test vectors make and read of a repository's files.

// SealJob makes the file of a job's record under a salt of the test's.
var SealJob = sealJob

// PartialHeader is what a partial says before its records.
type PartialHeader = partialHeader

// EncodePartial makes a part of an unfinished copy.
var EncodePartial = encodePartial

// ErrOlderKey: a checkpoint that somebody may have made who had the key ring before a rotation.
var ErrOlderKey = errors.New("its key may be one that was given up")

// Bare returns a repository that was not opened, to read single files of; ring is nil where it is not encrypted.
func Bare(store storage.Store, algorithm format.Hash, ring *keyring.Ring) *Repository {
	var description format.Description
	if ring != nil {
		description.ID = ring.Repository
		description.Encrypt(ring.Check())
	}
	return newRepository(store, Environment{kit: &keyring.Kit{Ring: ring}}, description, algorithm, ring)
}

// Hasher of the repository.
func (r *Repository) Hasher() *format.Hasher { return r.hasher }

// ReadEntry applies the next entry of the log.
func (r *Repository) ReadEntry(ctx context.Context, raw []byte) error {
	return r.appendRaw(ctx, r.state.Head.N+1, raw)
}

// ReadCheckpoint reads the checkpoint after entry n; the error is ErrOlderKey if it would not be used.
func (r *Repository) ReadCheckpoint(ctx context.Context, n uint64) (*commitlog.State, error) {
	state, err := r.readCheckpoint(ctx, n)
	if err == nil && !r.keys.believes(state.Generation) {
		return nil, ErrOlderKey
	}
	return state, err
}

// ReadJobFile reads the record of a job, as JSON.
func (r *Repository) ReadJobFile(ctx context.Context, name string) ([]byte, error) {
	record, err := r.readJob(ctx, name)
	if err != nil {
		return nil, err
	}
	return json.Marshal(record)
}

// ReadPartial reads a part of an unfinished copy, and whether it counts for a source with the validator.
func (r *Repository) ReadPartial(ctx context.Context, partial commitlog.Partial, validator []byte) (header PartialHeader, records []byte, counts bool, err error) {
	header, records, err = r.loadPartial(ctx, partial, partialLimit)
	return header, records, string(header.Validator) == string(r.keptValidator(validator)), err
}

// ReadSegment reads an index segment that the log names.
func (r *Repository) ReadSegment(ctx context.Context, segment commitlog.Segment) (*index.Segment, error) {
	return r.openSegment(ctx, segment)
}

// ReadPack reads all that a pack holds, in its order.
func (r *Repository) ReadPack(ctx context.Context, p commitlog.Pack) (contents [][]byte, err error) {
	reader, err := r.store.Open(ctx, pack.ObjectName(p.ID))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if _, err := r.readTable(ctx, reader, p); err != nil {
		return nil, err
	}
	var damaged []error
	_, err = pack.CheckContent(reader, reader.Size(), r.hasher, r.opener, func(entry pack.Entry, plain []byte) error {
		contents = append(contents, bytes.Clone(plain))
		if r.contentID(entry.Kind, plain) != entry.ID {
			return ErrCorrupt
		}
		return nil
	}, func(_ pack.Entry, damage error) { damaged = append(damaged, damage) })
	return contents, errors.Join(append(damaged, err)...)
}

// DecodeFrame reads a frame as that of a block with an id.
func (r *Repository) DecodeFrame(raw []byte, id format.ID) ([]byte, error) {
	return r.decodeFrame(nil, raw, pack.KindBlock, id)
}

// Proof is when a pack was last proven, in Unix seconds.
type Proof struct{ Stored, Blocks uint32 }

// Proofs is what marks/verified says.
type Proofs struct {
	Level         Level
	Begun, Worked time.Time
	Pack, Machine format.Name
	Packs         map[format.Name]Proof
}

// EncodeProofs makes marks/verified.
func EncodeProofs(hasher *format.Hasher, said Proofs) []byte {
	p := &proofs{level: said.Level, begun: said.Begun, worked: said.Worked, pack: said.Pack, machine: said.Machine, packs: map[format.Name]proof{}}
	for id, one := range said.Packs {
		p.packs[id] = proof{one.Stored, one.Blocks}
	}
	return p.encode(hasher)
}

// DecodeProofs reads it.
func DecodeProofs(hasher *format.Hasher, raw []byte) (Proofs, error) {
	p, err := decodeProofs(hasher, raw)
	if err != nil {
		return Proofs{}, err
	}
	said := Proofs{Level: p.level, Begun: p.begun, Worked: p.worked, Pack: p.pack, Machine: p.machine, Packs: map[format.Name]Proof{}}
	for id, one := range p.packs {
		said.Packs[id] = Proof{one.stored, one.blocks}
	}
	return said, nil
}
