package repo

import (
	"context"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

// measure is what makes an ingest one that stores nothing. All goes as it would: blocks are looked up, encoded and packed; but
// the packs are written to nowhere, and the log learns of nothing. What was packed counts as known afterwards: its entries are
// kept as those of packs that no segment covers, in memory as long as they are few, then in files without a name.
type measure struct {
	known *index.Set
	// entries of packs that lie in memory. Touched by the sealer only.
	entries []index.Entry
	// machines of which a point was measured. Guarded by the ingest's lock.
	machines map[backup.MachineKey]bool
}

func (r *Repository) newMeasure(domain format.Name) *measure {
	return &measure{known: index.NewSet(domain, r.packEntries), machines: map[backup.MachineKey]bool{}}
}

// nowhere is the writer of a pack that is only measured.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)  { return len(p), nil }
func (nowhere) Commit(context.Context) error { return nil }
func (nowhere) Abort()                       {}

var _ storage.Writer = nowhere{}

// publishMeasured counts what a seal would write, and remembers its ids.
func (in *Ingest) publishMeasured(s *seal) error {
	defer abort(s.packs)
	for _, open := range s.packs {
		_, size, err := open.pack.Finish()
		if err != nil {
			return fmt.Errorf("pack %s: %w", open.id, err)
		}
		in.stats.Written.Add(size)
		entries := indexEntries(open.id, open.entries)
		in.measure.known.AddPack(open.id, entries)
		in.measure.entries = append(in.measure.entries, entries...)
	}
	if len(in.measure.entries) > in.repo.spillEntries {
		if err := in.spillMeasured(); err != nil {
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, open := range s.packs {
		for _, e := range open.entries {
			delete(in.pending, e.ID)
		}
	}
	for _, ready := range s.points {
		in.stats.Written.Add(int64(len(ready.raw)))
		in.measure.machines[ready.point.Machine.Key] = true
	}
	in.published++
	in.stats.Packs.Add(int64(len(s.packs)))
	return nil
}

// spillMeasured moves the entries that lie in memory to a file.
func (in *Ingest) spillMeasured() error {
	file, err := in.repo.cache.file()
	if err != nil {
		return err
	}
	var packs []format.Name
	seen := map[format.Name]bool{}
	for _, e := range in.measure.entries {
		if !seen[e.Pack] {
			seen[e.Pack] = true
			packs = append(packs, e.Pack)
		}
	}
	opened, err := in.repo.buildIn(file, in.measure.entries)
	if err != nil {
		return err
	}
	in.measure.known.AddSegment(format.RandomName(), opened, packs)
	in.measure.entries = nil
	return nil
}

// HasMachine is true if the repository has a point of the machine, or, where nothing is stored, would have one by now.
func (in *Ingest) HasMachine(key backup.MachineKey) bool {
	if in.measure != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.measure.machines[key] {
			return true
		}
	}
	return in.repo.HasMachine(key)
}
