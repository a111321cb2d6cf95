package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"ferry/internal/backup"
)

// build makes a small image by hand: 512-byte clusters, one first-level entry at 512, one second-level table at 1024,
// data from 1536 on. Patches are applied to the header and tables by their offset.
func build(patch func(image []byte)) []byte {
	image := make([]byte, 4096)
	be := binary.BigEndian
	copy(image, Magic)
	be.PutUint32(image[4:], 3)
	be.PutUint32(image[20:], 9)
	be.PutUint64(image[24:], 64*512)
	be.PutUint32(image[36:], 1)
	be.PutUint64(image[40:], 512)
	be.PutUint32(image[96:], 4)
	be.PutUint32(image[100:], 104)
	be.PutUint64(image[512:], 1<<63|1024)
	be.PutUint64(image[1024:], 1<<63|1536)
	copy(image[1536:], bytes.Repeat([]byte{0xaa}, 512))
	if patch != nil {
		patch(image)
	}
	return image
}

func put32(offset int, value uint32) func([]byte) {
	return func(image []byte) { binary.BigEndian.PutUint32(image[offset:], value) }
}

func put64(offset int, value uint64) func([]byte) {
	return func(image []byte) { binary.BigEndian.PutUint64(image[offset:], value) }
}

func TestBuiltImage(t *testing.T) {
	image := build(nil)
	opened, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, opened, 1000)
	if got[511] != 0xaa || got[512] != 0 || len(got) != 64*512 {
		t.Error("wrong content")
	}
	if n, err := opened.ReadAt(make([]byte, 10), 64*512-4); n != 4 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := opened.ReadAt(make([]byte, 10), 64*512); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err := opened.ReadAt(make([]byte, 10), -1); err == nil || err == io.EOF {
		t.Errorf("before the start: %v", err)
	}
}

