//go:build race

package format

// Under the race detector a sync.Pool drops things at random.
const raceEnabled = true
