package lzop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"ferry/internal/backup"
)

// sampleContent is what the files of testdata were made from: a block that compresses and a short one that does not.
func sampleContent() []byte {
	content := make([]byte, 262144+6000)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		if i < 262144 {
			content[i] = byte(i>>9 ^ i%3)
		} else {
			content[i] = byte(random.Uint32())
		}
	}
	return content
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decode(raw []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestSamples(t *testing.T) {
	for name, checked := range map[string]bool{"default.lzo": true, "fast.lzo": true, "best.lzo": true, "crc32.lzo": true, "unchecked.lzo": false} {
		t.Run(name, func(t *testing.T) {
			r, err := NewReader(iotest.OneByteReader(bytes.NewReader(sample(t, name))))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.HalfReader(r))
			if err != nil || !bytes.Equal(got, sampleContent()) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if r.Checked() != checked {
				t.Errorf("checked %v", r.Checked())
			}
		})
	}
}

func TestTruncation(t *testing.T) {
	raw := sample(t, "crc32.lzo")
	for cut := range raw {
		if cut > 100 && cut < len(raw)-20 && cut%211 != 0 {
			continue
		}
		if got, err := decode(raw[:cut]); !errors.Is(err, backup.ErrBroken) {
			t.Fatalf("cut at %d: %d bytes, %v", cut, len(got), err)
		}
	}
}

// Every bit that is flipped is noticed: the header, the lengths and the data have checksums.
func TestBitFlips(t *testing.T) {
	raw := sample(t, "default.lzo")
	want := sampleContent()
	for bit := range len(raw) * 8 {
		if bit > 64*8 && bit%1111 != 0 {
			continue
		}
		raw[bit/8] ^= 1 << (bit % 8)
		got, err := decode(raw)
		if !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
			t.Errorf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
		if !bytes.HasPrefix(want, got) {
			t.Errorf("bit %d of byte %d: wrong data was handed out", bit%8, bit/8)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
}

// header makes a sound header of the current version without a name.
func header(method byte, flags uint32) []byte {
	h := []byte{0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, method, 5}
	h = binary.BigEndian.AppendUint32(h, flags)
	if flags&flagFilter != 0 {
		h = append(h, 0, 0, 0, 1)
	}
	h = append(h, make([]byte, 13)...) // mode, time, no name
	sum := adler32.Checksum(h)
	return binary.BigEndian.AppendUint32(append([]byte(magic), h...), sum)
}

func words(values ...uint32) []byte {
	var b []byte
	for _, value := range values {
		b = binary.BigEndian.AppendUint32(b, value)
	}
	return b
}

func TestRefused(t *testing.T) {
	plain := header(1, 0)
	for _, test := range []struct {
		name string
		raw  []byte
		kind error
		word string
	}{
		{"empty", nil, backup.ErrBroken, "cut off"},
		{"gzip", append([]byte("\x1f\x8b"), make([]byte, 40)...), backup.ErrBroken, "magic"},
		{"header sum", append(bytes.Clone(plain[:len(plain)-1]), 0xff), backup.ErrBroken, "header's checksum"},
		{"method 0", header(0, 0), backup.ErrUnsupported, "method 0"},
		{"method zlib", header(128, 0), backup.ErrUnsupported, "method 128"},
		{"filter", header(1, flagFilter), backup.ErrUnsupported, "flags"},
		{"multipart", header(1, flagMultipart), backup.ErrUnsupported, "flags"},
		{"extra field", header(1, flagExtraField), backup.ErrUnsupported, "flags"},
		{"no end mark", plain, backup.ErrBroken, "cut off"},
		{"garbage behind", append(bytes.Clone(plain), 0, 0, 0, 0, 1), backup.ErrBroken, "follows"},
		{"another file behind", append(append(bytes.Clone(plain), 0, 0, 0, 0), plain...), backup.ErrBroken, "follows"},
		{"block of 4 GiB", append(bytes.Clone(plain), words(0xffffffff, 0xffffffff)...), backup.ErrBroken, "more than"},
		{"block over limit", append(bytes.Clone(plain), words(MaxBlockSize+1, 5)...), backup.ErrBroken, "more than"},
		{"block of nothing", append(bytes.Clone(plain), words(5, 0)...), backup.ErrBroken, "stored in 0"},
		{"block that grew", append(bytes.Clone(plain), words(5, 6)...), backup.ErrBroken, "stored in 6"},
		{"bomb", append(bytes.Clone(plain), words(MaxBlockSize, 100)...), backup.ErrBroken, "cannot come from"},
		{"promise", append(bytes.Clone(plain), words(MaxBlockSize, MaxBlockSize)...), backup.ErrBroken, "cut off"},
		{"garbage in a block", append(append(bytes.Clone(plain), words(100, 9)...), "garbage!!"...), backup.ErrBroken, "block at byte"},
		{"short block", append(append(bytes.Clone(plain), words(100, 7)...), 21, 1, 2, 3, 4, 0x11, 0, 0), backup.ErrBroken, "block at byte"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decode(test.raw)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.word) || len(got) > 0 {
				t.Errorf("%d bytes, %v; want %v with %q", len(got), err, test.kind, test.word)
			}
		})
	}
}

