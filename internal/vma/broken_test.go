package vma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"ferry/internal/backup"
)

// wantRefused demands an error of the kind, and that it comes without reading what is not there.
func wantRefused(t *testing.T, raw []byte, kind error, word string) {
	t.Helper()
	_, _, err := read(t, bytes.NewReader(raw))
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), word) {
		t.Errorf("got %v, want %v with %q", err, kind, word)
	}
}

func TestTruncation(t *testing.T) {
	archive, _ := testArchive()
	archive.Order = archive.Shuffled(3)
	raw := write(t, archive)
	cuts := []int{0, 1, 4, 8, 48, 56, 60, fixedHeaderSize - 1, fixedHeaderSize, fixedHeaderSize + 1}
	for _, at := range extents(raw) {
		cuts = append(cuts, at-1, at, at+1, at+offSlots, at+extentHeaderSize-1, at+extentHeaderSize, at+extentHeaderSize+1, at+extentHeaderSize+BlockSize)
	}
	random := rand.New(rand.NewPCG(4, 4))
	for range 60 {
		cuts = append(cuts, random.IntN(len(raw)))
	}
	for _, cut := range cuts {
		if cut >= len(raw) {
			continue
		}
		if _, _, err := read(t, bytes.NewReader(raw[:cut])); !errors.Is(err, backup.ErrBroken) {
			t.Errorf("cut at %d of %d: %v", cut, len(raw), err)
		}
	}
}

func TestBitFlips(t *testing.T) {
	archive, _ := testArchive()
	raw := write(t, archive)
	flip := func(bit int) {
		raw[bit/8] ^= 1 << (bit % 8)
		_, _, err := read(t, bytes.NewReader(raw))
		if !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
			t.Errorf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	headerSize := int(u32(raw, offHeaderSize))
	for bit := 0; bit < 64*8; bit++ {
		flip(bit)
	}
	for bit := 64 * 8; bit < headerSize*8; bit += 61 {
		flip(bit)
	}
	for i, at := range extents(raw)[:2] {
		for bit := at * 8; bit < (at+extentHeaderSize)*8; bit += 3 + 60*i {
			flip(bit)
		}
	}
}

func TestBadHeaders(t *testing.T) {
	archive, _ := testArchive()
	sound := write(t, archive)
	device := func(id, field int) int { return offDevices + deviceEntrySize*id + field }
	put32 := func(offset int, value uint32) func([]byte) {
		return func(raw []byte) { binary.BigEndian.PutUint32(raw[offset:], value) }
	}
	put64 := func(offset int, value uint64) func([]byte) {
		return func(raw []byte) { binary.BigEndian.PutUint64(raw[offset:], value) }
	}
	blob := func(raw []byte, pointer int) int { return fixedHeaderSize + int(u32(raw, pointer)) }
	for _, test := range []struct {
		name   string
		change func([]byte)
		kind   error
		word   string
	}{
		{"magic", func(raw []byte) { raw[0] = 'v' }, backup.ErrBroken, "magic"},
		{"version", put32(offVersion, 2), backup.ErrUnsupported, "version 2"},
		{"sum", func(raw []byte) { raw[offUUID]++; raw[offHeaderSum]++ }, backup.ErrBroken, ""},
		{"header size 0", put32(offHeaderSize, 0), backup.ErrBroken, "too small"},
		{"header size of the fixed part", put32(offHeaderSize, fixedHeaderSize), backup.ErrBroken, "too small"},
		{"header size 4 GiB", put32(offHeaderSize, 0xffffffff), backup.ErrUnsupported, "allowed"},
		{"header size over limit", put32(offHeaderSize, MaxHeaderSize+1), backup.ErrUnsupported, "allowed"},
		{"time before 1970", put64(offCreated, 1<<63), backup.ErrBroken, "time"},
		{"time after 9999", put64(offCreated, maxCreated+1), backup.ErrBroken, "time"},
		{"blobs before", put32(offBlobOffset, fixedHeaderSize-1), backup.ErrBroken, "blob buffer"},
		{"blobs behind", put32(offBlobOffset, 0xffffffff), backup.ErrBroken, "blob buffer"},
		{"blobs too long", put32(offBlobSize, 0xffffffff), backup.ErrBroken, "blob buffer"},
		{"blobs empty", put32(offBlobSize, 0), backup.ErrBroken, "outside"},
		{"config name outside", put32(offConfigNames, 1<<20), backup.ErrBroken, "name of configuration 0"},
		{"config name at last byte", func(raw []byte) { put32(offConfigNames, u32(raw, offBlobSize)-1)(raw) }, backup.ErrBroken, "outside"},
		{"config data outside", put32(offConfigData, 0xfffffffe), backup.ErrBroken, "content of configuration 0"},
		{"config without data", put32(offConfigData, 0), backup.ErrBroken, "content of configuration 0"},
		{"config without name", put32(offConfigNames, 0), backup.ErrBroken, "name of configuration 0"},
		{"config twice", func(raw []byte) { copy(raw[offConfigNames+4:], raw[offConfigNames:offConfigNames+4]) }, backup.ErrBroken, "two configurations"},
		{"device 0", put32(device(0, 0), 1), backup.ErrBroken, "device id 0"},
		{"device 255", put32(device(255, 0), 1), backup.ErrBroken, "device id 255"},
		{"device name outside", put32(device(1, 0), 0x7fffffff), backup.ErrBroken, "name of device 1"},
		{"device without name", put32(device(1, 0), 0), backup.ErrBroken, "device 1 has a size"},
		{"device twice", func(raw []byte) { copy(raw[device(2, 0):], raw[device(1, 0):device(1, 4)]) }, backup.ErrBroken, "two devices"},
		{"device of 8 EiB", put64(device(1, 8), 1<<63), backup.ErrUnsupported, "drive-scsi0"},
		{"device of 16 EiB", put64(device(1, 8), 1<<64-1), backup.ErrUnsupported, "drive-scsi0"},
		{"devices over limit", put64(device(3, 8), MaxTotalSize), backup.ErrUnsupported, "drive-efidisk0"},
		{"blob length", func(raw []byte) { binary.LittleEndian.PutUint16(raw[blob(raw, device(5, 0)):], 0xffff) }, backup.ErrBroken, "outside"},
		{"name without NUL", func(raw []byte) { raw[blob(raw, device(1, 0))+2+len("drive-scsi0")] = 'x' }, backup.ErrBroken, "NUL"},
		{"name with NUL", func(raw []byte) { raw[blob(raw, device(1, 0))+2] = 0 }, backup.ErrBroken, "NUL"},
		{"name empty", func(raw []byte) { copy(raw[blob(raw, device(1, 0)):], "\x01\x00\x00") }, backup.ErrBroken, "empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw := bytes.Clone(sound)
			test.change(raw)
			if test.name != "sum" {
				resum(raw)
			}
			wantRefused(t, raw, test.kind, test.word)
		})
	}
}

