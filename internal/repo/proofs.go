package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

const (
	proofsName   = "marks/verified"
	proofsFixed  = 80
	proofRecord  = 24
	maxProofs    = 100_000
	proofsLimit  = proofsFixed + maxProofs*proofRecord + 32
	saveEvery    = 30 * time.Second
	roundPatient = 7 * 24 * time.Hour
)

// proofs is what marks/verified says: when each pack was last proven, and how far a verification is that was cut short
// (docs/format.md section 13). It is a hint; without it everything counts as never proven.
type proofs struct {
	// level of the round that is under way, 0 for none; when it began, and when it was last worked on.
	level         Level
	begun, worked time.Time
	// pack and machine are how far the round is.
	pack, machine format.Name

	mu    sync.Mutex // guards what follows
	packs map[format.Name]proof
	saved time.Time
}

// proof is when a pack was last proven, in Unix seconds, 0 for never.
type proof struct{ stored, blocks uint32 }

func (p proof) merged(q proof) proof { return proof{max(p.stored, q.stored), max(p.blocks, q.blocks)} }

func (r *Repository) readProofs(ctx context.Context) *proofs {
	p := &proofs{packs: map[format.Name]proof{}, saved: r.env.now()}
	if raw, err := storage.ReadAll(ctx, r.store, proofsName, proofsLimit); err == nil {
		if decoded, err := decodeProofs(r.hasher, raw); err == nil {
			decoded.saved = p.saved
			decoded.disbelieve(p.saved)
			return decoded
		}
	}
	return p
}

// disbelieve forgets what is later than now: a clock that was wrong would keep packs from being read until then.
func (p *proofs) disbelieve(now time.Time) {
	for id, known := range p.packs {
		if int64(known.stored) > now.Unix() {
			known.stored = 0
		}
		if int64(known.blocks) > now.Unix() {
			known.blocks = 0
		}
		p.packs[id] = known
	}
	if p.worked.After(now) || p.begun.After(now) {
		p.level = 0
	}
}

// begin begins a round, or goes on with one of that level that was cut short not long ago. Packs proven since the time
// that it returns are not read.
func (p *proofs) begin(options VerifyOptions, now time.Time) (fresh time.Time) {
	goOn := p.level == options.Level && now.Sub(p.worked) < roundPatient
	if !goOn {
		p.level, p.begun = options.Level, now
		p.machine = format.Name{}
	}
	p.worked = now
	switch {
	case options.NotSince > 0:
		fresh = now.Add(-options.NotSince)
	case goOn:
		fresh = p.begun
	default:
		fresh = now.Add(time.Hour) // none is
	}
	return fresh
}

// endRound notes that everything was looked at.
func (p *proofs) endRound() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.level, p.begun, p.machine = 0, time.Time{}, format.Name{}
}

// at is when a pack was last proven at a level; the zero time for never.
func (p *proofs) at(id format.Name, level Level) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.packs[id]
	seconds := known.blocks
	if level == LevelStored {
		seconds = max(known.stored, known.blocks)
	}
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// proven notes that a pack was read whole.
func (p *proofs) proven(id format.Name, level Level, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seconds := uint32(max(now.Unix(), 1))
	known := p.packs[id]
	if known == (proof{}) {
		p.pack = id
	}
	if level == LevelStored {
		known.stored = seconds
	} else {
		known.stored, known.blocks = seconds, seconds
	}
	p.packs[id] = known
}

// save writes the mark, now or if it was not written for a while. What another verification has written meanwhile is
// kept. That it cannot be written costs only time.
func (p *proofs) save(ctx context.Context, r *Repository, now bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := r.env.now()
	if !now && at.Sub(p.saved) < saveEvery {
		return
	}
	p.saved, p.worked = at, at
	for id, other := range r.readProofs(ctx).packs {
		p.packs[id] = p.packs[id].merged(other)
	}
	maps.DeleteFunc(p.packs, func(id format.Name, _ proof) bool { return !r.hasPack(id) })
	if len(p.packs) > maxProofs {
		p.forget()
	}
	if err := r.store.Overwrite(ctx, proofsName, p.encode(r.hasher)); errors.Is(err, storage.ErrNotFile) { // no other time goes better
		r.warn("what was proven is not remembered: %v", err)
	}
}

