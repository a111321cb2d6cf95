package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

// write makes a pack of the contents, each with the codec at its place.
func write(t fataler, hasher *format.Hasher, kind Kind, contents [][]byte, with []Codec) ([]byte, Table) {
	var out bytes.Buffer
	header := Header{Kind: kind, Hash: hasher.Algorithm(), ID: format.Name{1}, Domain: format.Name{2}}
	w, err := NewWriter(&out, hasher, header)
	if err != nil {
		t.Fatalf("%v", err)
	}
	table := Table{Header: header, Entries: []Entry{}}
	plain := int64(0)
	for i, content := range contents {
		entry, err := w.Append(AppendFrame(nil, hasher, nil, kind, with[i%len(with)], hasher.Sum(format.ContextBlock, content), content))
		if err != nil {
			t.Fatalf("%v", err)
		}
		table.Entries = append(table.Entries, entry)
		plain += int64(len(content))
		if w.Size() != int64(out.Len()) || w.Frames() != i+1 || w.Plain() != plain {
			t.Fatalf("the writer counts %d bytes, %d frames, %d plain bytes", w.Size(), w.Frames(), w.Plain())
		}
	}
	size := int64(0)
	if table.Root, size, err = w.Finish(); err != nil || size != int64(out.Len()) {
		t.Fatalf("finish: %d bytes of %d, %v", size, out.Len(), err)
	}
	return out.Bytes(), table
}

type fataler interface{ Fatalf(string, ...any) }

// check runs Check and returns the good frames' contents.
func check(raw []byte, hasher *format.Hasher) (table Table, good [][]byte, damaged []Entry, err error) {
	table, err = Check(bytes.NewReader(raw), int64(len(raw)), hasher, func(e Entry, frame []byte) error {
		f, plain, err := DecodeFrame(nil, frame, nil)
		if err == nil && f.ID != e.ID {
			err = fmt.Errorf("frame of %s visited for %s", f.ID, e.ID)
		}
		good = append(good, plain)
		return err
	}, func(e Entry, _ error) { damaged = append(damaged, e) })
	return table, good, damaged, err
}

func TestPackRoundTrip(t *testing.T) {
	all := hashers()
	rapid.Check(t, func(t *rapid.T) {
		hasher := rapid.SampledFrom(all).Draw(t, "hasher")
		kind := rapid.SampledFrom([]Kind{KindBlock, KindNode}).Draw(t, "kind")
		contents := rapid.SliceOfN(anyContent(), 0, 6).Draw(t, "contents")
		raw, want := write(t, hasher, kind, contents, codecs)
		table, good, damaged, err := check(raw, hasher)
		if err != nil || len(damaged) != 0 || !slices.EqualFunc(good, contents, bytes.Equal) {
			t.Fatalf("check: %d good, %d damaged, %v", len(good), len(damaged), err)
		}
		if table.Header != want.Header || table.Root != want.Root || !slices.Equal(table.Entries, want.Entries) {
			t.Fatalf("table %+v, want %+v", table, want)
		}
		if got := Scan(bytes.NewReader(raw), int64(len(raw)), hasher); !slices.Equal(got, want.Entries) {
			t.Fatalf("scan: %+v, want %+v", got, want.Entries)
		}
	})
}

func smallContents() [][]byte { return [][]byte{bytes.Repeat([]byte("ab"), 40), {0}, noise(33)} }

// The root in the log covers every byte: each single bit that changes is either seen by ReadTable or damages exactly
// the frame it lies in.
func TestEveryBitFlipIsFound(t *testing.T) {
	for _, hasher := range hashers() {
		for _, codec := range codecs {
			raw, want := write(t, hasher, KindBlock, smallContents(), []Codec{codec})
			frames := Scan(bytes.NewReader(raw), int64(len(raw)), hasher)
			for bit := range len(raw) * 8 {
				changed := bytes.Clone(raw)
				changed[bit/8] ^= 1 << (bit % 8)
				hit := slices.IndexFunc(frames, func(e Entry) bool {
					return bit/8 >= int(e.Offset) && bit/8 < int(e.Offset)+e.FrameSize()
				})
				_, good, damaged, err := check(changed, hasher)
				switch {
				case hit < 0 && !classified(err):
					t.Errorf("%s, %s, bit %d outside frames: %v", hasher.Algorithm(), codec, bit, err)
				case hit >= 0 && (err != nil || len(good) != len(frames)-1 || !slices.Equal(damaged, frames[hit:hit+1])):
					t.Errorf("%s, %s, bit %d of frame %d: %d good, %d damaged, %v", hasher.Algorithm(), codec, bit, hit, len(good), len(damaged), err)
				}
				found := Scan(bytes.NewReader(changed), int64(len(changed)), hasher)
				if hit >= 0 && !slices.Equal(found, slices.Delete(slices.Clone(want.Entries), hit, hit+1)) {
					t.Errorf("%s, %s, bit %d of frame %d: scan found %d", hasher.Algorithm(), codec, bit, hit, len(found))
				}
			}
		}
	}
}

