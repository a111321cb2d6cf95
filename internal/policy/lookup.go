package policy

import (
	"fmt"
	"strconv"
	"time"
)

// Direction is where an interval looks for a machine's point.
type Direction string

// The directions.
const (
	// Backward: the newest point that there is when the interval begins; if there is none to copy, the first that appears.
	Backward Direction = "backward"
	// Forward: only a point that was created after the interval began.
	Forward Direction = "forward"
)

// Lookup says which of a source's points an interval takes. The zero value looks backward without a limit.
type Lookup struct {
	// Direction; empty is Backward.
	Direction Direction
	// WithinInterval, for Backward: only points created at most one interval before it begins (lookback: interval).
	WithinInterval bool
	// Backfill is how much existing history the first interval of a machine takes beside its newest point.
	Backfill Backfill
	// StaleLock is after which time without growth a locked point counts as broken; 0 is DefaultStaleLock.
	StaleLock time.Duration
}

// DefaultStaleLock is after which time without growth a locked point counts as broken, if nothing else is said.
const DefaultStaleLock = 2 * time.Hour

// Backfill is a number of points older than the newest, or BackfillAll.
type Backfill int

// BackfillAll takes all history that there is.
const BackfillAll Backfill = -1

// ParseBackfill reads a number from 0, or "all".
func ParseBackfill(text string) (Backfill, error) {
	if text == "all" {
		return BackfillAll, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is neither a number of points nor all", text)
	}
	return Backfill(n), nil
}

// String is what ParseBackfill reads.
func (b Backfill) String() string {
	if b == BackfillAll {
		return "all"
	}
	return strconv.Itoa(int(b))
}
