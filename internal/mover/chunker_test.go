package mover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// cutInto gives a stream to a chunker in pieces of the sizes, over and over, and returns its blocks.
func cutInto(t interface{ Fatal(...any) }, table [256]uint64, data []byte, sizes ...int) [][]byte {
	p := &pipeline{
		task: &task{mover: &Mover{}},
		runs: make(chan run, len(data)/minChunk+2),
	}
	p.task.mover.buffers.New = func() any { return new([]byte) }
	c := &chunker{pipe: p, object: &object{}, table: table, buffer: make([]byte, 0, 2*maxChunk)}
	rest := data
	for i := 0; len(rest) > 0; i++ {
		n := min(len(rest), sizes[i%len(sizes)])
		if err := c.write(context.Background(), rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := c.finish(context.Background()); err != nil {
		t.Fatal(err)
	}
	close(p.runs)
	var blocks [][]byte
	for r := range p.runs {
		if r.number != int64(len(blocks)) {
			t.Fatal("blocks are not in order")
		}
		blocks = append(blocks, *r.data)
	}
	if c.size != int64(len(data)) {
		t.Fatal("the stream's size is wrong")
	}
	return blocks
}

func testTable(seed uint64) (table [256]uint64) {
	random := noise(seed, 8*256)
	for i := range table {
		for j := range 8 {
			table[i] = table[i]<<8 | uint64(random[8*i+j])
		}
	}
	return table
}

func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := testTable(rapid.Uint64Range(0, 9).Draw(t, "table"))
		data := noise(rapid.Uint64Range(0, 99).Draw(t, "data"), rapid.SampledFrom([]int{0, 1, minChunk, minChunk + 1, maxChunk, maxChunk + 1, 3_000_000}).Draw(t, "size"))
		if rapid.Bool().Draw(t, "monotonous") { // nothing says where to cut
			data = bytes.Repeat([]byte{1}, len(data))
		}
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{1 << 10, 10_007, 64 << 10, 1 << 20, 5 << 20}), 1, 4).Draw(t, "writes")
		blocks := cutInto(t, table, data, sizes...)
		if !bytes.Equal(bytes.Join(blocks, nil), data) {
			t.Fatal("the blocks are not the stream")
		}
		for i, b := range blocks {
			if len(b) > maxChunk || len(b) == 0 || (len(b) <= minChunk && i < len(blocks)-1) {
				t.Fatalf("block %d of %d has %d bytes", i, len(blocks), len(b))
			}
		}
		whole := cutInto(t, table, data, len(data)+1)
		if !slices.EqualFunc(blocks, whole, bytes.Equal) {
			t.Fatal("where a stream is cut depends on how it is written")
		}
	})
}

func TestInsertionsShiftFewChunks(t *testing.T) {
	data := noise(1, 12<<20)
	table := testTable(2)
	before := map[string]bool{}
	blocks := cutInto(t, table, data, 1<<20)
	for _, b := range blocks {
		before[string(b)] = true
	}
	if mean := len(data) / len(blocks); mean < targetChunk/2 || mean > 2*targetChunk {
		t.Errorf("blocks have %d bytes in the mean", mean)
	}
	for _, at := range []int{0, 1, 5_000_000, len(data) - 1} {
		next := slices.Insert(slices.Clone(data), at, []byte("inserted")...)
		fresh := 0
		for _, b := range cutInto(t, table, next, 1<<20) {
			if !before[string(b)] {
				fresh++
			}
		}
		if fresh > 4 {
			t.Errorf("an insertion at %d changes %d of %d blocks", at, fresh, len(blocks))
		}
	}
}

// Archives of both shapes with equal content take space once; and they come back as they were.
func TestArchives(t *testing.T) {
	r, _ := newRepository(t, 64<<10)
	data := slices.Concat(noise(3, 700_000), make([]byte, 2<<20), noise(4, 100_000))
	archive := func(access source.Access, data []byte) sourcetest.Object {
		return sourcetest.Object{Name: "root", Role: backup.RoleArchive, Data: data, Access: access, Shifting: true, HideSize: access == source.AccessOnePass}
	}
	stream := point("stream", archive(source.AccessOnePass, data))
	random := point("random", archive(source.AccessRandom, data))
	empty := point("empty", archive(source.AccessOnePass, nil), archive(source.AccessRandom, nil))
	results, err := copyPoints(t.Context(), r, stream, random, empty)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*sourcetest.Point{stream, random, empty} {
		wantStored(t, r, p)
	}
	if results[1].NewBytes != 0 {
		t.Errorf("%d bytes of a known archive were stored", results[1].NewBytes)
	}
}

func TestReadErrorsSayWhere(t *testing.T) {
	wrong := errors.New("bad sector")
	for what, shifting := range map[string]bool{"disk": false, "archive": true} {
		for _, short := range []bool{false, true} {
			p := point("p", randomDisk("vda", noise(1, 3<<20)))
			p.Objects[0].Shifting = shifting
			p.OnRead = func(_ int, offset int64, n int) (int, error) {
				switch {
				case offset != 1<<20:
					return n, nil
				case short:
					return 4096, nil
				}
				return 4096, wrong
			}
			r, _ := newRepository(t, 64<<10)
			_, err := copyPoints(t.Context(), r, p)
			var at *backup.Error
			if !errors.As(err, &at) || at.Machine != "m" || at.Point != p.ID().Short() || at.Object != "vda" || at.Offset != 1<<20+4096 {
				t.Errorf("%s: %v does not say where", what, err)
			}
			if !short && !errors.Is(err, wrong) {
				t.Errorf("%s: %v hides its cause", what, err)
			}
			if r.Has(p.ID()) || p.Opened.Load() != p.Closed.Load() {
				t.Errorf("%s: listed: %v, opened %d, closed %d", what, r.Has(p.ID()), p.Opened.Load(), p.Closed.Load())
			}
		}
	}
}

// What the source says after reading decides, also over what went wrong while it changed.
func TestSourceThatChangesUnderTheReader(t *testing.T) {
	for _, condition := range []error{backup.ErrChanged, backup.ErrVanished} {
		for _, failing := range []bool{false, true} {
			for _, access := range []source.Access{source.AccessRandom, source.AccessOnePass} {
				p := point(fmt.Sprint(condition, failing, access), sourcetest.Object{Name: "vda", Data: noise(1, 300_000), Access: access})
				p.Revalidated = condition
				if failing {
					p.OnRead = func(int, int64, int) (int, error) { return 0, errors.New("gone") }
					p.AfterStream = errors.New("gone")
				}
				r, _ := newRepository(t, 64<<10)
				if _, err := copyPoints(t.Context(), r, p); !errors.Is(err, condition) || r.Has(p.ID()) {
					t.Errorf("%v", err)
				}
				p.Revalidated, p.OnRead, p.AfterStream, p.Validator = nil, nil, nil, []byte("changed meanwhile")
				p.Objects[0].Data = noise(2, 250_000)
				if _, err := copyPoints(t.Context(), r, p); err != nil {
					t.Fatal(err)
				}
				wantStored(t, r, p) // nothing of the state before is taken over
			}
		}
	}
	r, _ := newRepository(t, 64<<10)
	p := point("closed")
	p.OpenError = backup.ErrLocked
	if _, err := copyPoints(t.Context(), r, p); !errors.Is(err, backup.ErrLocked) {
		t.Error(err)
	}
}
