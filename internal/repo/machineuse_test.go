package repo_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
)

// blocksOf are a disk's blocks that are not zeros.
func blocksOf(data []byte) map[string]bool {
	blocks := map[string]bool{}
	for at := 0; at < len(data); at += smallBlock {
		block := data[at:min(at+smallBlock, len(data))]
		if len(bytes.Trim(block, "\x00")) > 0 {
			blocks[string(block)] = true
		}
	}
	return blocks
}

func sizeOf(blocks map[string]bool) int64 {
	sum := int64(0)
	for block := range blocks {
		sum += int64(len(block))
	}
	return sum
}

func analyze(t *testing.T, r *repo.Repository) *repo.Analysis {
	t.Helper()
	return must(r.Analyze(t.Context(), t.TempDir()))(t)
}

func machineUse(t *testing.T, r *repo.Repository, found *repo.Analysis, p *sourcetest.Point) repo.MachineUse {
	t.Helper()
	for _, use := range found.Machines.Machines {
		if use.Machine == r.Pseudonym(p.Machine.Key) {
			return use
		}
	}
	t.Fatalf("nothing is said of machine %s", p.Machine.Name)
	return repo.MachineUse{}
}

// What each machine needs is what its disks' different blocks are; what they share counts for each, and in all once, as
// reclaim counts it.
func TestMachinesUse(t *testing.T) {
	store := initialized(t, repo.Options{})
	one := content(1, 40*smallBlock+99)
	two := changed(one, 2, len(one))
	clear(two[7*smallBlock : 9*smallBlock])
	grown := append(bytes.Clone(two), content(3, 6*smallBlock)...)
	other := append(bytes.Clone(one[:20*smallBlock]), content(4, 9*smallBlock)...)
	points := []*sourcetest.Point{onePoint("a", "a1", one), onePoint("a", "a2", two), onePoint("b", "b1", other)}
	points[0].Created, points[1].Created = at(1), at(2)
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}

	found := analyze(t, r)
	a, b := machineUse(t, r, found, points[0]), machineUse(t, r, found, points[2])
	all, ofA := blocksOf(other), blocksOf(one)
	for block := range blocksOf(two) {
		ofA[block] = true
	}
	for block := range ofA {
		all[block] = true
	}
	if a.Points != 2 || a.Logical != int64(len(one)+len(two)) || a.Distinct != sizeOf(ofA) || a.Newest != points[1].ID() || a.Before != points[0].ID() {
		t.Errorf("machine a: %+v, its blocks hold %d", a, sizeOf(ofA))
	}
	if b.Points != 1 || b.Logical != int64(len(other)) || b.Distinct != sizeOf(blocksOf(other)) || b.Before != (backup.PointID{}) || b.Changed != 0 {
		t.Errorf("machine b: %+v, its blocks hold %d", b, sizeOf(blocksOf(other)))
	}
	differ := int64(0)
	for at := 0; at < len(one); at += smallBlock {
		if end := min(at+smallBlock, len(one)); !bytes.Equal(one[at:end], two[at:end]) {
			differ += int64(end - at)
		}
	}
	if differ == 0 || a.Changed != differ {
		t.Errorf("%d bytes of a changed, not %d", a.Changed, differ)
	}
	if in := found.Machines.All; in.Distinct != sizeOf(all) || in.Distinct != found.Use.Content || in.Stored != found.Use.Data || in.Stored >= a.Stored+b.Stored {
		t.Errorf("in all %+v, the blocks hold %d; reclaim found %+v", in, sizeOf(all), found.Use)
	}

	// A disk that grew: what it did not have before.
	last := onePoint("a", "a3", grown)
	last.Created = at(3)
	mustCopyAll(t, r, last)
	fresh := blocksOf(grown)
	for block := range blocksOf(two) {
		delete(fresh, block)
	}
	if a := machineUse(t, r, analyze(t, r), last); a.Changed != sizeOf(fresh) || a.Before != points[1].ID() {
		t.Errorf("%+v, what was not there before is %d", a, sizeOf(fresh))
	}
}