func TestHeadersThatAreRefused(t *testing.T) {
	name := func(image []byte) {
		image[100+3] = 112
		copy(image[112:], []byte{0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 48, 0, 40})
		copy(image[122:], "time travel")
		image[72+2] = 1
	}
	for text, c := range map[string]struct {
		patch func([]byte)
		cond  error
	}{
		"begin":                        {put32(0, 0), backup.ErrBroken},
		"version 1":                    {put32(4, 1), backup.ErrUnsupported},
		"version 4":                    {put32(4, 4), backup.ErrUnsupported},
		"2^8":                          {put32(20, 8), backup.ErrBroken},
		"2^4294967295":                 {put32(20, 1<<32-1), backup.ErrBroken},
		"disk of 18446744073709551615": {put64(24, 1<<64-1), backup.ErrBroken},
		"can hold":                     {put64(24, 1<<62), backup.ErrBroken},
		"33554432":                     {put32(36, 1<<31), backup.ErrBroken},
		"has 0 entries":                {put32(36, 0), backup.ErrBroken},
		"table at 513":                 {put64(40, 513), backup.ErrBroken},
		"table at 0":                   {put64(40, 0), backup.ErrBroken},
		"table at 4096 ends":           {put64(40, 4096), backup.ErrBroken},
		"beyond any file":              {put64(40, 1<<63), backup.ErrBroken},
		"header length of 4294967288":  {put32(100, 1<<32-8), backup.ErrBroken},
		"header length of 107":         {put32(100, 107), backup.ErrBroken},
		"bit 63":                       {put64(72, 1<<63), backup.ErrUnsupported},
		"bit 40 (time travel)":         {name, backup.ErrUnsupported},
		"external data file":           {put64(72, 4), backup.ErrUnsupported},
		"contradicts":                  {put64(72, 8), backup.ErrBroken},
		"subclusters in":               {put64(72, 16), backup.ErrBroken},
		"AES":                          {put32(32, 1), backup.ErrEncrypted},
		"LUKS":                         {put32(32, 2), backup.ErrEncrypted},
		"method 9":                     {put32(32, 9), backup.ErrEncrypted},
		"name of 1024":                 {func(i []byte) { put32(16, 1024)(i); put64(8, 120)(i) }, backup.ErrBroken},
		"first cluster":                {func(i []byte) { put32(16, 100)(i); put64(8, 500)(i) }, backup.ErrBroken},
		"at 18446744073709551615":      {func(i []byte) { put32(16, 100)(i); put64(8, 1<<64-1)(i) }, backup.ErrBroken},
		"extension 0x1":                {func(i []byte) { put32(104, 1)(i); put32(108, 1<<31)(i) }, backup.ErrBroken},
	} {
		image := build(c.patch)
		_, err := Open(bytes.NewReader(image), int64(len(image)))
		if !errors.Is(err, c.cond) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for length := range 104 {
		if _, err := Open(bytes.NewReader(build(nil)[:length]), int64(length)); err == nil {
			t.Errorf("a header of %d bytes was read", length)
		}
	}
}

func TestTablesThatAreRefused(t *testing.T) {
	for text, patch := range map[string]func([]byte){
		"offset 0 of the disk: second-level table at 4096":    put64(512, 4096),
		"offset 0 of the disk: data at 1048576 ends beyond":   put64(1024, 1<<20),
		"offset 1024 of the disk: data at 4096 ends beyond":   put64(1024+16, 4096),
		"offset 512 of the disk: compressed data at 16777216": put64(1024+8, 1<<62|1<<24),
		"offset 0 of the disk: compressed data at 1536":       put64(1024, 1<<62|1536),
		"offset 0 of the disk: zero cluster in an image of version 2": func(i []byte) {
			put32(4, 2)(i)
			put64(1024, 1)(i)
		},
		"the backing file live%0A is not there": func(i []byte) {
			put32(16, 5)(i)
			put64(8, 200)(i)
			copy(i[200:], "live\n")
		},
	} {
		image := build(patch)
		opened, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err = opened.ReadAt(make([]byte, opened.Size()), 0)
			if !errors.Is(err, backup.ErrBroken) || !strings.Contains(err.Error(), text) {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
	// Tables that point at themselves or at one another are read as they are, once around.
	for _, patch := range []func([]byte){put64(512, 512), put64(1024, 1024), put64(1024, 512), put64(512, 0xffffffffff00)} {
		image := build(patch)
		opened, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		_ = opened.Extents(context.Background(), func(Run) bool { count++; return true })
		_, _ = opened.ReadAt(make([]byte, opened.Size()), 0)
		if count > 64 {
			t.Errorf("%d runs", count)
		}
	}
}

func TestSubclustersThatAreRefused(t *testing.T) {
	image := make([]byte, 5<<14)
	copy(image, build(nil)[:512])
	put32(20, 14)(image)
	put64(72, 16)(image)
	put64(40, 1<<14)(image)
	put64(24, 1<<16)(image)
	put64(1<<14, 2<<14)(image)
	for text, words := range map[string][2]uint64{
		"both data and zeros": {3 << 14, 1<<32 | 1},
		"without a place":     {0, 1},
		"ends beyond":         {5 << 14, 1},
	} {
		put64(2<<14, words[0])(image)
		put64(2<<14+8, words[1])(image)
		opened, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = opened.ReadAt(make([]byte, 100), 0); !errors.Is(err, backup.ErrBroken) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSnapshotTablesThatAreRefused(t *testing.T) {
	for text, patch := range map[string]func([]byte){
		"table of 4294967295": func(i []byte) { put32(60, 1<<32-1)(i); put64(64, 2048)(i) },
		"at 4096 does not":    func(i []byte) { put32(60, 1)(i); put64(64, 4096)(i) },
		"extra data":          func(i []byte) { put32(60, 1)(i); put64(64, 2048)(i); put32(2048+36, 1<<31)(i) },
		"unexpected EOF":      func(i []byte) { put32(60, 2)(i); put64(64, 2048)(i); put32(2048+12, 1<<31|1<<15)(i) },
	} {
		image := build(patch)
		opened, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := opened.Snapshots(); !errors.Is(err, backup.ErrBroken) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := opened.Snapshot(0); err == nil {
			t.Error("a snapshot was opened")
		}
		readAll(t, opened, 4096)
	}
}

func TestCutFiles(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=4k", "disk", filledSize)
	qemuIO(t, dir, "disk", fill...)
	whole, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	want := readAll(t, openChain(t, dir, "disk"), 1<<20)
	for length := 0; length < len(whole); length += 1000 {
		image, err := Open(bytes.NewReader(whole[:length]), int64(length))
		if err != nil {
			continue
		}
		got := make([]byte, image.Size())
		if _, err := image.ReadAt(got, 0); err == nil && !bytes.Equal(got, want) {
			t.Errorf("cut to %d bytes the image reads as something else", length)
		}
	}
	// A file that shrinks after it was opened has changed.
	image, err := Open(bytes.NewReader(whole[:len(whole)-5000]), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.ReadAt(make([]byte, image.Size()), 0); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("shrunk file: %v", err)
	}
}

func TestFlippedBits(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "disk", filledSize)
	qemuIO(t, dir, "disk", fill...)
	whole, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 64<<10)
	// Header and tables; flips in data are the reader's business as little as QEMU's.
	for bit := 0; bit < 8*min(len(whole), 128<<10); bit += 101 {
		whole[bit/8] ^= 1 << (bit % 8)
		exercise(whole, p)
		whole[bit/8] ^= 1 << (bit % 8)
	}
}

// exercise opens an image and reads a little everywhere; whatever it is, that must end.
func exercise(content, p []byte) {
	image, err := Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return
	}
	_ = image.Check(512 << 10)
	image.SetBacking(nil)
	states := []*Image{image}
	if snapshots, err := image.Snapshots(); err == nil {
		for k := range min(len(snapshots), 3) {
			if state, err := image.Snapshot(k); err == nil {
				states = append(states, state)
			}
		}
	}
	for _, state := range states {
		for _, offset := range []int64{0, state.Size() / 3, state.Size() - 100} {
			if offset >= 0 {
				_, _ = state.ReadAt(p, offset)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		// A hostile table can map a huge disk to one cluster; how far to walk is the caller's decision.
		step := min(state.Size(), 64<<20)
		_ = state.ExtentsIn(ctx, 0, step, func(Run) bool { return true })
		_ = state.ExtentsIn(ctx, state.Size()-step, state.Size(), func(Run) bool { return true })
		cancel()
	}
}

// padded is a file that goes on with zeros.
type padded struct{ start []byte }

func (p padded) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	if offset < int64(len(p.start)) {
		copy(b, p.start[offset:])
	}
	return len(b), nil
}

// A file with holes costs nothing to make, and may state the largest first-level table. A chain has many such files.
func TestLargestTablesTakeLittleMemory(t *testing.T) {
	const entries = maxL1Bytes / 8
	start := build(func(image []byte) {
		put64(24, entries*64*512)(image)
		put32(36, entries)(image)
		put64(40, 4096)(image)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var below *Image
	p := make([]byte, 4096)
	for range 16 {
		image, err := Open(padded{start[:512]}, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if below != nil {
			image.SetBacking(below)
		}
		below = image
	}
	for _, offset := range []int64{0, entries * 64 * 256, below.Size() - 4096} {
		if _, err := below.ReadAt(p, offset); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 8<<20 {
		t.Errorf("%d bytes for reading three places", taken)
	}
}

// However many images are open, their caches stay within one limit, and what finds no room is read all the same.
func TestCachesOfManyImages(t *testing.T) {
	before := allCaches.used.Load()
	defer func(limit int64) { allCaches.limit = limit }(allCaches.limit)
	allCaches.limit = before + 20*512
	content := build(nil)
	p := make([]byte, 100)
	var images []*Image
	for range 40 {
		image, err := Open(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := image.ReadAt(p, 0); err != nil || p[99] != 0xaa {
				t.Fatalf("%v, %x", err, p[99])
			}
		}
		images = append(images, image)
	}
	if used := allCaches.used.Load() - before; used != 20*512 {
		t.Errorf("%d bytes are kept", used)
	}
	for range 2 {
		for _, image := range images {
			image.Close()
		}
	}
	if _, err := images[0].ReadAt(p, 0); err != nil {
		t.Errorf("without caches: %v", err)
	}
	if used := allCaches.used.Load() - before; used != 0 {
		t.Errorf("%d bytes are kept of what is closed", used)
	}
}

func TestCancelledWalk(t *testing.T) {
	image := build(nil)
	opened, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := opened.Extents(ctx, func(Run) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func FuzzQcow2(f *testing.F) {
	f.Add(build(nil))
	f.Add(build(put64(512, 512)))
	f.Add(build(func(i []byte) { put32(60, 2)(i); put64(64, 2048)(i) }))
	extended := make([]byte, 5<<14)
	copy(extended, build(nil)[:512])
	put32(20, 14)(extended)
	put64(72, 16)(extended)
	put64(40, 1<<14)(extended)
	put64(1<<14, 2<<14)(extended)
	put64(2<<14, 3<<14)(extended)
	put64(2<<14+8, 0xf0f00000f0f)(extended)
	f.Add(extended)
	compressed := build(put64(1024, 1<<62|1536))
	f.Add(compressed)
	f.Add(build(func(i []byte) { put32(100, 112)(i); i[104] = 1; put64(72, 8)(i); put64(1024, 1<<62|1536)(i) }))
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 1<<20 {
			return
		}
		exercise(content, make([]byte, 64<<10))
	})
}
