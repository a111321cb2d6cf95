// Package repotest has what tests of several packages read a repository with.
package repotest

import "ferry/internal/repo"

// EachBlock makes sinks for reading an object, which all call one function with each block: it is called by several
// goroutines at once.
func EachBlock(use func(block repo.Block, plain []byte) error) func() repo.Sink {
	return func() repo.Sink { return eachBlock(use) }
}

type eachBlock func(block repo.Block, plain []byte) error

func (eachBlock) Room(repo.Block) []byte { return nil }

func (use eachBlock) Use(block repo.Block, plain []byte) error { return use(block, plain) }

func (eachBlock) End() error { return nil }
