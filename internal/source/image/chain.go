package image

import (
	"fmt"
	"strings"
	"time"

	"ferry/internal/backup"
)

// weigh finds out, for every file, how long its chain is, when its state is from and what is wrong with the chain. It
// cuts chains that run in a circle. Each file is visited a bounded number of times whatever the files claim.
func (s *scan) weigh() {
	const visiting = -1
	for _, start := range s.sorted() {
		var way []*file
		f := start
		for f != nil && f.depth == 0 {
			f.depth = visiting
			way = append(way, f)
			f = f.below
		}
		if f != nil && f.depth == visiting {
			cut(f)
		}
		for k := len(way) - 1; k >= 0; k-- {
			way[k].settle()
		}
	}
}

// cut breaks a circle that f is part of: none of its files can be read.
func cut(f *file) {
	circle := []*file{f}
	for next := f.below; next != f; next = next.below {
		circle = append(circle, next)
	}
	var names []string
	for _, member := range circle[:min(len(circle), 8)] {
		names = append(names, backup.EncodeName(member.Path))
	}
	names = append(names, names[0])
	for _, member := range circle {
		member.trouble = trouble{backup.StateBroken, "backing files run in a circle: " + strings.Join(names, " -> ")}
		member.leave()
	}
}

// settle computes what depends on the files below, which have been settled.
func (f *file) settle() {
	f.depth, f.chained = 1, f.trouble
	f.created, _ = backup.BoundTime(f.ModTime)
	if f.below == nil {
		return
	}
	f.depth = f.below.depth + 1
	// The chain's order is certain, file times are not.
	f.created = later(f.created, f.below.created.Add(1))
	below := f.below.chained
	if below.state != "" && !strings.HasPrefix(below.reason, "backing file ") {
		below.reason = fmt.Sprintf("backing file %s: %s", backup.EncodeName(f.below.Path), below.reason)
	}
	f.chained = worse(f.chained, below)
	if f.depth > maxDepth {
		f.chained = trouble{backup.StateBroken, fmt.Sprintf("a chain of more than %d files", maxDepth)}
	}
}

// layers returns the chain from f down, f first.
func (f *file) layers() []*file {
	var chain []*file
	for ; f != nil && len(chain) < maxDepth; f = f.below {
		chain = append(chain, f)
	}
	return chain
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