func TestBadExtents(t *testing.T) {
	archive, _ := testArchive()
	sound := write(t, archive)
	first := extents(sound)[0]
	orSlot := func(i int, bits uint64) func([]byte) {
		return func(raw []byte) {
			binary.BigEndian.PutUint64(raw[first+offSlots+8*i:], u64(raw, first+offSlots+8*i)|bits)
		}
	}
	setSlot := func(i int, value uint64) func([]byte) {
		return func(raw []byte) {
			mask := uint64(slotMask(u64(raw, first+offSlots+8*i))) << 48
			binary.BigEndian.PutUint64(raw[first+offSlots+8*i:], mask|value)
		}
	}
	for _, test := range []struct {
		name   string
		change func([]byte)
		word   string
	}{
		{"magic", func(raw []byte) { raw[first] = 'x' }, "garbage"},
		{"uuid", func(raw []byte) { raw[first+offExtentUUID]++ }, "another archive"},
		{"reserved bits", orSlot(0, 1<<40), "reserved"},
		{"more blocks than entries say", func(raw []byte) { raw[first+offBlockCount+1]++ }, "blocks"},
		{"blocks without a device", setSlot(0, 0), "no device"},
		{"unknown device", setSlot(0, 9<<32), "device id 9"},
		{"cluster beyond the end", setSlot(0, 1<<32|6), "beyond the device's end"},
		{"cluster far beyond the end", setSlot(0, 1<<32|0xffffffff), "beyond the device's end"},
		{"cluster of a device of no size", setSlot(0, 3<<32), "beyond the device's end"},
		{"cluster twice", setSlot(1, 1<<32), "came before"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw := bytes.Clone(sound)
			test.change(raw)
			wantRefused(t, resumExtent(raw, first), backup.ErrBroken, test.word)
		})
	}
}

func TestMissingCluster(t *testing.T) {
	archive, _ := testArchive()
	archive.Order = func(yield func(Slot) bool) {
		for slot := range archive.Sequential() {
			if slot != (Slot{4, 65}) && !yield(slot) {
				return
			}
		}
	}
	_, _, err := read(t, bytes.NewReader(write(t, archive)))
	var place *backup.Error
	if !errors.Is(err, backup.ErrBroken) || !errors.As(err, &place) || place.Object != "odd\nname\xff" || place.Offset != 65*ClusterSize {
		t.Errorf("got %v", err)
	}
}

func TestTrailing(t *testing.T) {
	archive, _ := testArchive()
	raw := write(t, archive)
	wantRefused(t, append(bytes.Clone(raw), 0), backup.ErrBroken, "ends inside")
	wantRefused(t, append(bytes.Clone(raw), make([]byte, 4096)...), backup.ErrBroken, "garbage")
	wantRefused(t, append(bytes.Clone(raw), raw...), backup.ErrBroken, "garbage")

	idle := resumExtent(append(bytes.Clone(raw), make([]byte, extentHeaderSize)...), len(raw))
	copy(idle[len(raw):], extentMagic)
	copy(idle[len(raw)+offExtentUUID:], testUUID[:])
	resumExtent(idle, len(raw))
	if _, _, err := read(t, bytes.NewReader(idle)); err != nil {
		t.Errorf("one idle extent: %v", err)
	}
	wantRefused(t, append(bytes.Clone(raw), bytes.Repeat(idle[len(raw):], maxIdleExtents+1)...), backup.ErrBroken, "hold nothing")
}

// Trouble of the reader below is passed on, not called a broken archive.
func TestReadErrors(t *testing.T) {
	archive, _ := testArchive()
	raw := write(t, archive)
	trouble := errors.New("disk on fire")
	for _, cut := range []int{0, 100, fixedHeaderSize + 1, extents(raw)[0], extents(raw)[0] + 7, extents(raw)[0] + extentHeaderSize + 5} {
		_, _, err := read(t, io.MultiReader(bytes.NewReader(raw[:cut]), iotest.ErrReader(trouble)))
		if !errors.Is(err, trouble) || errors.Is(err, backup.ErrBroken) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}
