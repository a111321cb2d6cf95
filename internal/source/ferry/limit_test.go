package ferry

import (
	"fmt"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// What is remembered is bounded by what it takes, however large what a repository says: what was listed longest ago makes room, and
// what is too large by itself is not remembered.
func TestMemoryIsBounded(t *testing.T) {
	var memory Memory
	keep := func(repository string, points, bytes int) {
		found := &remembered{last: map[repo.Pseudonym]*likeness{}}
		for n := range points {
			name := strings.Repeat("x", bytes/points)
			found.add(repo.Entry{ID: backup.PointID{byte(n)}}, &backup.Point{Zone: fmt.Sprint(n), Objects: []backup.Object{{Name: name}}})
		}
		memory.keep(repository, found)
	}
	for _, of := range []string{"a", "b", "c"} {
		keep(of, 10, memoryLimit*2/5)
	}
	if memory.of("a") != nil || memory.of("b") == nil || memory.of("c") == nil {
		t.Error("of three repositories that do not fit, the first did not make room, or not it alone")
	}
	keep("d", 10, memoryLimit+1)
	if memory.of("d") != nil || memory.size() > memoryLimit {
		t.Errorf("%d bytes are remembered", memory.size())
	}
}
