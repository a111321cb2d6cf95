package qcow2

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"
)

// Limits on the snapshot table. QEMU allows more; a table of this size has thousands of snapshots.
const (
	maxSnapshots     = 65536
	maxSnapshotBytes = 256 << 10
	snapshotEntry    = 40
)

// Snapshot is an internal snapshot: an older state of the disk in the same file. A saved state of the running
// machine's memory, which QEMU keeps behind the disk, is not read.
type Snapshot struct {
	// ID and Name are as the image has them; they may be hostile bytes.
	ID, Name string
	// Created by the clock of the host that made it, in nanoseconds.
	Created time.Time
	// Size of the disk in bytes when the snapshot was taken.
	Size int64

	l1Offset  int64
	l1Entries uint32
}

// Snapshots lists the file's internal snapshots in the table's order. At most 256 KiB of the file are read. Errors
// wrap backup.ErrBroken; the active state can be read even then.
func (i *Image) Snapshots() ([]Snapshot, error) {
	f := i.file
	f.snapshotOnce.Do(func() { f.snapshots, f.snapshotError = f.readSnapshots() })
	return f.snapshots, f.snapshotError
}

func (f *file) readSnapshots() ([]Snapshot, error) {
	count := f.header.SnapshotCount
	if count == 0 {
		return nil, nil
	}
	offset := f.header.snapshotsOffset
	if count > maxSnapshots || offset >= f.size || int64(count)*snapshotEntry > f.size-offset {
		return nil, brokenf("table of %d snapshots at %d does not fit into the file's %d bytes", count, offset, f.size)
	}
	length := min(f.size-offset, maxSnapshotBytes)
	table := bufio.NewReaderSize(io.NewSectionReader(f.reader, offset, length), 4096)
	var snapshots []Snapshot
	for k := range count {
		snapshot, err := f.readSnapshot(table)
		if err != nil {
			return nil, brokenf("snapshot %d of %d: %v", k+1, count, err)
		}
		snapshots = append(snapshots, snapshot)
	}
	return snapshots, nil
}

// readSnapshot reads one entry: fixed fields, extra data, id, name, padding to eight bytes.
func (f *file) readSnapshot(table *bufio.Reader) (Snapshot, error) {
	var fixed [snapshotEntry]byte
	if _, err := io.ReadFull(table, fixed[:]); err != nil {
		return Snapshot{}, err
	}
	be := binary.BigEndian
	s := Snapshot{
		l1Entries: be.Uint32(fixed[8:]),
		Created:   time.Unix(int64(be.Uint32(fixed[16:])), int64(be.Uint32(fixed[20:])%1e9)).UTC(),
		Size:      f.header.Size,
	}
	l1 := be.Uint64(fixed[0:])
	idLength, nameLength, extra := int(be.Uint16(fixed[12:])), int(be.Uint16(fixed[14:])), be.Uint32(fixed[36:])
	if l1 > math.MaxInt64 || extra > 1024 {
		return s, fmt.Errorf("table at %d, %d bytes of extra data", l1, extra)
	}
	s.l1Offset = int64(l1)
	padding := -(snapshotEntry + int(extra) + idLength + nameLength) & 7
	rest := make([]byte, int(extra)+idLength+nameLength+padding)
	if n, err := io.ReadFull(table, rest); err != nil && n < len(rest)-padding {
		return s, err
	}
	if extra >= 16 {
		size := be.Uint64(rest[8:])
		if size > math.MaxInt64-1<<22 {
			return s, fmt.Errorf("disk of %d bytes", size)
		}
		s.Size = int64(size)
	}
	s.ID = string(rest[extra : int(extra)+idLength])
	s.Name = string(rest[int(extra)+idLength : int(extra)+idLength+nameLength])
	return s, nil
}

// Snapshot opens internal snapshot number n of Snapshots for reading. It shares the file and its caches with the
// image it comes from, and has its backing.
func (i *Image) Snapshot(n int) (*Image, error) {
	snapshots, err := i.Snapshots()
	if err != nil {
		return nil, err
	}
	if n < 0 || n >= len(snapshots) {
		return nil, fmt.Errorf("qcow2: snapshot %d of %d", n, len(snapshots))
	}
	s := snapshots[n]
	state := &Image{file: i.file, size: s.Size, l1Offset: s.l1Offset, l1Entries: s.l1Entries, backing: i.backing}
	if err := state.checkL1(); err != nil {
		return nil, err
	}
	return state, nil
}
