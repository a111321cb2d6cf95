package repo_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"ferry/internal/repo"
)

// An ingest that only measures counts what one that stores does, in order and twice over, with many packs and with entries
// that do not fit in memory; and nothing of the repository changes.
func TestMeasureCountsWhatIsStored(t *testing.T) {
	block := func(n int) []byte {
		plain := make([]byte, smallBlock)
		for i := 0; i < smallBlock; i += 8 {
			binary.LittleEndian.PutUint64(plain[i:], uint64(n*smallBlock+i)*0x9e3779b97f4a7c15)
		}
		return plain
	}
	const blocks = 200
	ingest := func(r *repo.Repository, measure bool) [3]int64 {
		in := must(r.NewIngest(t.Context(), repo.IngestOptions{Measure: measure}))(t)
		for n := range 2 * blocks {
			plain := block(n % blocks)
			id := in.BlockID(plain)
			stored, err := in.StoreBlock(t.Context(), id, plain, repo.CodecZstd)
			if err != nil || stored != (n < blocks && n >= 10) {
				t.Fatalf("block %d: %v, %v", n, stored, err)
			}
		}
		if err := in.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		s := in.Stats()
		return [3]int64{s.NewBlocks.Load(), s.NewBytes.Load(), s.Stored.Load()}
	}
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	in := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	for n := range 10 { // are there already
		if _, err := in.StoreBlock(t.Context(), in.BlockID(block(n)), block(n), repo.CodecZstd); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.SetSpillEntries(12) // two packs
	before := slices.Sorted(slices.Values(store.Names("")))
	said := ingest(r, true)
	if after := slices.Sorted(slices.Values(store.Names(""))); !slices.Equal(before, after) {
		t.Errorf("measuring has written: %v, was %v", after, before)
	}
	if again := ingest(r, true); again != said {
		t.Errorf("measured %v, then %v", said, again)
	}
	if did := ingest(r, false); did != said || did[0] != blocks-10 {
		t.Errorf("measured %v, stored %v", said, did)
	}
}

// A survey tells lost and foreign files from those that the log names, and index segments that can be made again.
func TestSurvey(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, threeMachines()...)
	survey := func() *repo.Survey { return must(r.Survey(t.Context()))(t) }
	whole := survey()
	if len(whole.Missing)+len(whole.Other)+len(whole.Unnamed)+whole.LostIndex != 0 || whole.Named == 0 || whole.Bytes == 0 {
		t.Fatalf("%+v", whole)
	}
	remove := func(names ...string) []string {
		t.Helper()
		for _, name := range names {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		return names
	}
	index := remove(store.Names("index/")...)
	if s := survey(); s.LostIndex != len(index) || len(index) == 0 || len(s.Missing) != 0 {
		t.Errorf("%d of %d segments lost: %+v", s.LostIndex, len(index), s)
	}
	if err := store.Put(t.Context(), "points/stranger", []byte("x")); err != nil {
		t.Fatal(err)
	}
	packs := store.Names("packs/")
	if err := store.Tamper(packs[0], func(content []byte) []byte { return content[:len(content)-1] }); err != nil {
		t.Fatal(err)
	}
	lost := remove(packs[1], store.Names("log/")[0])
	s := survey()
	if slices.Sort(lost); !slices.Equal(s.Missing, lost) || !slices.Equal(s.Other, packs[:1]) {
		t.Errorf("missing %v, not %v; other %v, not %v", s.Missing, lost, s.Other, packs[:1])
	}
	if len(s.Unnamed) != 1 || s.Unnamed[0].Name != "points/stranger" || s.UnnamedBytes() != 1 {
		t.Errorf("unnamed %+v", s.Unnamed)
	}
}
