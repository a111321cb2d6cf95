package repo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
)

var decodeHasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

func pseudonymOf(key backup.MachineKey) format.Name {
	sum := decodeHasher.Sum(format.ContextMachine, key.Canonical())
	return format.Name(sum[:16])
}

// samplePoint has an object of each kind, and hostile names.
func samplePoint() *Point {
	key := backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump\xff")
	disk := &tree.Root{Kind: tree.KindFixed, Height: 2, BlockSize: 4096, Size: 300 * 4096, Top: format.ID{1}}
	zeros := &tree.Root{Kind: tree.KindFixed, Height: 1, BlockSize: 4096, Size: 5}
	stream := &tree.Root{Kind: tree.KindStream, Height: 3, Size: 1 << 40, Top: format.ID{2}}
	return &Point{
		Point: backup.Point{
			ID: backup.NewPointID(key, "native\n%"), Machine: backup.Machine{Key: key, Name: "web\x00<01>", Labels: []string{"a", "%\xfe"}},
			Created: time.Date(2026, 11, 22, 1, 0, 0, 500, time.UTC), Zone: "Europe/Berlin", State: backup.StateComplete, Proven: true,
			Objects: []backup.Object{
				{Role: backup.RoleDisk, Name: "../scsi0", Size: disk.Size, SectorSize: 512, Format: "vma"},
				{Role: backup.RoleDisk, Name: "../scsi0", Size: zeros.Size, SectorSize: 4096, Format: "vma"},
				{Role: backup.RoleArchive, Name: "root\xff", Size: stream.Size, Shifting: true},
				{Role: backup.RoleConfiguration, Name: "", Size: 4, Inline: []byte{0, 255, '%', '"'}},
				{Role: backup.RoleTPM, Name: "empty"},
				{Role: "of the future", Name: "kept"},
			},
			Origin: backup.Origin{
				Format: "vzdump", Source: "dump\xff", NativePointID: "native\n%", Location: "a/b\x1b[0m", Validator: []byte{0, 1, 2}, SourceVerified: true,
			},
			Hops: []backup.Hop{{RepositoryID: strings.Repeat("ab", 16), Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}},
		},
		Roots:  []*tree.Root{disk, zeros, stream, nil, nil, nil},
		Domain: format.Name{3},
	}
}

func encodedPoint(t testing.TB, p *Point) []byte {
	raw, err := encodePoint(decodeHasher, pseudonymOf(p.Machine.Key), p)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPointRoundTrip(t *testing.T) {
	want := samplePoint()
	got, header, err := decodePoint(decodeHasher, encodedPoint(t, want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("reads back as\n%+v, %v; want\n%+v", got, err, want)
	}
	if header.ID != want.ID || header.Machine != pseudonymOf(want.Machine.Key) || header.Domain != (format.Name{3}) || len(header.Trees) != 3 {
		t.Errorf("header %+v", header)
	}
	entry := commitlog.Point{ID: want.ID, Machine: header.Machine, Created: want.Created}.WithNewFile()
	if err := header.matches(entry); err != nil {
		t.Errorf("the log's entry of the same point: %v", err)
	}
	if want := "points/" + header.Machine.String() + "/20261122T010000.000000500Z-" + want.ID.String() + "-"; !strings.HasPrefix(entry.File(), want) {
		t.Errorf("file %q, want %q and random digits", entry.File(), want)
	}
	for what, change := range map[string]func(*commitlog.Point){
		"id": func(p *commitlog.Point) { p.ID[0]++ }, "machine": func(p *commitlog.Point) { p.Machine[0]++ },
		"time": func(p *commitlog.Point) { p.Created = p.Created.Add(1) },
	} {
		other := entry
		change(&other)
		if err := header.matches(other); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("a log entry with another %s: %v", what, err)
		}
	}
}

func TestPointsKeepAnyName(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "name")) })
	rapid.Check(t, func(t *rapid.T) {
		want := samplePoint()
		for _, name := range []*string{
			&want.Machine.Key.NativeID, &want.Machine.Key.Instance, &want.Machine.Key.SourceName, &want.Machine.Name, &want.Machine.Labels[0],
			&want.Objects[0].Name, &want.Origin.Source, &want.Origin.NativePointID, &want.Origin.Location,
		} {
			*name = text.Draw(t, "name")
		}
		want.ID = backup.NewPointID(want.Machine.Key, want.Origin.NativePointID)
		raw, err := encodePoint(decodeHasher, pseudonymOf(want.Machine.Key), want)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := decodePoint(decodeHasher, raw); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("reads back as\n%+v, %v; want\n%+v", got, err, want)
		}
	})
}

func classified(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrNewer) || errors.Is(err, format.ErrNeedsKey)
}

