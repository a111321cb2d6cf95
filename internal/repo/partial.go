package repo

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"sync/atomic"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// Task is the copy of one point while it runs. What it has stored is written down with every pack, so that after an
// interruption a copy of the same point from an unchanged source goes on behind it (docs/format.md section 9).
type Task struct {
	ingest    *Ingest
	name      format.Name
	point     backup.PointID
	machine   format.Name
	validator []byte
	blockSize int64

	// losses of the ingest when the task began: what it found stored is good while there are no more.
	losses int
	// base is the point that subtrees are taken over from, or nil.
	base *Point

	// records since the last seal, and how many bytes their blocks have, guarded by ingest.mu.
	records []byte
	bytes   int64
	queued  bool
	seq     int
	// written counts the bytes whose blocks the log knows of; nil: nobody wants to know.
	written *atomic.Int64
	// files written, and earlier tasks that this one goes on from. Touched by the sealer only.
	files    []string
	previous []format.Name
}

type partialHeader struct {
	Task      format.Name    `json:"task"`
	Point     backup.PointID `json:"point"`
	Machine   format.Name    `json:"machine"`
	Validator []byte         `json:"validator"`
	BlockSize int64          `json:"blockSize"`
	// Domain that the blocks are in; zero, of a program that knew only one, is the repository's own.
	Domain format.Name `json:"domain,omitzero"`
	// Plain is true if the blocks are not encrypted though the repository is.
	Plain bool `json:"plain,omitempty"`
}

const (
	partialFixed  = 32
	partialRecord = 48
	partialLimit  = 256 << 20
)

// keptValidator is what a partial says of a source's validator: that of an encrypted repository tells nothing of what is in
// it, and is equal where it is equal.
func (r *Repository) keptValidator(validator []byte) []byte {
	if len(validator) == 0 || !r.hasher.Encrypted() {
		return validator
	}
	id := r.hasher.Sum(format.ContextValidator, validator)
	return id[:]
}

// loadPartial reads a part of an unfinished copy, of at most limit bytes.
func (r *Repository) loadPartial(ctx context.Context, partial commitlog.Partial, limit int64) (partialHeader, []byte, error) {
	raw, err := storage.ReadAll(ctx, r.store, partial.File, limit)
	if err != nil {
		return partialHeader{}, nil, err
	}
	header, records, err := decodePartial(r.hasher, raw, partial.Checksum)
	if header.Domain.IsZero() {
		header.Domain = r.defaultDomain()
	}
	return header, records, err
}

func encodePartial(hasher *format.Hasher, header partialHeader, records []byte) (raw []byte, checksum format.ID, err error) {
	said, err := json.Marshal(header)
	if err != nil {
		return nil, checksum, err
	}
	raw = format.AppendPrelude(make([]byte, 0, partialFixed+len(said)+len(records)+32), format.MagicPartial)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(said)))
	raw = binary.LittleEndian.AppendUint64(raw, uint64(len(records)/partialRecord))
	raw = append(append(raw, said...), records...)
	checksum = hasher.Sum(format.ContextPartial, raw)
	return append(raw, checksum[:]...), checksum, nil
}

