// Package repotest has what tests of several packages read a repository with, and pause those with who use it at once.
package repotest

import (
	"context"
	"fmt"
	"sync"

	"ferry/internal/repo"
)

// ReadObject reads a point's object whole into memory.
func ReadObject(ctx context.Context, r *repo.Repository, p *repo.Point, i int) ([]byte, error) {
	root := p.Roots[i]
	if root == nil {
		return p.Objects[i].Inline, nil
	}
	content := make([]byte, root.Size)
	var mu sync.Mutex
	dealtWith := int64(0)
	err := r.ReadObject(ctx, *root, EachBlock(func(block repo.Block, plain []byte) error {
		mu.Lock()
		defer mu.Unlock()
		copy(content[block.Offset:], plain)
		return nil
	}), func(n int64) { mu.Lock(); dealtWith += n; mu.Unlock() })
	if err == nil && dealtWith != root.Size {
		err = fmt.Errorf("%s: told of %d bytes of %d", p.Objects[i].Name, dealtWith, root.Size)
	}
	return content, err
}

// EachBlock makes sinks for reading an object, which all call one function with each block: it is called by several
// goroutines at once.
func EachBlock(use func(block repo.Block, plain []byte) error) func() repo.Sink {
	return func() repo.Sink { return eachBlock(use) }
}

type eachBlock func(block repo.Block, plain []byte) error

func (eachBlock) Room(repo.Block) []byte { return nil }

func (use eachBlock) Use(block repo.Block, plain []byte) error { return use(block, plain) }

func (eachBlock) End() error { return nil }
