package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

// Going on with an interrupted copy (docs/format.md section 9). What its partials say counts for a copy into their domain. A
// sealed copy has a domain of its own, so it first takes up that of an earlier one, if it may.

// Done is a run of blocks with one id that an earlier, unfinished copy of the point has stored. What it says may be
// beyond the object.
type Done struct {
	Object int
	// First block, and how many: not negative.
	First, Count int64
	ID           format.ID
}

// BeginTask begins the copy of a point. With a validator it returns what earlier copies of the very same point from
// the very same source had stored when they were interrupted, through visit; without one nothing is resumed. The first task
// of a sealed ingest goes on in the domain of such a copy.
func (in *Ingest) BeginTask(ctx context.Context, point backup.PointID, machine backup.MachineKey, validator []byte, visit func(Done) error) (*Task, error) {
	r := in.repo
	t := &Task{
		ingest: in, name: format.RandomName(), point: point, machine: r.Pseudonym(machine), validator: r.keptValidator(validator), blockSize: r.BlockSize(),
	}
	earlier := r.partialsOf(point)
	if err := in.takeUp(ctx, t, earlier); err != nil {
		return nil, err
	}
	in.mu.Lock()
	t.losses = in.losses
	in.mu.Unlock()
	for _, partials := range earlier {
		ends, err := t.resume(ctx, partials, visit)
		if err != nil {
			return nil, err
		}
		if ends {
			t.previous = append(t.previous, partials[0].Task)
			for _, partial := range partials {
				t.files = append(t.files, partial.File)
			}
		}
	}
	return t, nil
}

// partialsOf are the parts of unfinished copies of a point, by their tasks.
func (r *Repository) partialsOf(point backup.PointID) [][]commitlog.Partial {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found [][]commitlog.Partial
	for _, partials := range r.state.Partials {
		if partials[0].Point == point {
			found = append(found, slices.Clone(partials))
		}
	}
	return found
}

// UnfinishedWhole are the points of which a copy into a sealed domain was interrupted and can go on. It reads a file of each.
func (r *Repository) UnfinishedWhole(ctx context.Context) ([]backup.PointID, error) {
	var firsts []commitlog.Partial
	for _, partials := range r.snapshot().Partials {
		firsts = append(firsts, partials[0])
	}
	var points []backup.PointID
	for first := range r.readPartials(ctx, firsts) {
		if err := passing(first.err); err != nil {
			return nil, err
		}
		if first.err == nil && r.isSealed(first.header.Domain) && !slices.Contains(points, first.header.Point) {
			points = append(points, first.header.Point)
		}
	}
	return points, nil
}

// takeUp makes the first task of a sealed ingest go on in the domain of an earlier copy: of those that it may go on with, the
// one that has stored most.
func (in *Ingest) takeUp(ctx context.Context, t *Task, earlier [][]commitlog.Partial) error {
	in.mu.Lock()
	first := !in.begun
	in.begun = true
	in.mu.Unlock()
	if !in.sealed || !first {
		return nil
	}
	r := in.repo
	// What holds the point already is finished: a copy that shared with it would not be one by itself.
	var finished format.Name
	if len(earlier) > 0 && r.Has(t.point) {
		header, err := r.ReadHeader(ctx, t.point)
		if err == nil {
			finished = header.Domain
		} else if !permanent(err) {
			return err
		}
	}
	most := 0
	for _, partials := range earlier {
		header, _, err := r.loadPartial(ctx, partials[0], partialLimit)
		if err != nil {
			if !permanent(err) {
				return err
			}
			continue // said when it is to be resumed
		}
		if len(partials) > most && t.continues(header) && header.Plain == in.plain() && r.isSealed(header.Domain) && header.Domain != finished {
			most = len(partials)
			in.mu.Lock()
			in.domain, in.announced = header.Domain, true
			in.mu.Unlock()
		}
	}
	if most > 0 && in.measure != nil {
		in.measure.known.Close()
		in.measure.known = r.newMeasure(in.domain).known
	}
	return nil
}

// plain is true if blocks are not encrypted though the repository is.
func (in *Ingest) plain() bool { return in.sealer == nil && in.repo.hasher.Encrypted() }

func (r *Repository) isSealed(domain format.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Domains[domain].Sealed
}

// continues is true if the task copies the same from the same source as an earlier one.
func (t *Task) continues(earlier partialHeader) bool {
	return len(t.validator) > 0 && earlier.Point == t.point && earlier.BlockSize == t.blockSize && bytes.Equal(earlier.Validator, t.validator)
}

// resume visits what an earlier copy has stored in the ingest's domain. It returns whether that copy ends when the task's point
// is committed: one into a sealed domain goes on being wanted when the point is committed in another way.
func (t *Task) resume(ctx context.Context, partials []commitlog.Partial, visit func(Done) error) (ends bool, err error) {
	in := t.ingest
	ends = true
	for partial := range in.repo.readPartials(ctx, partials) {
		err := partial.err
		if err == nil {
			if !in.sealed && in.repo.isSealed(partial.header.Domain) {
				return false, nil
			}
			if !t.continues(partial.header) || partial.header.Domain != in.domain {
				return ends, nil
			}
			err = t.visit(ctx, partial.records, visit)
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			// A partial that cannot be read costs reading again, nothing else.
			in.repo.warn("%s is not used: %v", partial.File, err)
			ends = ends && (in.sealed || permanent(err))
		}
	}
	return ends, nil
}

// visit visits the records whose blocks are all there.
func (t *Task) visit(ctx context.Context, records []byte, visit func(Done) error) error {
	for ; len(records) > 0; records = records[partialRecord:] {
		done := Done{Object: int(binary.LittleEndian.Uint32(records)), ID: format.ID(records[16:48])}
		if !done.ID.IsZero() {
			stored, err := t.ingest.stored(ctx, done.ID)
			if err != nil {
				return err
			}
			if !stored {
				continue
			}
		}
		done.First, done.Count = int64(binary.LittleEndian.Uint64(records[8:])&math.MaxInt64), int64(binary.LittleEndian.Uint32(records[4:]))
		if err := errors.Join(ctx.Err(), visit(done)); err != nil {
			return err
		}
	}
	return nil
}
