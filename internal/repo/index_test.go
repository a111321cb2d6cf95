package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/storage/memory"
)

// packsOfBlocks is a store with a repository of many small packs, the blocks of which are all different, in few commits.
func packsOfBlocks(t *testing.T, blocks int) (*memory.Store, [][]byte) {
	t.Helper()
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	plain := make([][]byte, blocks)
	for i := range plain {
		plain[i] = content(uint64(i)+1<<20, smallBlock)
		binary.LittleEndian.PutUint64(plain[i], uint64(i)+1)
		if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(plain[i]), plain[i], repo.CodecNone); err != nil {
			t.Fatal(err)
		}
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	return store, plain
}

// findBlocks looks blocks up as a copy does: it stores them, and they must be known.
func findBlocks(t *testing.T, r *repo.Repository, plain [][]byte) {
	t.Helper()
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	for i, block := range plain {
		if took, err := ingest.StoreBlock(t.Context(), ingest.BlockID(block), block, repo.CodecNone); err != nil || took > 0 {
			t.Fatalf("block %d: it took %d bytes, %v", i, took, err)
		}
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// After a crash, opening and the first lookup cost what was unfinished, whatever else the repository holds.
func TestOpeningCostsWhatIsUnfinished(t *testing.T) {
	for _, blocks := range []int{400, 1600} {
		store, plain := packsOfBlocks(t, blocks)
		packs := len(store.Names("packs/"))
		cache := newCache(t)
		r := must(openSmall(t.Context(), store, cache))(t)
		findBlocks(t, r, plain) // the cache has everything now
		// A crash in the middle of a copy: packs that no segment covers, one that nothing names.
		ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
		for i := range 20 {
			block := content(uint64(i)+1<<30, smallBlock)
			binary.LittleEndian.PutUint64(block[8:], uint64(i)+1)
			if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(block), block, repo.CodecNone); err != nil {
				t.Fatal(err)
			}
		}
		_ = ingest.Close(context.Background(), context.Canceled)
		closeRepo(t, r)
		store.ResetCounts()
		r = must(openSmall(t.Context(), store, cache))(t)
		findBlocks(t, r, plain[:50])
		calls, read := store.Calls(""), store.Bytes(memory.OpRead, "packs", "index")
		t.Logf("%d packs: %d calls, %d bytes of packs and index", packs, calls, read)
		if read > 64<<10 {
			t.Errorf("%d packs: read %d bytes of packs and index", packs, read)
		}
		// An entry of the log since the checkpoint is opened and read.
		last := 0
		for _, name := range store.Names("checkpoints/") {
			last, _ = strconv.Atoi(filepath.Base(name))
		}
		if replayed := int(r.State().Head.N) - last; replayed > 130 || calls > 2*replayed+40 {
			t.Errorf("%d packs: %d calls, %d entries were read", packs, calls, replayed)
		}
		closeRepo(t, r)
	}
}

// Every segment lost: what is read of the packs does not have to fit in memory, and reindex mends it.
func TestReindex(t *testing.T) {
	store, plain := packsOfBlocks(t, 1000)
	for _, name := range store.Names("index/") {
		if err := store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	r.SetSpillEntries(100)
	read := 0
	report := must(r.Reindex(t.Context(), true, func(done, total int) { read = done }))(t)
	if report.Segments == 0 || report.Packs != r.State().Packs.Len() || read != report.Packs {
		t.Errorf("%+v of %d packs, told of %d", report, r.State().Packs.Len(), read)
	}
	covered := map[string]bool{}
	for _, segment := range r.State().Index {
		for _, name := range segment.Packs {
			covered[name.String()] = true
		}
	}
	if len(covered) != r.State().Packs.Len() || len(store.Names("index/")) != len(r.State().Index) {
		t.Errorf("%d of %d packs covered, %d files of %d segments", len(covered), r.State().Packs.Len(), len(store.Names("index/")), len(r.State().Index))
	}
	findBlocks(t, r, plain)
	closeRepo(t, r)
	store.ResetCounts()
	r = must(openSmall(t.Context(), store, newCache(t)))(t)
	findBlocks(t, r, plain[:10])
	if n := store.Calls(memory.OpOpen, "packs"); n > 0 {
		t.Errorf("after reindex %d packs are opened to find blocks", n)
	}
	if report := must(r.Reindex(t.Context(), false, nil))(t); report.Segments != 0 {
		t.Errorf("reindex of a whole index: %+v", report)
	}
	check(t, r)
	closeRepo(t, r)
}

// A segment whose file is gone, or cut short, is written anew, also by a machine that has it in its cache, with or without having looked into it.
func TestReindexOfALostSegmentThatIsCached(t *testing.T) {
	for what, lose := range map[string]func(store *memory.Store, name string) error{
		"gone": func(store *memory.Store, name string) error { return store.Delete(t.Context(), name) },
		"cut short": func(store *memory.Store, name string) error {
			return store.Tamper(name, func(raw []byte) []byte { return raw[:len(raw)/2] })
		},
	} {
		for _, looked := range []bool{false, true} {
			store, plain := packsOfBlocks(t, 100)
			cache := newCache(t)
			r := must(openSmall(t.Context(), store, cache))(t)
			must(r.Reindex(t.Context(), true, nil))(t)
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, cache))(t)
			if looked {
				findBlocks(t, r, plain)
			}
			lost := store.Names("index/")
			for _, name := range lost {
				if err := lose(store, name); err != nil {
					t.Fatal(err)
				}
			}
			report := must(r.Reindex(t.Context(), false, nil))(t)
			if written := store.Names("index/"); len(lost) == 0 || report.Segments == 0 || len(written) != len(r.State().Index) {
				t.Errorf("of %q %s: %+v, %q written, the log names %d", lost, what, report, written, len(r.State().Index))
			}
			findBlocks(t, r, plain)
			check(t, r)
			closeRepo(t, r)
		}
	}
}

