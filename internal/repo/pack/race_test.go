//go:build race

package pack

// Under the race detector a sync.Pool drops things at random.
const raceEnabled = true