func classified(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrNewer) || errors.Is(err, format.ErrNeedsKey)
}

func TestTruncatedPacks(t *testing.T) {
	for _, hasher := range hashers() {
		raw, want := write(t, hasher, KindNode, smallContents(), codecs)
		for size := range raw {
			if _, err := ReadTable(bytes.NewReader(raw[:size]), int64(size), hasher); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%s: %d of %d bytes: %v, want ErrCorrupt", hasher.Algorithm(), size, len(raw), err)
			}
			if _, err := ReadTable(bytes.NewReader(raw[:size]), int64(len(raw)), hasher); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%s: %d of %d bytes announced: %v, want ErrCorrupt", hasher.Algorithm(), size, len(raw), err)
			}
			whole := slices.IndexFunc(want.Entries, func(e Entry) bool { return int(e.Offset)+e.FrameSize() > size })
			if whole < 0 {
				whole = len(want.Entries)
			}
			if got := Scan(bytes.NewReader(raw[:size]), int64(size), hasher); !slices.Equal(got, want.Entries[:whole]) {
				t.Errorf("%s: %d of %d bytes: scan found %d frames, want %d", hasher.Algorithm(), size, len(raw), len(got), whole)
			}
		}
	}
}

// reseal makes CRC and root right again after a change to header, table or trailer.
func reseal(hasher *format.Hasher, raw []byte) []byte {
	binary.LittleEndian.PutUint32(raw[60:], crc32.Checksum(raw[:60], castagnoli))
	trailer := raw[len(raw)-trailerSize:]
	if at := binary.LittleEndian.Uint64(trailer[16:]); at <= uint64(len(raw)-trailerSize) {
		root := hasher.Sum(format.ContextPack, raw[:headerSize], raw[at:len(raw)-trailerSize])
		copy(trailer[32:], root[:])
	}
	return raw
}

// Packs whose checksums are right but that say what no writer says.
func TestReadTableRefuses(t *testing.T) {
	hasher, other := hashers()[0], hashers()[1]
	raw, _ := write(t, hasher, KindBlock, smallContents(), codecs)
	end, table := len(raw)-trailerSize, len(raw)-trailerSize-3*entrySize
	change := func(at int, value byte) []byte {
		changed := bytes.Clone(raw)
		changed[at] = value
		return reseal(hasher, changed)
	}
	// A count so large that the table would begin before the file does, with the offset that fits to it.
	huge := func(frames uint32) []byte {
		changed := bytes.Clone(raw)
		binary.LittleEndian.PutUint32(changed[end+8:], frames)
		binary.LittleEndian.PutUint64(changed[end+16:], uint64(int64(end)-int64(frames)*entrySize))
		return changed
	}
	for _, c := range []struct {
		what string
		raw  []byte
		want error
	}{
		{"good", change(0, 'F'), nil},
		{"version", change(8, 2), format.ErrNewer},
		{"requirement", change(12, 2), format.ErrNewer},
		{"encrypted without a key generation", change(12, 1), format.ErrCorrupt},
		{"kind 3", change(20, 3), format.ErrNewer},
		{"another hash", change(21, byte(other.Algorithm())), format.ErrCorrupt},
		{"reserved 22", change(22, 1), format.ErrCorrupt},
		{"reserved 23", change(23, 1), format.ErrCorrupt},
		{"key generation, and not encrypted", change(56, 1), format.ErrCorrupt},
		{"kind of the entries", change(20, byte(KindNode)), format.ErrCorrupt},
		{"offset of an entry", change(table+32, 65), format.ErrCorrupt},
		{"length of an entry", change(table+36, 1), format.ErrCorrupt},
		{"reserved in an entry", change(table+46, 1), format.ErrCorrupt},
		{"reserved in the trailer", change(end+12, 1), format.ErrCorrupt},
		{"more reserved in the trailer", change(end+31, 1), format.ErrCorrupt},
		{"fewer frames", change(end+8, 2), format.ErrCorrupt},
		{"one frame more than fits", huge(uint32(table-headerSize)/entrySize + 4), format.ErrCorrupt},
		{"2^26 frames", huge(1 << 26), format.ErrCorrupt},
		{"2^32-1 frames", huge(1<<32 - 1), format.ErrCorrupt},
	} {
		if _, err := ReadTable(bytes.NewReader(c.raw), int64(len(c.raw)), hasher); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if _, err := ReadTable(bytes.NewReader(raw), maxSize+1, hasher); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a pack of 4 GiB: %v, want ErrCorrupt", err)
	}
}

