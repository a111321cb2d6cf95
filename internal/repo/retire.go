package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
)

// packOf is the pack whose file has that name.
func packOf(name string) (format.Name, bool) {
	var id format.Name
	err := id.UnmarshalText([]byte(name[strings.LastIndexByte(name, '/')+1:]))
	return id, err == nil && pack.ObjectName(id) == name
}

// isReclaimed is true for files other than packs that reclaim looks after.
func isReclaimed(name string) bool {
	return strings.HasPrefix(name, "points/") || strings.HasPrefix(name, "partials/") || strings.HasPrefix(name, "index/")
}

// reclaimMark remembers what runs saw, so that nothing is deleted that only one of them found old enough: its clock may
// have been wrong for a moment. It is a hint: losing it costs time.
const reclaimMark = "marks/reclaim"

type reclaimRecord struct {
	// Passed are entries whose grace was found to have passed, and by which run first.
	Passed []passedRecord `json:"passed"`
	// Use is what the last run that marked everything found.
	Use *RepositoryUse `json:"use,omitempty"`
}

type passedRecord struct {
	Entry uint64      `json:"entry"`
	Run   format.Name `json:"run"`
	Time  time.Time   `json:"time"`
}

// readReclaimRecord returns an empty one if there is none, or one that cannot be read.
func (r *Repository) readReclaimRecord(ctx context.Context) reclaimRecord {
	var record reclaimRecord
	content, err := storage.ReadAll(ctx, r.store, reclaimMark, 1<<20)
	if err != nil || json.Unmarshal(content, &record) != nil {
		return reclaimRecord{}
	}
	return record
}

// condemned is something that waits for its deletion.
type condemnedFile struct {
	file string
	pack format.Name // zero: not a pack
	size int64
}