func decodePartial(hasher *format.Hasher, raw []byte, checksum format.ID) (partialHeader, []byte, error) {
	var header partialHeader
	if err := format.CheckPrelude(raw, format.MagicPartial); err != nil {
		return header, nil, err
	}
	if len(raw) < partialFixed+32 {
		return header, nil, fmt.Errorf("%w: shorter than any such file", ErrCorrupt)
	}
	sumAt := len(raw) - 32
	if sum := hasher.Sum(format.ContextPartial, raw[:sumAt]); sum != format.ID(raw[sumAt:]) || sum != checksum {
		return header, nil, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	headerSize, count := uint64(binary.LittleEndian.Uint32(raw[20:])), binary.LittleEndian.Uint64(raw[24:])
	body := uint64(sumAt - partialFixed)
	if headerSize > body || count > body/partialRecord || headerSize+count*partialRecord != body {
		return header, nil, fmt.Errorf("%w: impossible counts", ErrCorrupt)
	}
	if err := json.Unmarshal(raw[partialFixed:partialFixed+headerSize], &header); err != nil {
		return header, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return header, raw[partialFixed+headerSize : sumAt], nil
}

// TakeOver says that subtrees of a committed point are taken over unread: the task's point is committed only while the
// repository still has that one.
func (t *Task) TakeOver(base *Point) { t.base = base }

// CountWritten adds to a counter the bytes of the blocks that are written down from now on: what an interruption does not lose. It
// is called before the first of them is stored.
func (t *Task) CountWritten(counter *atomic.Int64) { t.written = counter }

// recordsLimit is how many bytes of records wait for a pack to be full. A copy that finds everything known fills none.
const recordsLimit = 1 << 20

// Stored says that a block of the task's point, of so many bytes, is appended to a pack, or was known. With the next pack it is written
// down, and within half a minute where none is full before. The zero id says that the block was read and is zeros.
func (t *Task) Stored(object int, block, length int64, id format.ID) {
	in := t.ingest
	in.mu.Lock()
	defer in.mu.Unlock()
	if !t.extend(object, block, id) {
		t.records = binary.LittleEndian.AppendUint32(t.records, uint32(object))
		t.records = binary.LittleEndian.AppendUint32(t.records, 1)
		t.records = binary.LittleEndian.AppendUint64(t.records, uint64(block))
		t.records = append(t.records, id[:]...)
	}
	t.bytes += length
	if !t.queued {
		t.queued = true
		in.tasks = append(in.tasks, t)
		in.wait()
	}
	if len(t.records) >= recordsLimit {
		in.send(in.ctx, in.take(false))
	}
}

// extend makes the last record a longer run of zeros, if that is what the block does.
func (t *Task) extend(object int, block int64, id format.ID) bool {
	if !id.IsZero() || len(t.records) == 0 {
		return false
	}
	last := t.records[len(t.records)-partialRecord:]
	count := binary.LittleEndian.Uint32(last[4:])
	if format.ID(last[16:]) != id || binary.LittleEndian.Uint32(last) != uint32(object) ||
		binary.LittleEndian.Uint64(last[8:])+uint64(count) != uint64(block) || count == math.MaxUint32 {
		return false
	}
	binary.LittleEndian.PutUint32(last[4:], count+1)
	return true
}

type partialBatch struct {
	task    *Task
	records []byte
	bytes   int64
	seq     int
}

// take hands over the records. The caller holds the ingest's lock.
func (t *Task) take() partialBatch {
	batch := partialBatch{task: t, records: t.records, bytes: t.bytes, seq: t.seq}
	t.records, t.bytes, t.queued = nil, 0, false
	t.seq++
	return batch
}

// write puts a batch into a file.
func (b partialBatch) write(ctx context.Context, r *Repository) (commitlog.Partial, error) {
	t := b.task
	raw, sum, err := encodePartial(r.hasher, partialHeader{
		Task: t.name, Point: t.point, Machine: t.machine, Validator: t.validator, BlockSize: t.blockSize, Domain: t.ingest.domain, Plain: t.ingest.plain(),
	}, b.records)
	if err != nil {
		return commitlog.Partial{}, err
	}
	name := fmt.Sprintf("partials/%s-%08d", t.name, b.seq)
	if err := r.store.Put(ctx, name, raw); err != nil {
		return commitlog.Partial{}, err
	}
	t.files = append(t.files, name)
	return commitlog.Partial{Task: t.name, Point: t.point, Machine: t.machine, File: name, Checksum: sum}, nil
}

// end returns the files and tasks that the finished point makes needless.
func (t *Task) end() (files []string, tasks []format.Name) {
	return t.files, append(t.previous, t.name)
}