func TestEveryBitFlipOfAPointIsFound(t *testing.T) {
	raw := encodedPoint(t, samplePoint())
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, _, err := decodePoint(decodeHasher, raw); !classified(err) {
			t.Errorf("bit %d: %v", bit, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for size := range raw {
		if _, _, err := decodePoint(decodeHasher, raw[:size]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", size, len(raw), err)
		}
	}
}

// pointOf makes a point's file of any JSON, with lengths and checksum that fit.
func pointOf(header, body string) []byte {
	raw := append(format.AppendPrelude(nil, format.MagicPoint), make([]byte, 20)...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(header)))
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(body)))
	return resealPoint(append(append(append(raw, header...), body...), make([]byte, pointTail)...))
}

func resealPoint(raw []byte) []byte {
	sum := decodeHasher.Sum(format.ContextPoint, raw[:len(raw)-32])
	copy(raw[len(raw)-32:], sum[:])
	return raw
}

// Points whose checksum is right but that say what no writer says.
func TestDecodePointRefuses(t *testing.T) {
	good := encodedPoint(t, samplePoint())
	headerSize := binary.LittleEndian.Uint32(good[40:])
	header := string(good[pointFixed : pointFixed+headerSize])
	body := string(good[pointFixed+headerSize : len(good)-pointTail])
	if _, _, err := decodePoint(decodeHasher, pointOf(header, body)); err != nil {
		t.Fatal(err)
	}
	change := func(at int, value byte) []byte {
		raw := bytes.Clone(good)
		raw[at] = value
		return resealPoint(raw)
	}
	replace := func(text *string, old, fresh string) []byte {
		if !strings.Contains(*text, old) {
			t.Fatalf("%q is not in %s", old, *text)
		}
		one, other := header, body
		if text == &header {
			one = strings.Replace(header, old, fresh, 1)
		} else {
			other = strings.Replace(body, old, fresh, 1)
		}
		return pointOf(one, other)
	}
	for _, c := range []struct {
		what string
		raw  []byte
		want error
	}{
		{"a later version", change(8, 2), format.ErrNewer},
		{"encryption without a key generation", change(12, 1), format.ErrCorrupt},
		{"a key generation without encryption", change(20, 1), format.ErrCorrupt},
		{"a longer header", change(40, good[40]+1), format.ErrCorrupt},
		{"a longer body", change(47, 255), format.ErrCorrupt},
		{"no header", pointOf("", body), format.ErrCorrupt},
		{"no body", pointOf(header, ""), format.ErrCorrupt},
		{"a list for a header", pointOf("[]", body), format.ErrCorrupt},
		{"a tree that is not there", replace(&body, `"tree":2`, `"tree":3`), format.ErrCorrupt},
		{"a negative tree", replace(&body, `"tree":2`, `"tree":-1`), format.ErrCorrupt},
		{"half a tree", replace(&body, `"tree":2`, `"tree":1.5`), format.ErrCorrupt},
		{"inline content that is not base64", replace(&body, `"inline":"`, `"inline":"!`), format.ErrCorrupt},
		{"a name with a bad escape", replace(&body, "../scsi0", "%4"), format.ErrCorrupt},
		{"a label with a bad escape", replace(&body, "%25%FE", "%zz"), format.ErrCorrupt},
		{"a machine with a bad escape", replace(&body, "dump%FF", "dump%F"), format.ErrCorrupt},
		{"another size", replace(&header, `"size":5`, `"size":6`), format.ErrCorrupt},
		{"a negative size", replace(&header, `"size":5`, `"size":-5`), format.ErrCorrupt},
		{"another height", replace(&header, `"height":2`, `"height":3`), format.ErrCorrupt},
		{"an odd block size", replace(&header, `"blockSize":4096`, `"blockSize":4097`), format.ErrCorrupt},
		{"another leaf kind", replace(&header, `"leafKind":2`, `"leafKind":3`), format.ErrNewer},
		{"another top", replace(&header, `"top":"01`, `"top":"02`), format.ErrCorrupt},
		{"a salt without a key", change(24, 1), format.ErrCorrupt},
		{"a MAC without a key", change(len(good)-64, 1), format.ErrCorrupt},
		{"both a tree and inline content", replace(&body, `"tree":2`, `"inline":"eA==","tree":2`), format.ErrCorrupt},
		{"upper-case hex", replace(&header, `"top":"01`, `"top":"0A`), format.ErrCorrupt},
		{"another machine", replace(&body, `"platform":"`, `"platform":"x`), format.ErrCorrupt},
		{"another native point id", replace(&body, `"nativeId":"`, `"nativeId":"x`), format.ErrCorrupt},
		{"bytes that are not UTF-8", replace(&body, "dump%FF", "dump\xff"), format.ErrCorrupt},
		{"a short id", replace(&header, `"machine":"`, `"machine":"0`), format.ErrCorrupt},
	} {
		if p, _, err := decodePoint(decodeHasher, c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", c.what, p, err, c.want)
		}
	}
}

