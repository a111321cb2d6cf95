package stream_test

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source/virtnbdbackup/stream"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// FuzzStream feeds whole files: they are refused, or can be read, within bounds that follow from their size.
func FuzzStream(f *testing.F) {
	small := streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.0", VirtualSize: 8 * kib, PartSize: 1000, Frames: []streamtest.Frame{
		{Offset: 0, Data: text(3000, 1)}, {Offset: 4 * kib, Zero: kib}, {Offset: 6 * kib, Data: noise(512, 1)},
	}}
	f.Add(small.Bytes())
	small.Compressed = true
	f.Add(small.Bytes())
	small.NoPartSizes = true
	f.Add(small.Bytes())
	f.Add(streamtest.File{VirtualSize: 1 << 60, Incremental: true, Compressed: true}.Bytes())
	f.Add(streamtest.File{VirtualSize: 1 << 40, Version: 1, Frames: []streamtest.Frame{{Offset: 1 << 39, Zero: 1 << 39}}}.Bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		index, meta, err := build(content)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(64*len(content))+mib {
			t.Errorf("%d bytes allocated for a file of %d", grown, len(content))
		}
		if err != nil {
			if !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
				t.Fatalf("neither broken nor unsupported: %v", err)
			}
			return
		}
		if index.Len() > len(content)/(stream.HeaderSize/4) {
			t.Fatalf("%d extents from %d bytes", index.Len(), len(content))
		}
		cache := stream.NewCache(mib)
		defer cache.Close()
		r := bytes.NewReader(content)
		end := int64(0)
		for i := range index.Len() {
			extent := index.At(i)
			if extent.Offset < end || extent.Length <= 0 || extent.End() > meta.VirtualSize {
				t.Fatalf("extent %+v after %d", extent, end)
			}
			end = extent.End()
			if index.Find(extent.Offset) != i || index.Find(end-1) != i {
				t.Fatalf("extent %d is not found", i)
			}
			if extent.Stored > 0 {
				p := make([]byte, min(extent.Length, 64*kib))
				if err := cache.ReadAt(r, extent, p, extent.Length-int64(len(p))); err != nil && !errors.Is(err, backup.ErrBroken) {
					t.Fatal(err)
				}
			} else if !extent.IsZero() && extent.Position+extent.Length > int64(len(content)) {
				t.Fatalf("extent %+v beyond the file", extent)
			}
		}
	})
}

// FuzzTrailer varies the list of compressed sizes and the description of an otherwise good file.
func FuzzTrailer(f *testing.F) {
	good := streamtest.File{VirtualSize: 8 * kib, Compressed: true, PartSize: 1000, Frames: []streamtest.Frame{
		{Offset: 0, Data: text(3000, 1)}, {Offset: 6 * kib, Data: noise(512, 1)},
	}}
	whole := good.Bytes()
	stop := bytes.LastIndex(whole, streamtest.Header("stop", 0, 0)) + stream.HeaderSize
	f.Add(whole[stop:len(whole)-stream.HeaderSize-2], good.Meta())
	f.Add([]byte(`[{"99": [11, 88]}, 7]`), []byte(`{"virtualSize": 8192, "streamVersion": 2, "compressed": 0}`))
	f.Add([]byte(`[`), []byte(`{"stream-version": 1e99}`))
	f.Fuzz(func(t *testing.T, list, meta []byte) {
		var content []byte
		content = append(content, streamtest.Header("meta", 0, int64(len(meta)))...)
		content = append(append(content, meta...), "\r\n"...)
		first := bytes.Index(whole, streamtest.Header("data", 0, 3000))
		content = append(append(content, whole[first:stop]...), list...)
		content = append(append(content, "\r\n"...), streamtest.Header("comp", 0, int64(len(list)))...)
		index, parsed, err := build(content)
		if err != nil {
			if !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
				t.Fatalf("neither broken nor unsupported: %v", err)
			}
			return
		}
		if index.At(index.Len()-1).End() > parsed.VirtualSize {
			t.Fatal("an extent beyond the disk")
		}
	})
}