// Who reads is asked once before a block larger than usual is read, and not for others.
func TestLargeBlocksAreAskedFor(t *testing.T) {
	block := func(size int) []byte { return append(words(uint32(size), uint32(size)), make([]byte, size)...) }
	for _, c := range []struct {
		sizes []int
		asked int
	}{{[]int{256 << 10, UsualBlockSize}, 0}, {[]int{256 << 10, UsualBlockSize + 1, UsualBlockSize + 1}, 1}} {
		raw, want := header(1, 0), 0
		for _, size := range c.sizes {
			raw, want = append(raw, block(size)...), want+size
		}
		raw = append(raw, words(0)...)
		r, err := NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		r.Admit = func() error { asked++; return nil }
		if got, err := io.ReadAll(r); err != nil || len(got) != want || asked != c.asked {
			t.Errorf("%d bytes of %d, %v; asked %d times", len(got), want, err, asked)
		}
		refused := errors.New("refused")
		if r, err = NewReader(bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		r.Admit = func() error { return refused }
		if got, err := io.ReadAll(r); c.asked > 0 && (!errors.Is(err, refused) || len(got) != c.sizes[0] || cap(r.stored) > 2*chunk) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

// A length that only promises data does not take memory for it.
func TestPromisedMemory(t *testing.T) {
	raw := append(header(1, 0), words(MaxBlockSize, MaxBlockSize)...)
	r, err := NewReader(bytes.NewReader(append(raw, 1, 2, 3)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, backup.ErrBroken) || cap(r.stored) > 2*chunk || cap(r.block) > 0 {
		t.Errorf("%d and %d bytes taken, %v", cap(r.stored), cap(r.block), err)
	}
}

func TestReadErrors(t *testing.T) {
	raw := sample(t, "default.lzo")
	trouble := errors.New("disk on fire")
	for _, cut := range []int{0, 5, 20, 40, 50, 60, len(raw) - 1, len(raw)} {
		r, err := NewReader(io.MultiReader(bytes.NewReader(raw[:cut]), iotest.ErrReader(trouble)))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errors.Is(err, trouble) || errors.Is(err, backup.ErrBroken) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

// Blocks are decoded in buffers that stay.
func TestAllocations(t *testing.T) {
	block := append(words(4, 4), "data"...)
	raw := append(append(header(1, 0), bytes.Repeat(block, 1000)...), 0, 0, 0, 0)
	var p [4]byte
	if n := testing.AllocsPerRun(5, func() {
		r, err := NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if _, err := io.ReadFull(r, p[:]); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 30 {
		t.Errorf("%v allocations for 1000 blocks", n)
	}
}

func FuzzLzop(f *testing.F) {
	for _, name := range []string{"default.lzo", "unchecked.lzo"} {
		raw := sample(f, name)
		f.Add(raw)
	}
	f.Add(append(header(1, 0), words(8, 8, 1, 2, 0)...))
	f.Add(append(append(header(3, flagAdlerData), words(100, 9, 1)...), "\x15abcd\x00\x11\x00\x00"...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := NewReader(bytes.NewReader(raw))
		total := int64(0)
		if err == nil {
			total, err = io.Copy(io.Discard, r)
		}
		if err != nil && !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
			t.Fatalf("error without a condition: %v", err)
		}
		if total > int64(len(raw))*expansion {
			t.Fatalf("%d bytes came from %d", total, len(raw))
		}
		if r != nil && (cap(r.block) > 2*MaxBlockSize || cap(r.stored) > 2*len(raw)+2*chunk) {
			t.Fatalf("%d and %d bytes taken for %d", cap(r.block), cap(r.stored), len(raw))
		}
	})
}