// What is in a sealed domain is stored again, and counts again.
func TestMachinesUseOfSealedDomains(t *testing.T) {
	store := initialized(t, repo.Options{})
	data := content(1, 30*smallBlock)
	p, full := onePoint("a", "a1", data), onePoint("b", "b1", data)
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, p)
	shared := analyze(t, r).Machines.All
	from := sourcetest.Open(t, full)
	steps := plan.Make([]backup.Point{from.Points[0].Point}, r.Has, plan.Request{All: true})
	if report, err := job.Copy(t.Context(), from, r, steps, job.Options{Codec: mover.CodecAuto, Full: true}); err != nil || report.Copied() != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	found := analyze(t, r)
	a, b := machineUse(t, r, found, p), machineUse(t, r, found, full)
	if a.Distinct != sizeOf(blocksOf(data)) || b.Distinct != a.Distinct || a.BlockUse != shared || found.Machines.All.Stored != a.Stored+b.Stored || found.Machines.All.Distinct != 2*a.Distinct {
		t.Errorf("%+v and %+v, in all %+v", a, b, found.Machines.All)
	}
}

// Of a machine whose blocks are lost it is said, and of others not.
func TestMachinesUseOfLostBlocks(t *testing.T) {
	store, p, _ := damagedRepository(t)
	damaged := 0
	for _, name := range store.Names("packs/") {
		if info := must(store.Stat(t.Context(), name))(t); info.Size > smallPack/2 { // of blocks, not of nodes
			tamper(t, store, name, func(raw []byte) []byte { raw[64+96+10] ^= 4; return raw })
			damaged++
		}
	}
	q := onePoint("b", "b1", content(2, 12*smallBlock))
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	if _, err := r.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustCopyAll(t, r, q)
	found := analyze(t, r)
	if a, b := machineUse(t, r, found, p), machineUse(t, r, found, q); a.Lost != damaged || damaged == 0 || a.Incomplete || b.Lost > 0 || b.Incomplete || b.Distinct != sizeOf(blocksOf(q.Objects[0].Data)) {
		t.Errorf("%+v and %+v", a, b)
	}
}

// What the last copy wrote is what its report says; what is no such note is none.
func TestLastRun(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	ctx := context.Background()
	if run, _ := r.LastRun(ctx); run != nil {
		t.Fatalf("nothing was copied: %+v", run)
	}
	p := onePoint("a", "a1", content(1, 12*smallBlock))
	report := mustCopyAll(t, r, p)
	want := repo.LastRun{Points: 1, New: sizeOf(blocksOf(p.Objects[0].Data)), Stored: report.Stored, Nodes: report.Nodes, Packs: report.Packs}
	for _, again := range []bool{false, true} {
		run, since := r.LastRun(ctx)
		if run == nil || since != 0 || run.Ended.Sub(run.Began) != report.Took {
			t.Fatalf("%+v, %d packs since; the copy took %s", run, since, report.Took)
		}
		got := *run
		got.Began, got.Ended, got.Entry = time.Time{}, time.Time{}, 0
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if !again {
			if report, err := copyAll(ctx, r, sourcetest.Open(t, p)); err != nil || report.There() != 1 {
				t.Fatalf("%+v, %v", report, err) // it has nothing to copy, and says nothing
			}
		}
	}
	raw := must(storage.ReadAll(ctx, store, "marks/last-run", 1<<20))(t)
	mustCopyAll(t, r, onePoint("b", "b1", content(2, 12*smallBlock)))
	note := func(text string) []byte {
		sum := format.NewHasher(format.HashBLAKE3, [32]byte{}).Sum(format.ContextLastRun, []byte(text))
		return append([]byte(text), sum[:]...)
	}
	for _, c := range []struct {
		what string
		note []byte
	}{
		{"nothing", nil}, {"a checksum of nothing", note("")}, {"no JSON", note("{")}, {"a negative size", note(`{"newBytes":-1}`)},
		{"a time before it began", note(`{"began":"2026-01-02T00:00:00Z","ended":"2026-01-01T00:00:00Z"}`)},
		{"another history", note(`{"entry":1000000}`)}, {"too much", note(`{"program":"` + strings.Repeat("x", 64<<10) + `"}`)},
		{"no checksum", []byte(`{"points":1}`)}, {"the checksum of something else", bytes.Replace(raw, []byte(`"points":1`), []byte(`"points":2`), 1)},
	} {
		if err := store.Overwrite(ctx, "marks/last-run", c.note); err != nil {
			t.Fatal(err)
		}
		if run, _ := r.LastRun(ctx); run != nil {
			t.Errorf("%s: %+v", c.what, run)
		}
	}
	if err := store.Overwrite(ctx, "marks/last-run", raw); err != nil {
		t.Fatal(err)
	}
	if run, since := r.LastRun(ctx); run == nil || since == 0 {
		t.Errorf("%+v, and %d packs of a later copy", run, since)
	}
}
