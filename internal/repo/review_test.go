package repo_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// stored is a repository that holds the points, each with its bytes in packs of its own.
func stored(t *testing.T, points ...*sourcetest.Point) *memory.Store {
	t.Helper()
	store := initialized(t, repo.Options{})
	for _, p := range points {
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, p)
		closeRepo(t, r)
	}
	return store
}

func TestALostLogIsNotTakenForANewRepository(t *testing.T) {
	_, first, _ := damagedRepository(t)
	store := stored(t, first)
	for _, name := range store.Names("log/") {
		if err := store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openSmall(t.Context(), store, ""); !errors.Is(err, repo.ErrCorrupt) || backup.Hint(err) == "" {
		t.Fatalf("opened with %v, want ErrCorrupt and a hint", err)
	}
	if names := store.Names("log/"); len(names) != 0 {
		t.Fatalf("opening wrote %q", names)
	}
}

// A pack of which only a part could be read is not covered by an index segment: once it is mended, all of it is there.
func TestAMendedPackIsWholeAgain(t *testing.T) {
	_, first, _ := damagedRepository(t)
	store := stored(t, first)
	pack := store.Names("packs/")[0]
	good := must(storage.ReadAll(t.Context(), store, pack, 1<<30))(t)
	if err := store.Tamper(pack, func(raw []byte) []byte {
		raw = bytes.Clone(raw)
		raw[len(raw)-80] ^= 1
		raw[len(raw)/2] ^= 1
		return raw
	}); err != nil {
		t.Fatal(err)
	}
	others := make([]*sourcetest.Point, 20) // enough packs for a segment
	for i := range others {
		others[i] = &sourcetest.Point{
			Machine: sourcetest.Machine("m" + string(rune('a'+i))), Native: "other", Created: at(10 + i),
			Objects: []sourcetest.Object{{Name: "vda", Data: content(uint64(100+i), 5*smallBlock), Access: source.AccessRandom}},
		}
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, others...)
	closeRepo(t, r)
	if len(store.Names("index/")) == 0 {
		t.Fatal("no segment was written: the test shows nothing")
	}
	if err := store.Tamper(pack, func([]byte) []byte { return good }); err != nil {
		t.Fatal(err)
	}
	r = must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	check(t, r, append(others, first)...)
}

func TestMuchDamageInOnePackIsNotedAsOne(t *testing.T) {
	_, first, _ := damagedRepository(t)
	first.Objects[0].Data = content(31, 900*smallBlock)
	store := stored(t, first)
	for _, pack := range store.Names("packs/") {
		if err := store.Tamper(pack, func(raw []byte) []byte {
			raw = bytes.Clone(raw)
			for at := 64 + 100; at < len(raw)-64-len(raw)/40; at += 1000 {
				raw[at] ^= 1
			}
			return raw
		}); err != nil {
			t.Fatal(err)
		}
	}
	report := verify(t, store)
	lost := int64(0)
	for _, d := range report.Damage {
		if d.Point != "" {
			lost += d.Length
		}
	}
	if lost < 700*smallBlock || report.Noted > 70*len(store.Names("packs/")) {
		t.Fatalf("%d bytes of a point are lost, noted as %d places", lost, report.Noted)
	}
}

// A bad sector is an error of the storage. Another copy of the block is as good.
func TestAnotherCopyIsReadWhenTheStorageCannot(t *testing.T) {
	_, first, _ := damagedRepository(t)
	store := initialized(t, repo.Options{})
	// Two writers that do not know of each other store every block twice.
	a, b := must(openSmall(t.Context(), store, ""))(t), must(openSmall(t.Context(), store, ""))(t)
	inA := must(a.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	inB := must(b.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	for _, in := range []*repo.Ingest{inA, inB} {
		storeDisk(t, in, first.Objects[0].Data)
	}
	for _, in := range []*repo.Ingest{inA, inB} {
		if err := in.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	closeRepo(t, a)
	closeRepo(t, b)
	packs := store.Names("packs/")
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, first)
	for _, bad := range packs {
		store.SetFault(func(op memory.Op, name string) error {
			if op == memory.OpRead && name == bad {
				return errors.New("input/output error")
			}
			return nil
		})
		if err := compare(t.Context(), r, first); err != nil {
			t.Errorf("with %s unreadable: %v", bad, err)
		}
	}
}

func storeDisk(t *testing.T, in *repo.Ingest, data []byte) {
	t.Helper()
	for at := 0; at < len(data); at += smallBlock {
		block := data[at:min(at+smallBlock, len(data))]
		if len(bytes.Trim(block, "\x00")) == 0 {
			continue
		}
		if _, err := in.StoreBlock(context.Background(), in.BlockID(block), block, repo.CodecNone); err != nil {
			t.Fatal(err)
		}
	}
}

// A pack file that holds another, good pack damages the points that need what was in it.
func TestASwappedPackNamesThePoints(t *testing.T) {
	_, first, second := damagedRepository(t)
	second.Base, second.Objects[0].Data = nil, content(77, 30*smallBlock)
	store := stored(t, first)
	before := store.Names("packs/")
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, second)
	closeRepo(t, r)
	other := ""
	for _, name := range store.Names("packs/") {
		if !slices.Contains(before, name) {
			other = name
		}
	}
	content := must(storage.ReadAll(t.Context(), store, other, 1<<30))(t)
	for _, name := range before {
		if err := store.Tamper(name, func([]byte) []byte { return content }); err != nil {
			t.Fatal(err)
		}
	}
	named := false
	for _, d := range verify(t, store).Damage {
		named = named || d.Point == first.ID().String()
	}
	if !named {
		t.Fatal("verify does not name the point whose packs are replaced")
	}
}
