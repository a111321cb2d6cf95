package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source/virtnbdbackup/stream"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// noise is content that compresses badly; text is content that compresses well.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(b)
	return b
}

func text(n int, seed byte) []byte { return bytes.Repeat([]byte{seed, seed + 1, seed + 2}, n/3+1)[:n] }

const kib, mib = 1 << 10, 1 << 20

func sample(compressed bool) streamtest.File {
	return streamtest.File{
		Disk: "vda", Checkpoint: "virtnbdbackup.0", Date: "2026-11-22T04:40:26.197247", VirtualSize: 4 * mib, Compressed: compressed,
		PartSize: 100_000,
		Frames: []streamtest.Frame{
			{Offset: 0, Data: noise(64*kib, 1)}, {Offset: 64 * kib, Zero: 64 * kib}, {Offset: 128 * kib, Zero: 896 * kib},
			{Offset: mib, Data: text(mib, 7)}, {Offset: 2 * mib, Data: noise(192*kib+512, 2)}, {Offset: 3 * mib, Zero: mib},
		},
	}
}

// image is what the file makes of a disk of zeros.
func image(f streamtest.File) []byte {
	disk := make([]byte, f.VirtualSize)
	for _, frame := range f.Frames {
		copy(disk[frame.Offset:], frame.Data)
	}
	return disk
}

func build(content []byte) (*stream.Index, stream.Meta, error) {
	r := bytes.NewReader(content)
	meta, err := stream.ReadMeta(r, r.Size(), content[:min(len(content), stream.HeadSize)])
	if err != nil {
		return nil, meta, err
	}
	index, err := stream.BuildIndex(context.Background(), r, r.Size(), meta)
	return index, meta, err
}

// read rebuilds a disk from an index.
func read(r io.ReaderAt, index *stream.Index, cache *stream.Cache, size int64) ([]byte, error) {
	disk := make([]byte, size)
	for i := range index.Len() {
		extent := index.At(i)
		part := disk[extent.Offset:extent.End()]
		var err error
		switch {
		case extent.IsZero():
		case extent.Stored > 0:
			err = cache.ReadAt(r, extent, part, 0)
		default:
			_, err = r.ReadAt(part, extent.Position)
		}
		if err != nil {
			return nil, err
		}
	}
	return disk, nil
}

func TestReadBack(t *testing.T) {
	for name, f := range map[string]streamtest.File{
		"plain": sample(false), "lz4": sample(true),
		"version 1":      {VirtualSize: mib, Version: 1, Frames: []streamtest.Frame{{Offset: 512, Data: text(512, 1)}}},
		"empty":          {VirtualSize: mib, Incremental: true},
		"empty lz4":      {VirtualSize: mib, Incremental: true, Compressed: true},
		"no sizes":       {VirtualSize: mib, Compressed: true, PartSize: 70_000, NoPartSizes: true, Frames: []streamtest.Frame{{Offset: 0, Data: noise(mib, 3)}}},
		"one part, none": {VirtualSize: mib, Compressed: true, NoPartSizes: true, Frames: []streamtest.Frame{{Offset: 0, Data: text(mib, 3)}}},
		"empty frames":   {VirtualSize: mib, Frames: []streamtest.Frame{{Offset: 0, Data: []byte{}}, {Offset: 9, Zero: 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			content := f.Bytes()
			index, meta, err := build(content)
			if err != nil {
				t.Fatal(err)
			}
			if meta.VirtualSize != f.VirtualSize || meta.Compressed != f.Compressed || meta.Incremental != f.Incremental || meta.DiskName != f.Disk {
				t.Errorf("meta %+v", meta)
			}
			cache := stream.NewCache(8 * mib)
			defer cache.Close()
			got, err := read(bytes.NewReader(content), index, cache, f.VirtualSize)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, image(f)) {
				t.Error("wrong content")
			}
			if cache.Unchecked() {
				t.Error("checksums not seen")
			}
		})
	}
}

