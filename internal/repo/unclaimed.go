package repo

import (
	"context"
	"errors"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// removeUnclaimed removes points that nothing claims or holds, and ends unfinished copies that nobody will go on with:
// those that are needless now that their point is there, and those of which nothing was heard for a long time.
func (c *reclaimer) removeUnclaimed(ctx context.Context) error {
	old, err := c.oldTasks(ctx)
	if err != nil {
		return err
	}
	payload := &commitlog.Payload{}
	err = c.commit(ctx, payload, func(state *commitlog.State) error {
		payload.PointsRemoved, payload.PartialsEnded = nil, nil
		for point := range state.Points.All() {
			if !state.Claims.Any(point.ID) && len(holding(state, point.ID, c.now)) == 0 {
				payload.PointsRemoved = append(payload.PointsRemoved, point.ID)
			}
		}
		for task, partials := range state.Partials {
			if files, is := old[task]; is && files == len(partials) {
				payload.PartialsEnded = append(payload.PartialsEnded, task)
			}
		}
		if len(payload.PointsRemoved)+len(payload.PartialsEnded) == 0 {
			return errNothing
		}
		slices.SortFunc(payload.PointsRemoved, func(a, b backup.PointID) int { return slices.Compare(a[:], b[:]) })
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	c.report.PointsRemoved, c.report.UnfinishedEnded = len(payload.PointsRemoved), len(payload.PartialsEnded)
	return nil
}

// oldTasks returns the unfinished copies to be ended, with how many files they had when looked at: one that has more since
// is alive.
func (c *reclaimer) oldTasks(ctx context.Context) (map[format.Name]int, error) {
	state := c.repo.snapshot()
	old := map[format.Name]int{}
	for task, partials := range state.Partials {
		newest := time.Time{}
		for _, partial := range partials {
			info, err := c.repo.store.Stat(ctx, partial.File)
			if err != nil && !storage.Missing(err) {
				return nil, err
			}
			if info.Modified.After(newest) {
				newest = info.Modified
			}
		}
		done, err := c.needless(ctx, state, partials[0])
		if err != nil {
			return nil, err
		}
		if done && c.now.Sub(newest) >= c.options.Policy.Grace || c.now.Sub(newest) >= c.options.Policy.UnfinishedFor {
			old[task] = len(partials)
		}
	}
	return old, nil
}

// needless is true for an unfinished copy whose point is there. One into a sealed domain is to read it whole, whatever is there
// of it elsewhere: it is needless only if the point is in this domain.
func (c *reclaimer) needless(ctx context.Context, state *commitlog.State, partial commitlog.Partial) (bool, error) {
	if !state.Points.Has(partial.Point) {
		return false, nil
	}
	header, _, err := c.repo.loadPartial(ctx, partial, partialLimit)
	if err != nil {
		return permanent(err), passing(err)
	}
	if !state.Domains[header.Domain].Sealed {
		return true, nil
	}
	point, err := c.repo.ReadHeader(ctx, partial.Point)
	if err != nil {
		return false, passing(err)
	}
	return point.Domain == header.Domain, nil
}

// passing is err unless it is one that trying again does not mend.
func passing(err error) error {
	if permanent(err) {
		return nil
	}
	return err
}