// forget drops the oldest proofs beyond what a mark may hold. Their packs count as never proven, and are taken behind the
// one that was proven last: so each of them has its turn, however many there are.
func (p *proofs) forget() {
	ids := slices.SortedFunc(maps.Keys(p.packs), func(a, b format.Name) int {
		x, y := p.packs[a], p.packs[b]
		return int(int64(max(y.stored, y.blocks)) - int64(max(x.stored, x.blocks)))
	})
	for _, id := range ids[maxProofs:] {
		delete(p.packs, id)
	}
}

func (p *proofs) encode(hasher *format.Hasher) []byte {
	raw := format.AppendPrelude(make([]byte, 0, proofsFixed+len(p.packs)*proofRecord+32), format.MagicVerified)
	raw = append(raw, byte(p.level), 0, 0, 0)
	raw = binary.LittleEndian.AppendUint64(raw, unixOrZero(p.begun))
	raw = binary.LittleEndian.AppendUint64(raw, unixOrZero(p.worked))
	raw = append(append(raw, p.pack[:]...), p.machine[:]...)
	raw = binary.LittleEndian.AppendUint64(raw, uint64(len(p.packs)))
	for _, id := range slices.SortedFunc(maps.Keys(p.packs), format.Name.Compare) {
		raw = append(raw, id[:]...)
		raw = binary.LittleEndian.AppendUint32(raw, p.packs[id].stored)
		raw = binary.LittleEndian.AppendUint32(raw, p.packs[id].blocks)
	}
	sum := hasher.Sum(format.ContextVerified, raw)
	return append(raw, sum[:]...)
}

func unixOrZero(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }

func decodeProofs(hasher *format.Hasher, raw []byte) (*proofs, error) {
	if err := format.CheckPrelude(raw, format.MagicVerified); err != nil {
		return nil, err
	}
	corrupt := fmt.Errorf("%w: %s", ErrCorrupt, proofsName)
	if len(raw) < proofsFixed+32 {
		return nil, corrupt
	}
	body := raw[:len(raw)-32]
	count := binary.LittleEndian.Uint64(raw[72:])
	if hasher.Sum(format.ContextVerified, body) != format.ID(raw[len(body):]) || count > maxProofs || len(body) != proofsFixed+int(count)*proofRecord || Level(raw[20]) > LevelPoints || [3]byte(raw[21:24]) != [3]byte{} {
		return nil, corrupt
	}
	p := &proofs{
		level: Level(raw[20]), begun: time.Unix(int64(binary.LittleEndian.Uint64(raw[24:])&(1<<40-1)), 0), worked: time.Unix(int64(binary.LittleEndian.Uint64(raw[32:])&(1<<40-1)), 0),
		pack: format.Name(raw[40:56]), machine: format.Name(raw[56:72]), packs: make(map[format.Name]proof, count),
	}
	for record := body[proofsFixed:]; len(record) > 0; record = record[proofRecord:] {
		p.packs[format.Name(record[:16])] = proof{binary.LittleEndian.Uint32(record[16:]), binary.LittleEndian.Uint32(record[20:])}
	}
	return p, nil
}

// Proven says since when everything is proven.
type Proven struct {
	// Level is LevelStored or LevelBlocks.
	Level Level
	// Oldest is the oldest of the last proofs of the packs that have one; zero if none has. Never counts those that were not
	// proven since they were written.
	Oldest time.Time
	Never  int
}

// Proven says how old the oldest proof of any pack is, for stored bytes and for blocks.
func (r *Repository) Proven(ctx context.Context) []Proven {
	p := r.readProofs(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	var proven []Proven
	for _, level := range []Level{LevelStored, LevelBlocks} {
		one := Proven{Level: level}
		for id := range r.state.Packs.All() {
			at := p.at(id, level)
			switch {
			case at.IsZero():
				one.Never++
			case one.Oldest.IsZero() || at.Before(one.Oldest):
				one.Oldest = at
			}
		}
		proven = append(proven, one)
	}
	return proven
}