// brokenFile fails reading from an offset on, as a bad disk does.
type brokenFile struct {
	*bytes.Reader
	from int64
}

var errDisk = errors.New("disk failed")

func (b brokenFile) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > b.from && offset < b.Size()-trailerSize-entrySize {
		return 0, errDisk
	}
	return b.Reader.ReadAt(p, offset)
}

func (b brokenFile) Size() int64 { return b.Reader.Size() }

func TestCheckGoesOnBehindDamage(t *testing.T) {
	hasher := hashers()[0]
	raw, want := write(t, hasher, KindBlock, smallContents()[:1], codecs)
	file := brokenFile{bytes.NewReader(raw), int64(want.Entries[0].Offset) + 1}
	var causes []error
	_, err := Check(file, int64(len(raw)), hasher, func(Entry, []byte) error { return nil }, func(_ Entry, err error) { causes = append(causes, err) })
	if err != nil || len(causes) != 1 || !errors.Is(causes[0], errDisk) || errors.Is(causes[0], format.ErrCorrupt) {
		t.Errorf("a frame that cannot be read: %v, %v", causes, err)
	}
	stop := errors.New("enough")
	if _, err := Check(bytes.NewReader(raw), int64(len(raw)), hasher, func(Entry, []byte) error { return stop }, nil); !errors.Is(err, stop) {
		t.Errorf("check went on after its visitor failed: %v", err)
	}
}

// A frame that is good but not the one its table names, as after a mistaken copy.
func TestCheckComparesFramesWithTheTable(t *testing.T) {
	hasher := hashers()[0]
	first, second := []byte("first"), []byte("other")
	raw, want := write(t, hasher, KindBlock, [][]byte{first, second}, []Codec{CodecNone})
	a, b := want.Entries[0], want.Entries[1]
	copy(raw[a.Offset:], bytes.Clone(raw[b.Offset:int(b.Offset)+b.FrameSize()]))
	_, good, damaged, err := check(raw, hasher)
	if err != nil || len(good) != 1 || !slices.Equal(damaged, []Entry{a}) {
		t.Errorf("%d good, damaged %v, %v", len(good), damaged, err)
	}
}

func TestWriterRefuses(t *testing.T) {
	hasher := hashers()[0]
	var out bytes.Buffer
	w, err := NewWriter(&out, hasher, Header{Kind: KindBlock, Hash: hasher.Algorithm()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append([]byte("no frame")); !errors.Is(err, format.ErrCorrupt) || out.Len() != headerSize {
		t.Errorf("appending nonsense: %v, %d bytes written", err, out.Len())
	}
	frame := AppendFrame(nil, hasher, nil, KindBlock, CodecNone, format.ID{}, []byte("x"))
	w.offset = maxSize - int64(len(frame)) - entrySize - trailerSize + 1
	if _, err := w.Append(frame); err == nil || out.Len() != headerSize {
		t.Errorf("a pack of 4 GiB: %v, %d bytes written", err, out.Len())
	}
	w.offset--
	if _, err := w.Append(frame); err != nil {
		t.Errorf("the last frame that fits: %v", err)
	}
	if _, err := w.Append(frame); err == nil {
		t.Error("one more frame fits than can")
	}
	for _, room := range []int{0, headerSize, headerSize + len(frame)} {
		if err := writeInto(&narrow{room: room}, hasher, frame); !errors.Is(err, errDisk) {
			t.Errorf("room for %d bytes: %v, want the writer's error", room, err)
		}
	}
}

type narrow struct{ room int }

func (n *narrow) Write(p []byte) (int, error) {
	if n.room -= len(p); n.room < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func writeInto(out *narrow, hasher *format.Hasher, frame []byte) error {
	w, err := NewWriter(out, hasher, Header{Kind: KindBlock, Hash: hasher.Algorithm()})
	if err != nil {
		return err
	}
	if _, err := w.Append(frame); err != nil {
		return err
	}
	_, _, err = w.Finish()
	return err
}

func TestObjectName(t *testing.T) {
	if got := ObjectName(format.Name{0xab, 15: 1}); got != "packs/ab/ab000000000000000000000000000001" {
		t.Errorf("name %q", got)
	}
}
