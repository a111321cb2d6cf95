package repo

import (
	"context"
	"time"

	"ferry/internal/repo/pack"
)

// RepositoryUse says how much of a repository is live, in bytes of its packs, as a mark found.
type RepositoryUse struct {
	// At is when it was found, by the storage's clock; Entry is the log's last entry then.
	At    time.Time `json:"at"`
	Entry uint64    `json:"entry"`
	// Live is what points and unfinished copies need, Dead what they do not, tables included in neither.
	// Condemned is the size of packs that are given up and not deleted yet.
	Live      int64 `json:"live"`
	Dead      int64 `json:"dead"`
	Condemned int64 `json:"condemned"`
	// Logical is the size of all points, zeros included. Content is what the live blocks hold, each counted once; Data what they take,
	// compressed and with their headers. Tree nodes are in neither of these two, sealed domains in none of the three.
	Logical int64 `json:"logical"`
	Content int64 `json:"content"`
	Data    int64 `json:"data"`
	// Packs counts those that are not condemned.
	Packs int `json:"packs"`
}

// use sums up what the mark found.
func (c *reclaimer) use() RepositoryUse {
	u := RepositoryUse{At: c.now.UTC(), Entry: c.state.Head.N, Logical: c.marker.logical}
	for id, p := range c.state.Packs.All() {
		if c.state.Condemned[id] {
			u.Condemned += p.Size
			continue
		}
		u.Packs++
		live := int64(0)
		if d := c.marker.domains[p.Domain]; d != nil && d.sealed && d.roots > 0 {
			live = p.Size - pack.Overhead(p.Frames)
		} else if used := c.useOf(p); used != nil {
			live = used.bytes
			if p.Kind == pack.KindBlock.String() {
				u.Content += used.plain
				u.Data += used.bytes
			}
		}
		u.Live += live
		u.Dead += p.Size - pack.Overhead(p.Frames) - live
	}
	return u
}

// remember writes down what the mark found, for repo info, and what this run has left of what is dead.
func (c *reclaimer) remember(ctx context.Context) error {
	use := c.report.Use
	use.Dead = c.use().Dead
	return c.saveRecord(ctx, func(record *reclaimRecord) { record.Use = &use })
}

// LastUse is what the last reclaim found, and left of what was dead, or nil.
func (r *Repository) LastUse(ctx context.Context) *RepositoryUse { return r.readReclaimRecord(ctx).Use }

// CondemnedBytes is the size of packs that are given up and not deleted yet, as the log says now.
func (r *Repository) CondemnedBytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var size int64
	for id := range r.state.Condemned {
		size += r.state.Packs.Of(id).Size
	}
	return size
}

// Analysis is what of a repository is live, what each machine's points need, and how its newest point lies in packs.
type Analysis struct {
	Use           RepositoryUse
	Fragmentation []Fragmentation
	Machines      MachinesUse
}

// Analyze finds out about the repository as it is now. It reads tree nodes and the index, and changes nothing.
func (r *Repository) Analyze(ctx context.Context, tempDir string) (*Analysis, error) {
	report, err := r.Reclaim(ctx, ReclaimOptions{DryRun: true, Policy: DefaultReclaimPolicy(), TempDir: tempDir})
	if err != nil {
		return nil, err
	}
	if len(report.Incomplete) > 0 {
		r.warn("the figures are not complete: %s", report.Incomplete[0])
	}
	found := &Analysis{Use: report.Use}
	if found.Machines, err = r.MachinesUse(ctx, tempDir); err != nil {
		return nil, err
	}
	for _, entry := range r.newestPoints() {
		f, err := r.fragmentation(ctx, entry)
		if err != nil {
			if ctx.Err() != nil || !permanent(err) {
				return nil, err
			}
			r.warn("point %s cannot be followed: %v", entry.ID.Short(), err)
			continue
		}
		found.Fragmentation = append(found.Fragmentation, f)
	}
	return found, nil
}