// A reader finds everything also with no index at all, in memory that does not grow with it.
func TestLookupSpillsWhatNoSegmentCovers(t *testing.T) {
	store, plain := packsOfBlocks(t, 500)
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	var ids []commitlog.Segment
	for _, segment := range r.State().Index {
		ids = append(ids, segment)
	}
	for _, segment := range ids {
		if err := store.Tamper("index/"+segment.ID.String(), func(raw []byte) []byte { raw[len(raw)/2] ^= 4; return raw }); err != nil {
			t.Fatal(err)
		}
	}
	r.SetSpillEntries(64)
	for i, block := range plain {
		if packs := must(r.PlacesOf(t.Context(), r.BlockID(block)))(t); len(packs) != 1 {
			t.Fatalf("block %d is in %v", i, packs)
		}
	}
	if r.LocalSegments() == 0 {
		t.Error("nothing was spilled")
	}
	closeRepo(t, r)
	r = must(openSmall(t.Context(), store, newCache(t)))(t)
	r.SetSpillEntries(64)
	mustCopyAll(t, r) // opens nothing
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	block := content(1<<40, smallBlock)
	if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(block), block, repo.CodecNone); err != nil {
		t.Fatal(err)
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, segment := range ids {
		if _, live := r.State().Index[segment.ID]; live {
			t.Errorf("damaged segment %s is still in the log", segment.ID)
		}
	}
	if r.LocalSegments() != 0 {
		t.Error("what was spilled is not in the repository's index yet")
	}
	check(t, r)
	closeRepo(t, r)
}