func TestIndexMergesZeros(t *testing.T) {
	index, _, err := build(sample(false).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if index.Len() != 5 {
		t.Errorf("%d extents, not 5", index.Len())
	}
	if at := index.Find(128 * kib); at != 1 || !index.At(at).IsZero() || index.At(at).Length != mib-64*kib {
		t.Errorf("zeros not merged: %d %+v", at, index.At(at))
	}
	if at := index.Find(2*mib + 192*kib + 512); index.At(at).Offset != 3*mib {
		t.Errorf("gap finds %+v", index.At(at))
	}
	if index.Find(4*mib) != index.Len() {
		t.Error("something behind the end")
	}
}

// TestTruncated cuts files at every boundary of a structure, one byte to either side, and at random places.
func TestTruncated(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		content, bounds := sample(compressed).Build()
		cuts := map[int]bool{}
		for _, at := range bounds {
			for cut := at - 1; cut <= at+1; cut++ {
				if cut >= 0 && cut < len(content) {
					cuts[cut] = true
				}
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			cuts[rng.IntN(len(content))] = true
		}
		for cut := range cuts {
			if _, _, err := build(content[:cut]); !errors.Is(err, backup.ErrBroken) {
				t.Fatalf("compressed %v, cut at %d of %d: %v", compressed, cut, len(content), err)
			}
		}
		if _, _, err := build(append(bytes.Clone(content), 0)); !errors.Is(err, backup.ErrBroken) {
			t.Errorf("one byte more: %v", err)
		}
	}
}

// TestBitFlips flips bits of everything but the payloads of plain files and the description: the rest is checked.
func TestBitFlips(t *testing.T) {
	f := sample(true)
	content, bounds := f.Build()
	want := image(f)
	rng := rand.New(rand.NewPCG(3, 4))
	flip := func(at int) {
		bad := bytes.Clone(content)
		bad[at] ^= 1 << rng.IntN(8)
		index, meta, err := build(bad)
		if err == nil && meta.VirtualSize == f.VirtualSize {
			cache := stream.NewCache(8 * mib)
			defer cache.Close()
			var got []byte
			if got, err = read(bytes.NewReader(bad), index, cache, f.VirtualSize); err == nil && bytes.Equal(got, want) {
				return // a letter's case in a number, a space in a list
			}
		}
		// Positions of frames have no checksum: a moved frame that still fits is not noticed.
		if err == nil && !inHeader(bounds, at) {
			t.Errorf("bit flipped at %d: nothing noticed", at)
		}
		if err != nil && !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
			t.Errorf("bit flipped at %d: %v", at, err)
		}
	}
	for range 300 {
		flip(bounds[3] + rng.IntN(len(content)-bounds[3]))
	}
	for _, at := range bounds[3 : len(bounds)-1] {
		flip(at)
	}
}

// inHeader is true if the byte may be part of a frame's header.
func inHeader(bounds []int, at int) bool {
	for _, bound := range bounds {
		if at >= bound && at < bound+stream.HeaderSize {
			return true
		}
	}
	return false
}

