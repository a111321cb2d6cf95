// Package qcow2 reads QEMU's copy-on-write disk images, version 2 and 3, and writes nothing.
//
// The room is for the file format alone: headers, mapping tables, compressed clusters, internal snapshots. It never
// opens a file: an image is read through the io.ReaderAt it was opened with, and a backing file is whatever the caller
// sets with [Image.SetBacking] after having judged the name in the header. Facts come from QEMU's published format
// description (docs/interop/qcow2) and from images made by qemu-img.
//
// Images are hostile input. Every table is bounded by the file's size and by fixed limits before memory is taken for
// it, tables that overlap or point at themselves are read as what they say and lead to no loop, and what lies beyond
// the file's end is an error that wraps backup.ErrBroken and names the guest offset.
//
// An [Image] may be read by several goroutines at once. Mapping tables and decompressed clusters are kept in two small
// caches per file; buffers and decoders are pooled, so that reads in steady state take no memory.
package qcow2

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"ferry/internal/backup"
)

// Limits on what an image may make its reader hold.
const (
	// maxL1Bytes is QEMU's own limit for a first-level table.
	maxL1Bytes = 32 << 20
	// maxSliceBytes is how much of a table is read and cached at a time.
	maxSliceBytes = 16 << 10
	// tableCacheBytes and clusterCacheBytes bound the caches of one file.
	tableCacheBytes   = 1 << 20
	clusterCacheBytes = 4 << 20
)

// Backing is what an image shows where it has no data of its own: another image, or raw bytes.
type Backing interface {
	io.ReaderAt
	// Size in bytes. The image reads as zeros beyond it.
	Size() int64
}

// Image is one state of a disk in a qcow2 file: the active one, or an internal snapshot.
type Image struct {
	file *file
	size int64
	// l1Offset and l1Entries say where the state's first-level table is.
	l1Offset  int64
	l1Entries uint32
	backing   Backing
}

// file is what all states in one qcow2 file share.
type file struct {
	reader   io.ReaderAt
	size     int64
	header   Header
	tables   *cache
	clusters *cache
	// snapshots is read when first asked for.
	snapshotOnce  sync.Once
	snapshots     []Snapshot
	snapshotError error
}

// Open reads the header of an image of size bytes. Errors wrap backup.ErrBroken, backup.ErrUnsupported or
// backup.ErrEncrypted, or are the reader's own. Mapping tables are read when they are needed.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	header, err := ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	if err := header.Readable(); err != nil {
		return nil, err
	}
	f := &file{reader: r, size: size, header: header}
	f.tables = newCache(f.sliceBytes(), tableCacheBytes)
	f.clusters = newCache(int(header.ClusterSize), clusterCacheBytes)
	image := &Image{file: f, size: header.Size, l1Offset: header.l1Offset, l1Entries: header.l1Entries}
	if err := image.checkL1(); err != nil {
		return nil, err
	}
	return image, nil
}

// Close gives back the memory of the file's caches, which all its states share. None of them may be in use, or be used again.
// The reader stays its owner's.
func (i *Image) Close() {
	i.file.tables.close()
	i.file.clusters.close()
}

// Header returns what the file's header says.
func (i *Image) Header() Header { return i.file.header }

// Size of this state of the disk in bytes.
func (i *Image) Size() int64 { return i.size }

// SetBacking sets what unallocated ranges show. It must be called before the first read of an image whose header
// names a backing file; without it such ranges cannot be read. A nil backing means zeros.
func (i *Image) SetBacking(backing Backing) {
	if backing == nil {
		backing = nothing{}
	}
	i.backing = backing
}

// nothing is a backing without content.
type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (nothing) Size() int64                       { return 0 }

// entryBytes is the size of one second-level entry.
func (f *file) entryBytes() int64 {
	if f.header.ExtendedL2 {
		return 16
	}
	return 8
}

// sliceBytes is how much of a table is read at a time.
func (f *file) sliceBytes() int { return int(min(f.header.ClusterSize, maxSliceBytes)) }

// covered is how many bytes of the disk one second-level table maps.
func (f *file) covered() int64 {
	return f.header.ClusterSize / f.entryBytes() * f.header.ClusterSize
}

// brokenf makes an error that wraps backup.ErrBroken.
func brokenf(format string, args ...any) error {
	return fmt.Errorf("qcow2: "+format+": %w", append(args, backup.ErrBroken)...)
}

// brokenAt is brokenf for trouble with one place of the disk.
func brokenAt(guest int64, format string, args ...any) error {
	return fmt.Errorf("qcow2: at offset %d of the disk: "+format+": %w",
		append(append([]any{guest}, args...), backup.ErrBroken)...)
}

// readFull reads all of p at offset. The range was inside the file when it was opened, so an end of file means that
// the file has shrunk since.
func (f *file) readFull(p []byte, offset int64) error {
	n, err := f.reader.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("qcow2: file ends at %d, before its %d bytes: %w", offset+int64(n), f.size, backup.ErrChanged)
	}
	return err
}
