//go:build scale

package repo_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage/fs"
)

// Adds points that nobody has to the log of the repository in FERRY_SCALE_REPOSITORY, FERRY_SCALE_POINTS of them, each with
// an entry of its own that also names FERRY_SCALE_PACKS packs that are not there, and says how long opening it takes.
// docs/performance.md has the figures.
func TestScalePoints(t *testing.T) {
	dir := os.Getenv("FERRY_SCALE_REPOSITORY")
	if dir == "" {
		t.Skip("FERRY_SCALE_REPOSITORY names no repository")
	}
	count, err := strconv.Atoi(os.Getenv("FERRY_SCALE_POINTS"))
	if err != nil {
		t.Fatal(err)
	}
	packs, _ := strconv.Atoi(os.Getenv("FERRY_SCALE_PACKS"))
	store := must(fs.Open(dir))(t)
	defer store.Close()
	r := must(repo.Open(t.Context(), store, repo.Environment{}))(t)
	for i := range count {
		var point commitlog.Point
		rand.Read(point.ID[:])
		rand.Read(point.Checksum[:])
		point.Machine, point.Created = format.Name{byte(i % 50), 9}, time.Unix(int64(i)*3600, 0).UTC()
		point = point.WithFile(fmt.Sprintf("points/%s/%s-%s", point.Machine, point.Created.Format("20060102T150405.000000000Z"), point.ID))
		payload := &commitlog.Payload{Points: []commitlog.Point{point}, Claims: []commitlog.Claim{{Point: point.ID, Job: "manual", Reason: "copied by hand"}}}
		segment := commitlog.Segment{ID: format.RandomName(), Size: 1 << 20}
		for range packs {
			p := commitlog.Pack{ID: format.RandomName(), Kind: "data", Domain: r.Description().ID, Size: 64 << 20, Frames: 512}
			rand.Read(p.Root[:])
			payload.Packs = append(payload.Packs, p)
			segment.Packs = append(segment.Packs, p.ID)
		}
		if packs > 0 {
			payload.Index = []commitlog.Segment{segment}
		}
		if err := r.AppendEntry(t.Context(), payload); err != nil {
			t.Fatal(err)
		}
	}
	closeRepo(t, r)
	began := time.Now()
	r = must(repo.Open(t.Context(), store, repo.Environment{}))(t)
	t.Logf("%d points, %d entries: opened in %v", len(r.Entries()), r.Usage().Entries, time.Since(began))
	closeRepo(t, r)
}
