package qcow2

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// bytesRead counts what is read of it.
type bytesRead struct {
	*bytes.Reader
	count int
}

func (r *bytesRead) ReadAt(p []byte, offset int64) (int, error) {
	r.count += len(p)
	return r.Reader.ReadAt(p, offset)
}

// Where the caches of other images have taken all room, a table is still read once.
func TestCheckWithoutRoom(t *testing.T) {
	const entries, cluster = 64 << 10, 64 << 10
	raw := make([]byte, cluster+8*entries)
	copy(raw, Magic)
	binary.BigEndian.PutUint32(raw[4:], 3)
	binary.BigEndian.PutUint32(raw[20:], 16)
	binary.BigEndian.PutUint64(raw[24:], entries*cluster/8*cluster)
	binary.BigEndian.PutUint32(raw[36:], entries)
	binary.BigEndian.PutUint64(raw[40:], cluster)
	binary.BigEndian.PutUint32(raw[96:], 4)
	binary.BigEndian.PutUint32(raw[100:], 104)
	taken := allCaches.limit - allCaches.used.Load()
	allCaches.used.Add(taken)
	defer allCaches.used.Add(-taken)
	r := &bytesRead{Reader: bytes.NewReader(raw)}
	image, err := Open(r, int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	r.count = 0
	if err := image.Check(8 * entries); err != nil || r.count != 8*entries {
		t.Errorf("%d bytes of a table of %d were read, %v", r.count, 8*entries, err)
	}
}