func TestRefused(t *testing.T) {
	data := func(offset int64, n int) streamtest.Frame { return streamtest.Frame{Offset: offset, Data: text(n, 1)} }
	file := func(frames ...streamtest.Frame) []byte {
		return streamtest.File{VirtualSize: mib, Frames: frames}.Bytes()
	}
	compressed := func(trailer string) []byte {
		return streamtest.File{VirtualSize: mib, Compressed: true, Trailer: trailer, Frames: []streamtest.Frame{data(0, 1000), data(5000, 1000)}}.Bytes()
	}
	replace := func(b []byte, old, new string) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	size := len(streamtest.LZ4(text(1000, 1), true))
	for name, c := range map[string]struct {
		content []byte
		want    error
		says    string
	}{
		"nothing":              {nil, backup.ErrBroken, "too short"},
		"magic":                {bytes.Repeat([]byte("x"), 100), backup.ErrBroken, "meta frame"},
		"meta length":          {replace(file(), "meta 0000000000000000 0000", "meta 0000000000000000 0fff"), backup.ErrBroken, "cannot be"},
		"meta length negative": {replace(file(), "meta 0000000000000000 0000", "meta 0000000000000000 ffff"), backup.ErrBroken, "meta frame"},
		"JSON":                 {replace(file(), "{", "["), backup.ErrBroken, "JSON"},
		"JSON type":            {replace(file(), `"date": ""`, `"date": 12`), backup.ErrBroken, "JSON"},
		"version 3":            {streamtest.File{VirtualSize: mib, Version: 3}.Bytes(), backup.ErrUnsupported, "version 3"},
		"method":               {replace(streamtest.File{VirtualSize: mib, Compressed: true}.Bytes(), `"lz4"`, `"xyz"`), backup.ErrUnsupported, "compression"},
		"virtual size":         {streamtest.File{VirtualSize: -1}.Bytes(), backup.ErrBroken, "-1 bytes"},
		"huge virtual size":    {streamtest.File{VirtualSize: 1 << 62}.Bytes(), backup.ErrBroken, "cannot be"},
		"data size":            {streamtest.File{VirtualSize: mib, DataSize: 5, Frames: []streamtest.Frame{data(0, 6)}}.Bytes(), backup.ErrBroken, "announced"},
		"data size beyond":     {streamtest.File{VirtualSize: mib, DataSize: mib + 1}.Bytes(), backup.ErrBroken, "cannot be"},
		"overlap":              {file(data(0, 100), data(99, 100)), backup.ErrBroken, "overlaps"},
		"descending":           {file(data(1000, 100), data(0, 100)), backup.ErrBroken, "overlaps"},
		"beyond the disk":      {file(data(mib-10, 11)), backup.ErrBroken, "overlaps"},
		"zeros beyond":         {file(streamtest.Frame{Offset: mib - 10, Zero: 11}), backup.ErrBroken, "overlaps"},
		"absurd length":        {replace(file(data(0, 100)), "data 0000000000000000 0", "data 0000000000000000 f"), backup.ErrBroken, "no frame"},
		"absurd offset":        {replace(file(data(0, 100)), "data 0", "data 0fffffffffffffff "), backup.ErrBroken, ""},
		"second meta":          {replace(file(streamtest.Frame{Offset: 0, Zero: 1}), "zero 0", "meta 0"), backup.ErrBroken, "kind"},
		"stop in the middle":   {replace(file(streamtest.Frame{Offset: 0, Zero: 1}), "zero 0", "stop 0"), backup.ErrBroken, "behind it"},
		"no such kind":         {replace(file(streamtest.Frame{Offset: 0, Zero: 1}), "zero 0", "zeri 0"), backup.ErrBroken, "no frame"},
		"no trailer":           {replace(streamtest.File{VirtualSize: mib}.Bytes(), `"compressed": false`, `"compressed": 2    `), backup.ErrBroken, "compressed sizes"},
		"trailer too short":    {compressed("[" + strconv.Itoa(size) + "]"), backup.ErrBroken, "more data frames"},
		"trailer too long":     {compressed("[" + strings.Repeat(strconv.Itoa(size)+",", 2) + strconv.Itoa(size) + "]"), backup.ErrBroken, "fewer data frames"},
		"trailer wrong size":   {compressed("[" + strconv.Itoa(size+1) + "," + strconv.Itoa(size) + "]"), backup.ErrBroken, "where it says"},
		"trailer huge size":    {compressed("[99999999999," + strconv.Itoa(size) + "]"), backup.ErrBroken, "beyond the end"},
		"trailer overflow":     {compressed("[99999999999999999999999999999999," + strconv.Itoa(size) + "]"), backup.ErrBroken, "malformed"},
		"trailer tiny size":    {compressed("[1," + strconv.Itoa(size) + "]"), backup.ErrBroken, "cannot be"},
		"trailer no list":      {compressed("{}"), backup.ErrBroken, "malformed"},
		"trailer unended":      {compressed("[" + strconv.Itoa(size) + "," + strconv.Itoa(size)), backup.ErrBroken, "malformed"},
		"trailer junk behind":  {compressed("[" + strconv.Itoa(size) + "," + strconv.Itoa(size) + "] x"), backup.ErrBroken, "malformed"},
		"parts beyond sum":     {compressed(`[{"` + strconv.Itoa(size) + `": [` + strconv.Itoa(size) + `, 20]},` + strconv.Itoa(size) + "]"), backup.ErrBroken, "more than their sum"},
		"parts below sum":      {compressed(`[{"` + strconv.Itoa(size) + `": [20, 20]},` + strconv.Itoa(size) + "]"), backup.ErrBroken, "in all"},
		"parts not frames":     {compressed(`[{"` + strconv.Itoa(size) + `": [12, ` + strconv.Itoa(size-12) + `]},` + strconv.Itoa(size) + "]"), backup.ErrBroken, ""},
		"parts nested":         {compressed(`[{"` + strconv.Itoa(size) + `": [[` + strconv.Itoa(size) + `]]},` + strconv.Itoa(size) + "]"), backup.ErrBroken, "malformed"},
		"parts of other size": {replace(streamtest.File{VirtualSize: mib, Compressed: true, PartSize: 500, Frames: []streamtest.Frame{data(0, 1000)}}.Bytes(),
			"data 0000000000000000 00000000000003e8", "data 0000000000000000 00000000000003e9"), backup.ErrBroken, "content"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := build(c.content)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, not %v: …%s…", err, c.want, c.says)
			}
		})
	}
}

