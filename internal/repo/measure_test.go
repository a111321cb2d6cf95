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
			took, err := in.StoreBlock(t.Context(), id, plain, repo.CodecZstd)
			if err != nil || (took > 0) != (n < blocks && n >= 10) {
				t.Fatalf("block %d: it took %d bytes, %v", n, took, err)
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