func FuzzDecodePoint(f *testing.F) {
	good := encodedPoint(f, samplePoint())
	headerSize := binary.LittleEndian.Uint32(good[40:])
	f.Add(good[pointFixed:pointFixed+headerSize], good[pointFixed+headerSize:len(good)-pointTail])
	f.Add([]byte(`{}`), []byte(`{}`))
	f.Add([]byte(`{"created":"9999-12-31T23:59:59-01:00"}`), []byte(`{"objects":[{"tree":0}]}`))
	f.Add([]byte(`null`), []byte(`{"machine":{"nativeId":"%"},"objects":[{},{"inline":""}]}`))
	f.Fuzz(func(t *testing.T, header, body []byte) {
		p, h, err := decodePoint(decodeHasher, pointOf(string(header), string(body)))
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if len(p.Roots) != len(p.Objects) {
			t.Fatalf("%d roots of %d objects", len(p.Roots), len(p.Objects))
		}
		for i, root := range p.Roots {
			if root != nil && (root.Check() != nil || root.Size != p.Objects[i].Size) {
				t.Fatalf("accepted tree %+v for %+v", root, p.Objects[i])
			}
		}
		if p.Created.Year() > 9999 { // JSON has no room for it in UTC
			return
		}
		again, err := encodePoint(decodeHasher, h.Machine, p)
		if err != nil {
			t.Fatal(err)
		}
		back, _, err := decodePoint(decodeHasher, again)
		if err != nil || fmt.Sprintf("%+v", back.Point) != fmt.Sprintf("%+v", p.Point) {
			t.Fatalf("%+v\nencodes and decodes to\n%+v, %v", p.Point, back, err)
		}
	})
}

// partialOf makes a partial's file of any header and records, with lengths and checksum that fit.
func partialOf(header string, records []byte) ([]byte, format.ID) {
	raw := format.AppendPrelude(nil, format.MagicPartial)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(header)))
	raw = binary.LittleEndian.AppendUint64(raw, uint64(len(records)/partialRecord))
	raw = append(append(raw, header...), records...)
	sum := decodeHasher.Sum(format.ContextPartial, raw)
	return append(raw, sum[:]...), sum
}

func samplePartial() (string, []byte) {
	header := fmt.Sprintf(`{"task":"%032x","point":"%064x","machine":"%032x","validator":"AAE=","blockSize":4096}`, 1, 2, 3)
	return header, bytes.Repeat([]byte{1}, 2*partialRecord)
}

func TestDecodePartial(t *testing.T) {
	header, records := samplePartial()
	raw, sum := partialOf(header, records)
	h, got, err := decodePartial(decodeHasher, raw, sum)
	want := partialHeader{Task: format.Name{15: 1}, Point: backup.PointID{31: 2}, Machine: format.Name{15: 3}, Validator: []byte{0, 1}, BlockSize: 4096}
	if err != nil || !reflect.DeepEqual(h, want) || !bytes.Equal(got, records) {
		t.Fatalf("header %+v with %d bytes of records, %v", h, len(got), err)
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, _, err := decodePartial(decodeHasher, raw, sum); !classified(err) {
			t.Errorf("bit %d: %v", bit, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for size := range raw {
		if _, _, err := decodePartial(decodeHasher, raw[:size], sum); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", size, len(raw), err)
		}
	}
	if _, _, err := decodePartial(decodeHasher, raw, format.ID{1}); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a good file that the log does not name: %v", err)
	}
}

// Counts that do not fit the file, by a little or by so much that sums overflow.
func TestDecodePartialRefusesHostileCounts(t *testing.T) {
	header, records := samplePartial()
	for _, size := range []uint32{0, uint32(len(header)) - 1, uint32(len(header)) + 1, uint32(len(header)) + partialRecord, 1 << 31, 1<<32 - 1} {
		for _, count := range []uint64{0, 1, 2, 3, 1 << 32, (1<<64 - 1) / partialRecord, 1<<64 - 1} {
			raw, _ := partialOf(header, records)
			binary.LittleEndian.PutUint32(raw[20:], size)
			binary.LittleEndian.PutUint64(raw[24:], count)
			sum := decodeHasher.Sum(format.ContextPartial, raw[:len(raw)-32])
			copy(raw[len(raw)-32:], sum[:])
			if _, _, err := decodePartial(decodeHasher, raw, sum); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("header of %d bytes, %d records: %v", size, count, err)
			}
		}
	}
}

func FuzzDecodePartial(f *testing.F) {
	header, records := samplePartial()
	f.Add([]byte(header), records, uint32(len(header)), uint64(2))
	f.Add([]byte(header), []byte{}, uint32(len(header)), uint64(0))
	f.Add([]byte(`{}`), records, uint32(2+partialRecord), uint64(1))
	f.Fuzz(func(t *testing.T, header, records []byte, size uint32, count uint64) {
		raw, _ := partialOf(string(header), records)
		binary.LittleEndian.PutUint32(raw[20:], size)
		binary.LittleEndian.PutUint64(raw[24:], count)
		sum := decodeHasher.Sum(format.ContextPartial, raw[:len(raw)-32])
		copy(raw[len(raw)-32:], sum[:])
		_, got, err := decodePartial(decodeHasher, raw, sum)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if uint64(len(got)) != count*partialRecord {
			t.Fatalf("%d bytes of %d records", len(got), count)
		}
	})
}