// TestLZ4Bomb: content that is longer or shorter than the frame says is never handed out whole, nor kept.
func TestLZ4Bomb(t *testing.T) {
	for name, sized := range map[string]bool{"stated": true, "not stated": false} {
		t.Run(name, func(t *testing.T) {
			bomb := streamtest.LZ4(make([]byte, 64*mib), sized)
			cache := stream.NewCache(mib)
			defer cache.Close()
			short := stream.Extent{Length: 700 * kib, Stored: int64(len(bomb))}
			p := make([]byte, short.Length)
			if err := cache.ReadAt(bytes.NewReader(bomb), short, p, 0); !errors.Is(err, backup.ErrBroken) {
				t.Errorf("longer than announced: %v", err)
			}
			if cache.Decoded() > 2*mib {
				t.Errorf("%d bytes decoded", cache.Decoded())
			}
			long := stream.Extent{Length: 65 * mib, Stored: int64(len(bomb))}
			if err := cache.ReadAt(bytes.NewReader(bomb), long, p, 65*mib-10); !errors.Is(err, backup.ErrBroken) {
				t.Errorf("shorter than announced: %v", err)
			}
		})
	}
}

// TestCacheDecodesOnce: ascending reads, in parallel and of several parts, decode nothing twice.
func TestCacheDecodesOnce(t *testing.T) {
	f := streamtest.File{VirtualSize: 24 * mib, Compressed: true, PartSize: 8 * mib,
		Frames: []streamtest.Frame{{Offset: 0, Data: append(noise(10*mib, 5), text(14*mib, 9)...)}}}
	content := f.Bytes()
	index, _, err := build(content)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(content)
	want := image(f)
	cache := stream.NewCache(16 * mib)
	defer cache.Close()
	const block = 128 * kib
	offsets := make(chan int64)
	var readers, turn sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			p := make([]byte, block)
			for offset := range offsets {
				extent := index.At(index.Find(offset))
				if err := cache.ReadAt(r, extent, p, offset-extent.Offset); err != nil || !bytes.Equal(p, want[offset:offset+block]) {
					t.Errorf("at %d: %v", offset, err)
				}
				turn.Done()
			}
		})
	}
	// Four at a time: one that a busy machine leaves behind would find its part gone from the cache.
	for offset := int64(0); offset < f.VirtualSize; {
		for range 4 {
			turn.Add(1)
			offsets <- offset
			offset += block
		}
		turn.Wait()
	}
	close(offsets)
	readers.Wait()
	if cache.Decoded() != f.VirtualSize {
		t.Errorf("%d bytes decoded of %d", cache.Decoded(), f.VirtualSize)
	}
	// Backwards it has to start over, and stays right.
	p := make([]byte, 10)
	for _, offset := range []int64{23 * mib, 5 * mib, 100, 9*mib - 5, 3 * mib} {
		extent := index.At(index.Find(offset))
		if err := cache.ReadAt(r, extent, p[:5], offset-extent.Offset); err != nil || !bytes.Equal(p[:5], want[offset:offset+5]) {
			t.Errorf("at %d: %v", offset, err)
		}
	}
}

// TestWalkReadsHeadersOnly: building the index of a plain file costs one window for each long frame.
func TestWalkReadsHeadersOnly(t *testing.T) {
	f := streamtest.File{VirtualSize: 64 * mib}
	for i := range int64(16) {
		f.Frames = append(f.Frames, streamtest.Frame{Offset: i * 2 * mib, Data: text(mib, byte(i))})
	}
	content := f.Bytes()
	counting := &countingReader{r: bytes.NewReader(content)}
	meta, err := stream.ReadMeta(counting, int64(len(content)), content[:stream.HeadSize])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.BuildIndex(context.Background(), counting, int64(len(content)), meta); err != nil {
		t.Fatal(err)
	}
	if counting.bytes > 34*4*kib {
		t.Errorf("%d bytes read for 16 frames", counting.bytes)
	}
}

type countingReader struct {
	r     io.ReaderAt
	bytes int
}

func (c *countingReader) ReadAt(p []byte, offset int64) (int, error) {
	n, err := c.r.ReadAt(p, offset)
	c.bytes += n
	return n, err
}

func TestCancelled(t *testing.T) {
	content := sample(false).Bytes()
	r := bytes.NewReader(content)
	meta, err := stream.ReadMeta(r, r.Size(), content)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := stream.BuildIndex(ctx, r, r.Size(), meta); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
