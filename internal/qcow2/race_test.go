//go:build race

package qcow2

// The race detector makes sync.Pool forget at random, so that allocations cannot be counted.
func init() { countAllocations = false }
