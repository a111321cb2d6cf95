package repo

import (
	"context"
	"fmt"
	"time"

	"ferry/internal/repo/commitlog"
)

const (
	// clockTolerance is how far the storage's clock and this machine's may differ before one of them is not believed.
	clockTolerance = time.Hour
	// clockStep is how far a file may be ahead of the storage's clock before that is said to have been put back.
	clockStep = time.Minute
)

// readClock asks the storage for its time, and freezes the run if that cannot be right.
func (c *reclaimer) readClock(ctx context.Context) error {
	r := c.repo
	c.now = c.started
	if !c.options.DryRun {
		now, err := c.storageTime(ctx)
		if err != nil {
			return err
		}
		c.now = now
	}
	last, err := r.store.Stat(ctx, commitlog.EntryName(r.head().N))
	if err != nil {
		return err
	}
	switch off := c.now.Sub(c.started).Abs(); {
	case c.now.Before(last.Modified.Add(-clockStep)):
		c.freeze("the storage's clock says %s, but the log's last entry was written at %s: the clock was put back", clockText(c.now), clockText(last.Modified))
	case off > clockTolerance:
		c.freeze("the storage's clock says %s, this machine's %s: one of them is wrong", clockText(c.now), clockText(c.started))
	}
	return nil
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

func (c *reclaimer) freeze(reason string, args ...any) {
	if c.report.Frozen == "" {
		c.report.Frozen = fmt.Sprintf(reason, args...)
	}
}