// retire deletes what was condemned, once two runs found that the grace has passed since. Then the log says so.
func (c *reclaimer) retire(ctx context.Context) error {
	// It is done twice in a run: what was locked is tried again, and time has passed.
	c.report.Waiting, c.report.Until, c.report.NextRun = Amount{}, time.Time{}, true
	c.report.Locked, c.report.LockedUntil = Amount{}, time.Time{}
	if !c.options.DryRun {
		now, err := c.storageTime(ctx)
		if err != nil {
			return err
		}
		c.now = now
	}
	record := c.repo.readReclaimRecord(ctx)
	byEntry := c.condemnedByEntry()
	var passed []passedRecord
	var ready []condemnedFile
	for entry, files := range byEntry {
		info, err := c.repo.store.Stat(ctx, commitlog.EntryName(entry))
		if errors.Is(err, storage.ErrNotExist) {
			info, err = storage.Info{Modified: c.now}, nil // nobody knows when: it waits
		}
		if err != nil {
			return err
		}
		until := info.Modified.Add(c.options.Policy.Grace)
		i := slices.IndexFunc(record.Passed, func(p passedRecord) bool { return p.Entry == entry })
		switch {
		case c.now.Before(until) || c.report.Frozen != "":
			c.report.NextRun = false
			c.wait(files, until)
			continue
		case i < 0:
			passed = append(passed, passedRecord{Entry: entry, Run: c.run, Time: c.now})
			c.wait(files, until)
			continue
		}
		passed = append(passed, record.Passed[i])
		if record.Passed[i].Run == c.run || c.now.Before(record.Passed[i].Time) || c.options.DryRun {
			c.wait(files, until)
			continue
		}
		ready = append(ready, files...)
	}
	if c.options.DryRun {
		return nil
	}
	if err := c.saveRecord(ctx, func(record *reclaimRecord) { record.Passed = passed }); err != nil {
		return err
	}
	if len(ready) == 0 {
		return nil
	}
	if err := c.repo.Refresh(ctx); err != nil {
		return err
	}
	if c.rottenNow() { // then what is condemned may be what is left
		c.stop(errStale.Error() + ": the next run goes on")
		c.wait(ready, time.Time{})
		return nil
	}
	for some := range slices.Chunk(ready, condemnedAtOnce) {
		if c.outOfTime() {
			return nil
		}
		if err := c.deleteSome(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (c *reclaimer) wait(files []condemnedFile, until time.Time) {
	for _, f := range files {
		c.report.Waiting.add(!f.pack.IsZero(), f.size)
	}
	if until.After(c.report.Until) {
		c.report.Until = until
	}
}

// condemnedByEntry is what the log says is condemned now.
func (c *reclaimer) condemnedByEntry() map[uint64][]condemnedFile {
	state := c.repo.snapshot()
	byEntry := map[uint64][]condemnedFile{}
	for id := range state.Condemned {
		name := pack.ObjectName(id)
		f := condemnedFile{file: name, pack: id, size: max(state.Packs.Of(id).Size, c.listing.file(name).Size)}
		reason := c.needed(state, id)
		if reason != "" {
			c.repo.warn("pack %s is condemned and not deleted: %s", id, reason)
			c.report.NextRun = false
		}
		entry := state.CondemnedIn[id.String()]
		files := byEntry[entry]
		if reason != "" || c.rescued[id] {
			c.report.Waiting.add(true, f.size)
		} else {
			files = append(files, f)
		}
		byEntry[entry] = files // also if none may be deleted yet: their grace passes all the same
	}
	for name := range state.CondemnedFiles {
		if isReclaimed(name) { // else no program of ours condemned it
			byEntry[state.CondemnedIn[name]] = append(byEntry[state.CondemnedIn[name]], condemnedFile{file: name, size: c.listing.file(name).Size})
		}
	}
	return byEntry
}

// needed says why a condemned pack must not be deleted yet (docs/format.md section 14, rule 5): what took its place was found
// damaged, and it could not be stored again in this run (rescue.go), or nobody knows.
func (c *reclaimer) needed(state *commitlog.State, id format.Name) string {
	p, named := state.Packs.Get(id)
	if !named {
		return ""
	}
	if use := c.useOf(p); use != nil && use.needed > 0 {
		return fmt.Sprintf("%d blocks or nodes that points need are in no other pack", use.needed)
	}
	if c.forOthers(id) {
		return "blocks or nodes that points of another domain need have no good copy there"
	}
	if d := c.marker.domains[p.Domain]; d != nil && len(d.incomplete) > 0 {
		return "what is live is not known for certain"
	}
	return ""
}

// deleteSome deletes files, then commits that they are gone. What the storage has locked stays.
func (c *reclaimer) deleteSome(ctx context.Context, files []condemnedFile) error {
	r := c.repo
	payload := &commitlog.Payload{}
	for _, f := range files {
		var err error
		if f.pack.IsZero() {
			err = r.store.Delete(ctx, f.file)
		} else {
			err = r.deletePack(ctx, f.pack)
		}
		if err != nil {
			if until, locked := lockedUntil(err); locked {
				c.report.Locked.add(!f.pack.IsZero(), f.size)
				if until.After(c.report.LockedUntil) {
					c.report.LockedUntil = until
				}
				continue
			}
			return err
		}
		c.report.Deleted.add(!f.pack.IsZero(), f.size)
		if f.pack.IsZero() {
			payload.DeletedFiles = append(payload.DeletedFiles, f.file)
		} else {
			payload.Deleted = append(payload.Deleted, f.pack)
		}
	}
	if len(payload.Deleted)+len(payload.DeletedFiles) == 0 {
		return nil
	}
	return c.commit(ctx, payload, nil)
}

// deletePack deletes a pack, and its parity before: a parity file without a pack would be nobody's.
func (r *Repository) deletePack(ctx context.Context, id format.Name) error {
	if r.description.Parity != nil {
		if err := r.store.Delete(ctx, parity.ObjectName(id)); err != nil {
			return err
		}
	}
	return r.store.Delete(ctx, pack.ObjectName(id))
}

// lockedUntil is until when the storage keeps an object, if that is why it could not be deleted.
func lockedUntil(err error) (time.Time, bool) {
	var locked *storage.LockedError
	if errors.As(err, &locked) {
		return locked.Until, true
	}
	return time.Time{}, false
}

// saveRecord changes what runs remember. Not being able to is no reason to fail: it costs time.
func (c *reclaimer) saveRecord(ctx context.Context, change func(*reclaimRecord)) error {
	record := c.repo.readReclaimRecord(ctx)
	change(&record)
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	err = c.repo.withReserve(ctx, func() error { return c.repo.store.Overwrite(ctx, reclaimMark, content) })
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.repo.warn("what this run saw could not be remembered, so that deleting takes one run more: %v", err)
	}
	return nil
}
