package ferry

import (
	"fmt"
	"strings"
	"testing"
	"time"

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

// What was kept takes as much as it did when it was listed, also where a machine was changed and its points' ids lie mixed.
func TestWhatIsKeptTakesAsMuch(t *testing.T) {
	found := &remembered{last: map[repo.Pseudonym]*likeness{}}
	for n := range byte(20) {
		zone := map[bool]string{true: "UTC", false: "Europe/Berlin"}[n < 10]
		created := time.Unix(int64(n), 0).UTC()
		found.add(repo.Entry{ID: backup.PointID{n % 10, n / 10}, Created: created}, &backup.Point{Zone: zone, Created: created})
	}
	var memory Memory
	memory.keep("a", found)
	var listing keptListing
	points := encodePoints(&listing, found)
	kept, err := decodePoints(&listing, points)
	if err != nil || len(kept.points) != 20 || len(listing.Alike) != 2 || kept.size != found.size {
		t.Errorf("%v: %d points, %d likenesses, %d bytes; they took %d", err, len(kept.points), len(listing.Alike), kept.size, found.size)
	}
}