// A cached segment is read once to check it, and again only if it is not the same file any more; a page of it that has
// rotted is found before anything is called missing.
func TestCachedSegments(t *testing.T) {
	store, plain := packsOfBlocks(t, 500)
	cache := newCache(t)
	open := func() *repo.Repository { return must(openSmall(t.Context(), store, cache))(t) }
	r := open()
	findBlocks(t, r, plain)
	closeRepo(t, r)
	files := must(filepath.Glob(filepath.Join(cache, "*", "index", "*")))(t)
	segments := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".checked") {
			segments++
			continue
		}
		// A flip that keeps size and time: only its checksum could tell, which is not looked at again.
		info := must(os.Stat(file))(t)
		raw := must(os.ReadFile(file))(t)
		for i := 200; i < len(raw)-64; i++ {
			raw[i] ^= 0x55
		}
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	if segments == 0 {
		t.Fatalf("no check is noted: %v", files)
	}
	r = open()
	for _, p := range r.State().Packs.All() {
		first := must(r.FrameOrder(t.Context(), p))(t)[0]
		if _, err := r.ReadFrame(t.Context(), first); err != nil {
			t.Fatalf("with a rotted cache: %v", err)
		}
	}
	closeRepo(t, r)
	store.ResetCounts()
	r = open()
	findBlocks(t, r, plain)
	if n := store.Calls(memory.OpOpen, "index"); n > 0 {
		t.Errorf("%d segments are fetched again", n)
	}
	closeRepo(t, r)
}

// Segments of a repository that this machine has not seen are read in parts. Whatever they say, no block is lost, and none
// is taken for known that is not there.
func TestColdSegmentsThatLie(t *testing.T) {
	whole, plain := packsOfBlocks(t, 300)
	for what, lie := range map[string]func([]byte){
		"the truth":     func([]byte) {},
		"noise":         func(raw []byte) { fill(raw[64:], 0x5a) },
		"other entries": func(raw []byte) { fill(raw[len(raw)/3:len(raw)/2], 0) },
		"other fences":  func(raw []byte) { fill(raw[len(raw)-600:len(raw)-32], 0xff) },
		"no header":     func(raw []byte) { fill(raw[:64], 0) },
	} {
		store := whole.Clone()
		for _, name := range store.Names("index/") {
			if err := store.Tamper(name, func(raw []byte) []byte { lie(raw); return raw }); err != nil {
				t.Fatal(err)
			}
		}
		r := must(openSmall(t.Context(), store, newCache(t)))(t)
		r.ReadSegmentsInParts()
		for i, block := range plain {
			if got, err := r.ReadFrame(t.Context(), r.BlockID(block)); err != nil || !bytes.Equal(got, block) {
				t.Fatalf("%s: block %d: %v", what, i, err)
			}
		}
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, newCache(t)))(t)
		r.ReadSegmentsInParts()
		ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
		fresh := content(1<<41, smallBlock)
		for _, block := range append([][]byte{fresh}, plain...) {
			took, err := ingest.StoreBlock(t.Context(), ingest.BlockID(block), block, repo.CodecNone)
			if err != nil || (took == 0 && bytes.Equal(block, fresh)) {
				t.Fatalf("%s: it took %d bytes, %v", what, took, err)
			}
		}
		if err := ingest.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadFrame(t.Context(), r.BlockID(fresh)); err != nil || !bytes.Equal(got, fresh) {
			t.Fatalf("%s: the new block: %v", what, err)
		}
		closeRepo(t, r)
	}
}

// Another writer has merged the segments that a reader has opened in parts and not looked at yet.
func TestColdSegmentsThatWereMerged(t *testing.T) {
	store, plain := packsOfBlocks(t, 300)
	reader := must(openSmall(t.Context(), store, newCache(t)))(t)
	reader.ReadSegmentsInParts()
	if _, err := reader.ReadFrame(t.Context(), reader.BlockID(plain[0])); err != nil {
		t.Fatal(err)
	}
	before := store.Names("index/")
	writer := must(openSmall(t.Context(), store, newCache(t)))(t)
	must(writer.Reindex(t.Context(), true, nil))(t)
	closeRepo(t, writer)
	if after := store.Names("index/"); slices.ContainsFunc(after, func(name string) bool { return slices.Contains(before, name) }) {
		t.Fatalf("%v, before %v", after, before)
	}
	for i, block := range plain {
		if got, err := reader.ReadFrame(t.Context(), reader.BlockID(block)); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	closeRepo(t, reader)
}

func fill(p []byte, with byte) {
	for i := range p {
		p[i] = with
	}
}
