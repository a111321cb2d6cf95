package vma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"ferry/internal/backup"
)

var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// testArchive has disks of awkward sizes with blocks of data, blocks of zeros and clusters of zeros.
func testArchive() (*Archive, [][]byte) {
	sizes := []int{5*ClusterSize + 1536, ClusterSize, 0, 512, 70 * ClusterSize}
	names := []string{"drive-scsi0", "drive-virtio1", "drive-efidisk0", "drive-tpmstate0-backup", "odd\nname\xff"}
	random := rand.New(rand.NewPCG(1, 2))
	archive := &Archive{UUID: testUUID, Created: time.Unix(1_800_000_000, 0).UTC(), Configs: []Config{
		{Name: "qemu-server.conf", Data: []byte("name: web01\n")}, {Name: "qemu-server.fw", Data: []byte{}},
	}}
	var contents [][]byte
	for i, size := range sizes {
		content := make([]byte, size)
		for block := 0; block < size; block += BlockSize {
			if random.IntN(3) == 0 {
				for j := block; j < min(block+BlockSize, size); j++ {
					content[j] = byte(random.Uint32())
				}
			}
		}
		contents = append(contents, content)
		archive.Devices = append(archive.Devices, DeviceContent{Name: names[i], Size: int64(size), Content: bytes.NewReader(content)})
	}
	return archive, contents
}

func write(t testing.TB, archive *Archive) []byte {
	t.Helper()
	var out bytes.Buffer
	n, err := archive.WriteTo(&out)
	if err != nil || n != int64(out.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, out.Len(), err)
	}
	return out.Bytes()
}

// read reads an archive to its end or to an error, and checks what a Reader promises about clusters.
func read(t testing.TB, in io.Reader) (*Header, [][]byte, error) {
	t.Helper()
	r, err := NewReader(in)
	if err != nil {
		return nil, nil, err
	}
	contents := make([][]byte, len(r.Header().Devices))
	for {
		cluster, err := r.Next()
		if err != nil {
			if _, again := r.Next(); again != err {
				t.Fatalf("after %v came %v", err, again)
			}
			if err == io.EOF {
				err = nil
				for i := range contents {
					if r.Size(i) <= 1<<24 && int64(len(contents[i])) != r.Size(i) {
						t.Fatalf("device %d has %d bytes, want %d", i, len(contents[i]), r.Size(i))
					}
				}
			}
			return r.Header(), contents, err
		}
		device := r.Header().Devices[cluster.Device]
		end := cluster.Offset + cluster.Length
		if cluster.Offset%ClusterSize != 0 || cluster.Length < 1 || cluster.Length > ClusterSize ||
			(cluster.Data != nil && int64(len(cluster.Data)) != cluster.Length) || (!device.IsState() && end > device.Size) {
			t.Fatalf("cluster at %d with %d bytes of device %q with %d", cluster.Offset, cluster.Length, device.Name, device.Size)
		}
		if end > 1<<24 {
			continue // the fuzzer's archives of zeros: nothing to compare
		}
		if missing := end - int64(len(contents[cluster.Device])); missing > 0 {
			contents[cluster.Device] = append(contents[cluster.Device], make([]byte, missing)...)
		}
		if cluster.Data != nil {
			copy(contents[cluster.Device][cluster.Offset:], cluster.Data)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	archive, contents := testArchive()
	orders := map[string]iter.Seq[Slot]{"default": nil, "sequential": archive.Sequential(), "interleaved": archive.Interleaved(),
		"shuffled": archive.Shuffled(1), "shuffled again": archive.Shuffled(2)}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			archive.Order = order
			header, got, err := read(t, bytes.NewReader(write(t, archive)))
			if err != nil {
				t.Fatal(err)
			}
			if header.UUID != archive.UUID || !header.Created.Equal(archive.Created) || len(header.Devices) != len(archive.Devices) {
				t.Errorf("header is %+v", header)
			}
			for i, config := range header.Configs {
				if config.Name != archive.Configs[i].Name || !bytes.Equal(config.Data, archive.Configs[i].Data) {
					t.Errorf("configuration %d is %q: %q", i, config.Name, config.Data)
				}
			}
			for i, device := range header.Devices {
				if device.Name != archive.Devices[i].Name || device.Size != archive.Devices[i].Size || int(device.ID) != i+1 {
					t.Errorf("device %d is %+v", i, device)
				}
				if !bytes.Equal(got[i], contents[i]) {
					t.Errorf("device %d differs", i)
				}
			}
		})
	}
}

// A size that is no multiple of 512 is rounded up by the writer, as the format demands it.
func TestRoundedSize(t *testing.T) {
	archive := &Archive{Devices: []DeviceContent{{Name: "d", Size: 513, Content: bytes.NewReader(bytes.Repeat([]byte{7}, 513))}}}
	_, got, err := read(t, bytes.NewReader(write(t, archive)))
	if err != nil || len(got[0]) != 1024 || got[0][512] != 7 || got[0][513] != 0 {
		t.Errorf("%d bytes, %v", len(got[0]), err)
	}
}

// The RAM state's size is where its last cluster ends, and clusters of it may be missing.
func TestState(t *testing.T) {
	content := bytes.Repeat([]byte{9}, 4*ClusterSize)
	archive := &Archive{Devices: []DeviceContent{{Name: StateDevice, Size: int64(len(content)), Content: bytes.NewReader(content)}}}
	archive.Order = func(yield func(Slot) bool) { _ = yield(Slot{0, 2}) && yield(Slot{0, 0}) }
	_, got, err := read(t, bytes.NewReader(write(t, archive)))
	if err != nil || len(got[0]) != 3*ClusterSize {
		t.Errorf("%d bytes, %v", len(got[0]), err)
	}
	// Clusters beyond the size that the header names are good, too.
	raw := write(t, archive)
	binary.BigEndian.PutUint64(raw[offDevices+deviceEntrySize+8:], 0)
	if _, got, err = read(t, bytes.NewReader(resum(raw))); err != nil || len(got[0]) != 3*ClusterSize {
		t.Errorf("%d bytes, %v", len(got[0]), err)
	}
	archive.Devices[0].Size = MaxStateSize + ClusterSize
	archive.Devices[0].Content = zeroContent{}
	archive.Order = func(yield func(Slot) bool) { yield(Slot{0, MaxStateSize / ClusterSize}) }
	if _, _, err = read(t, bytes.NewReader(write(t, archive))); !errors.Is(err, backup.ErrUnsupported) {
		t.Errorf("cluster at %d: %v", int64(MaxStateSize), err)
	}
}

type zeroContent struct{}

func (zeroContent) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// resum makes the header's MD5 right again after a test changed the header.
func resum(raw []byte) []byte {
	size := min(int(u32(raw, offHeaderSize)), len(raw))
	if size > offHeaderSum+16 {
		checksum := sum(raw[:size], offHeaderSum)
		copy(raw[offHeaderSum:], checksum[:])
	}
	return raw
}

// extents returns the offset of each extent of a sound archive.
func extents(raw []byte) []int {
	var offsets []int
	for at := int(u32(raw, offHeaderSize)); at < len(raw); {
		offsets = append(offsets, at)
		at += extentHeaderSize + BlockSize*int(binary.BigEndian.Uint16(raw[at+offBlockCount:]))
	}
	return offsets
}

func resumExtent(raw []byte, at int) []byte {
	header := raw[at : at+extentHeaderSize]
	checksum := sum(header, offExtentSum)
	copy(header[offExtentSum:], checksum[:])
	return raw
}
