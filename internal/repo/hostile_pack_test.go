package repo_test

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// hugePack is a store in which one pack has become so large that its table would fill memory, all of it zeros but the header and a
// trailer that says so.
type hugePack struct {
	*memory.Store
	name string
	t    *testing.T
}

const hugeSize = math.MaxUint32

func (s *hugePack) Open(ctx context.Context, name string) (storage.Reader, error) {
	reader, err := s.Store.Open(ctx, name)
	if err != nil || name != s.name {
		return reader, err
	}
	return &hugeReader{reader, s.t}, nil
}

type hugeReader struct {
	storage.Reader
	t *testing.T
}

func (r *hugeReader) Size() int64 { return hugeSize }

func (r *hugeReader) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 64<<20 {
		r.t.Errorf("%d bytes are read at once", len(p))
	}
	clear(p)
	frames := uint32((hugeSize - 128) / 64)
	end := make([]byte, 64)
	copy(end, "FerryEnd")
	binary.LittleEndian.PutUint32(end[8:], frames)
	binary.LittleEndian.PutUint64(end[16:], uint64(hugeSize)-64-64*uint64(frames))
	if off == 0 {
		return r.Reader.ReadAt(p[:min(len(p), 64)], 0)
	}
	if off == hugeSize-64 {
		return copy(p, end), nil
	}
	return len(p), io.EOF
}

// What a pack's file says of its size and its table takes no memory before it is compared with the log.
func TestAHugePackTakesNoMemory(t *testing.T) {
	files := initialized(t, repo.Options{})
	p := onePoint("web", "w1", content(3, 12*smallBlock))
	r := must(openSmall(t.Context(), files, ""))(t)
	mustCopyAll(t, r, p)
	closeRepo(t, r)
	for _, name := range files.Names("packs/") {
		store := &hugePack{files.Clone(), name, t}
		r := must(openSmall(t.Context(), store, ""))(t)
		report := must(r.Verify(t.Context(), nil))(t)
		if len(report.Damage) == 0 || !strings.Contains(report.Damage[0].Reason, "is not the pack") {
			t.Errorf("%+v", report.Damage)
		}
		_, _ = r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd})
		closeRepo(t, r)
	}
}

// farStore is one with round trips.
type farStore struct{ *memory.Store }

func (farStore) ParallelReads() int { return 8 }

// Numbers in the log that no pack can have are damage, and no more.
func TestImpossiblePacksInTheLog(t *testing.T) {
	for _, numbers := range []struct {
		size   int64
		frames int
	}{{200, -5}, {200, 1 << 40}, {1 << 62, 1 << 50}, {-1, 1}, {math.MaxInt64, math.MaxInt}, {math.MinInt64, math.MinInt}, {0, 0}} {
		files := initialized(t, repo.Options{})
		store := farStore{files}
		r := must(openSmall(t.Context(), store, ""))(t)
		id := format.RandomName()
		if err := files.Put(t.Context(), pack.ObjectName(id), make([]byte, 200)); err != nil {
			t.Fatal(err)
		}
		var own format.Name
		if err := own.UnmarshalText([]byte(r.ID())); err != nil {
			t.Fatal(err)
		}
		if err := r.AppendEntry(t.Context(), &commitlog.Payload{Packs: []commitlog.Pack{{ID: id, Kind: "nodes", Domain: own, Size: numbers.size, Frames: numbers.frames}}}); err != nil {
			t.Fatal(err)
		}
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, onePoint("web", "w1", content(3, 12*smallBlock)))
		if report := must(r.Verify(t.Context(), nil))(t); len(report.Damage)+len(report.Healed) == 0 {
			t.Errorf("%+v: not noticed", numbers)
		}
		for range 3 {
			reclaim(t, r, atOnce())
		}
		must(r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd}))(t)
		closeRepo(t, r)
	}
}
