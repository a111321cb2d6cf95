package vma

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"ferry/internal/backup"
)

// Pages of clusters that all came are given back, so an archive that ascends needs one page a device.
func TestClusterSetMemory(t *testing.T) {
	var set clusterSet
	const clusters = 20*clustersPerPage + 77
	for cluster := range int64(clusters) {
		if !set.add(cluster) {
			t.Fatalf("cluster %d is there", cluster)
		}
		if own := len(set.pages) - countFull(set.pages); own > 1 {
			t.Fatalf("%d pages after cluster %d", own, cluster)
		}
	}
	for _, cluster := range []int64{0, clustersPerPage - 1, clustersPerPage, clusters - 1} {
		if set.add(cluster) {
			t.Errorf("cluster %d was new", cluster)
		}
	}
	if set.count != clusters || set.firstMissing() != clusters || fullPage.count != clustersPerPage {
		t.Errorf("count %d, first missing %d", set.count, set.firstMissing())
	}
	if !set.add(30 * clustersPerPage) {
		t.Error("a cluster far ahead was there")
	}
	if set.firstMissing() != clusters {
		t.Errorf("first missing %d", set.firstMissing())
	}
}

func countFull(pages []*clusterPage) (full int) {
	for _, page := range pages {
		if page == fullPage {
			full++
		}
	}
	return full
}

// The largest archive that is accepted costs nothing before its clusters come.
func TestLargestArchive(t *testing.T) {
	archive := &Archive{Devices: []DeviceContent{{Name: "d", Size: MaxTotalSize, Content: zeroContent{}}}}
	archive.Order = func(yield func(Slot) bool) { yield(Slot{0, MaxTotalSize/ClusterSize - 1}) }
	raw := write(t, archive)
	r, err := NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if cluster, err := r.Next(); err != nil || cluster.Offset != MaxTotalSize-ClusterSize || cluster.Data != nil {
		t.Errorf("got cluster %d: %v", cluster.Offset, err)
	}
	own := slices.IndexFunc(r.states[0].seen.pages, func(page *clusterPage) bool { return page != nil })
	if own != len(r.states[0].seen.pages)-1 {
		t.Errorf("page %d of %d is there", own, len(r.states[0].seen.pages))
	}
	if _, err := r.Next(); !errors.Is(err, backup.ErrBroken) {
		t.Errorf("a billion clusters missing: %v", err)
	}
}

// Who reads is asked once before more than usual is remembered of clusters that come all over the disks.
func TestWildOrderIsAskedFor(t *testing.T) {
	for pages, want := range map[int64]int{usualPages: 0, usualPages + 9: 1} {
		archive := &Archive{Devices: []DeviceContent{{Name: "d", Size: MaxTotalSize / 2, Content: zeroContent{}}, {Name: "e", Size: MaxTotalSize / 2, Content: zeroContent{}}}}
		archive.Order = func(yield func(Slot) bool) {
			for n := range pages {
				if !yield(Slot{int(n % 2), n * clustersPerPage}) {
					return
				}
			}
		}
		raw := write(t, archive)
		asked, refused := 0, errors.New("refused")
		for _, answer := range []error{nil, refused} {
			r, err := NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			r.Admit = func() error { asked++; return answer }
			for err == nil {
				_, err = r.Next()
			}
			if errors.Is(err, refused) != (answer != nil && want > 0) {
				t.Errorf("%d pages: %v", pages, err)
			}
		}
		if asked != 2*want {
			t.Errorf("%d pages: asked %d times", pages, asked)
		}
	}
}

// Reading clusters allocates nothing but pages of the cluster set.
func TestAllocations(t *testing.T) {
	archive, _ := testArchive()
	archive.Order = archive.Interleaved()
	raw := write(t, archive)
	count := func(clusters int) float64 {
		return testing.AllocsPerRun(5, func() {
			r, err := NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			for range clusters {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	total := 0
	for range archive.Sequential() {
		total++
	}
	// A page and its place in a slice for each device.
	if few, all := count(1), count(total); all-few > float64(2*len(archive.Devices)) {
		t.Errorf("%v allocations for one cluster, %v for %d", few, all, total)
	}
}

func FuzzVMA(f *testing.F) {
	small := &Archive{Devices: []DeviceContent{
		{Name: "d", Size: 8192, Content: bytes.NewReader(bytes.Repeat([]byte{1}, 8192))},
		{Name: StateDevice, Size: 1, Content: bytes.NewReader([]byte{1})},
	}}
	raw := write(f, small)
	f.Add(raw)
	f.Add(raw[:len(raw)-1])
	small.Order = func(yield func(Slot) bool) {
		_ = yield(UnusedSlot) && yield(Slot{1, 3}) && yield(Slot{0, 0}) && yield(UnusedSlot) && yield(Slot{1, 0})
	}
	f.Add(write(f, small))
	f.Add([]byte(headerMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// As given, and with right sums, which a fuzzer cannot guess.
		for _, in := range [][]byte{raw, repaired(raw)} {
			_, _, err := read(t, bytes.NewReader(in))
			if err != nil && !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
				t.Fatalf("error without a condition: %v", err)
			}
			if err == nil && len(in) <= fixedHeaderSize {
				t.Fatalf("%d bytes are an archive", len(in))
			}
			if r, err := NewReader(bytes.NewReader(in)); err == nil {
				r.Next()
				if n := len(r.Header().Devices); n > lastDeviceID || len(r.Header().Configs) > tableEntries {
					t.Fatalf("%d devices", n)
				}
			}
		}
	})
}

// repaired makes magic, size, UUIDs and sums right where there is room for them.
func repaired(raw []byte) []byte {
	raw = bytes.Clone(raw)
	if len(raw) <= fixedHeaderSize {
		return raw
	}
	size := int(u32(raw, offHeaderSize))
	if size <= fixedHeaderSize || size > len(raw) {
		return raw
	}
	resum(raw)
	for at := size; at+extentHeaderSize <= len(raw); {
		copy(raw[at:], extentMagic)
		copy(raw[at+offExtentUUID:], raw[offUUID:offUUID+16])
		resumExtent(raw, at)
		at += extentHeaderSize + BlockSize*int(raw[at+offBlockCount+1])
	}
	return raw
}

var _ io.WriterTo = (*Archive)(nil)
