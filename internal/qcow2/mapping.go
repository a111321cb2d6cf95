package qcow2

import (
	"encoding/binary"
	"math/bits"
)

// Bits of table entries.
const (
	offsetMask     = 0x00fffffffffffe00
	l2Compressed   = 1 << 62
	l2Zero         = 1 << 0
	subclusters    = 32
	compressedUnit = 512
)

// mapped is the kind of a mapping.
type mapped uint8

const (
	mappedNothing mapped = iota
	mappedZero
	mappedData
	mappedCompressed
)

// mapping is a range of the disk and where it is in the file.
type mapping struct {
	kind mapped
	// length in bytes of the disk, from the offset that was asked for.
	length int64
	// host is the offset in the file of data, or of a compressed cluster.
	host int64
	// packed is the compressed cluster's length in the file in bytes, at most; descriptor is the entry that says so.
	packed     int64
	descriptor uint64
}

// checkL1 judges the state's first-level table by its place and length, without reading it.
func (i *Image) checkL1() error {
	need := i.needed()
	switch {
	case need*8 > maxL1Bytes || int64(i.l1Entries)*8 > maxL1Bytes:
		return brokenf("disk of %d bytes with %d first-level entries is more than a table of %d bytes can hold", i.size, i.l1Entries, maxL1Bytes)
	case int64(i.l1Entries) < need:
		return brokenf("first-level table has %d entries, the disk needs %d", i.l1Entries, need)
	case need > 0 && (i.l1Offset%i.file.header.ClusterSize != 0 || i.l1Offset == 0):
		return brokenf("first-level table at %d is not at a cluster", i.l1Offset)
	case need > 0 && (i.l1Offset > i.file.size || need*8 > i.file.size-i.l1Offset):
		return brokenf("first-level table at %d ends beyond the file's %d bytes", i.l1Offset, i.file.size)
	}
	return nil
}

// perPiece is how many entries of the first-level table a piece has.
func (i *Image) perPiece() int64 { return int64(i.file.tables.blockSize) / 8 }

// piece returns the piece of the first-level table that begins with entry k. The table is read in the pieces that are needed: it can
// have 32 MiB, and a disk a chain of many images.
func (i *Image) piece(k int64) (*cached, error) {
	f := i.file
	offset := i.l1Offset + k*8
	// Pieces of this table are padded at their end, others must be whole. All begin at even offsets.
	key := uint64(offset) | 1
	block := f.tables.get(key)
	if block == nil {
		block = f.tables.blank(key)
		have := min(int64(f.tables.blockSize), f.size-offset)
		clear(block.data[have:])
		if err := f.readFull(block.data[:have], offset); err != nil {
			f.tables.release(block)
			return nil, err
		}
		f.tables.put(block)
	}
	return block, nil
}

// entry returns entry k of the first-level table.
func (i *Image) entry(k int64) (uint64, error) {
	within := k % i.perPiece()
	block, err := i.piece(k - within)
	if err != nil {
		return 0, err
	}
	defer i.file.tables.release(block)
	return binary.BigEndian.Uint64(block.data[within*8:]), nil
}

// needed is how many entries of the first-level table the disk needs.
func (i *Image) needed() int64 { return (i.size + i.file.covered() - 1) / i.file.covered() }

// Check reads the first-level table, if it has at most limit bytes, and returns an error that wraps backup.ErrBroken
// if a second-level table lies outside the file: what an image whose copy was cut short looks like.
func (i *Image) Check(limit int64) error {
	if i.needed()*8 > limit {
		return nil
	}
	for k := int64(0); k < i.needed(); k += i.perPiece() {
		if err := i.checkPiece(k); err != nil {
			return err
		}
	}
	return nil
}

// checkPiece reads its piece once, also where the caches have no room.
func (i *Image) checkPiece(first int64) error {
	block, err := i.piece(first)
	if err != nil {
		return err
	}
	defer i.file.tables.release(block)
	for k := first; k < min(first+i.perPiece(), i.needed()); k++ {
		if _, err := i.tableOffset(binary.BigEndian.Uint64(block.data[(k-first)*8:]), k*i.file.covered()); err != nil {
			return err
		}
	}
	return nil
}

// tableOffset is where the second-level table of a first-level entry is; 0 if there is none.
func (i *Image) tableOffset(entry uint64, guest int64) (int64, error) {
	offset := int64(entry & offsetMask)
	switch {
	case offset&(i.file.header.ClusterSize-1) != 0:
		return 0, brokenAt(guest, "second-level table at %d is not at a cluster", offset)
	case offset >= i.file.size:
		return 0, brokenAt(guest, "second-level table at %d lies beyond the file's %d bytes", offset, i.file.size)
	}
	return offset, nil
}

// slice returns the pinned part of a second-level table that begins at offset in the file.
func (f *file) slice(offset, guest int64) (*cached, error) {
	if block := f.tables.get(uint64(offset)); block != nil {
		return block, nil
	}
	if f.size-offset < int64(f.tables.blockSize) {
		return nil, brokenAt(guest, "second-level table at %d ends beyond the file's %d bytes", offset, f.size)
	}
	block := f.tables.blank(uint64(offset))
	if err := f.readFull(block.data, offset); err != nil {
		f.tables.release(block)
		return nil, err
	}
	f.tables.put(block)
	return block, nil
}

// locate maps the disk from offset for at most limit bytes: it returns the longest range of one kind, contiguous in
// the file, that one slice of a table shows. offset and limit are within the disk; limit is not 0.
func (i *Image) locate(offset, limit int64) (mapping, error) {
	f := i.file
	covered := f.covered()
	k := offset / covered
	limit = min(limit, (k+1)*covered-offset)
	entry, err := i.entry(k)
	if err != nil {
		return mapping{}, err
	}
	tableAt, err := i.tableOffset(entry, offset)
	if err != nil {
		return mapping{}, err
	}
	if tableAt == 0 {
		return mapping{kind: mappedNothing, length: limit}, nil
	}
	perSlice := int64(f.tables.blockSize) / f.entryBytes()
	index := offset % covered >> f.header.clusterBits
	within := offset & (f.header.ClusterSize - 1)
	// The part of the disk that the slice maps ends here, counted from offset.
	limit = min(limit, (perSlice-index%perSlice)<<f.header.clusterBits-within)
	block, err := f.slice(tableAt+index/perSlice*int64(f.tables.blockSize), offset)
	if err != nil {
		return mapping{}, err
	}
	defer f.tables.release(block)
	entries := block.data[index%perSlice*f.entryBytes():]
	if f.header.ExtendedL2 {
		return f.locateSubclusters(entries, offset, limit)
	}
	return f.locateClusters(entries, offset, limit)
}

// locateClusters is locate in the entries that begin with offset's cluster.
func (f *file) locateClusters(entries []byte, offset, limit int64) (mapping, error) {
	size := f.header.ClusterSize
	within := offset & (size - 1)
	first, err := f.standard(binary.BigEndian.Uint64(entries), offset)
	if err != nil {
		return mapping{}, err
	}
	first.length = min(size-within, limit)
	if first.kind == mappedCompressed {
		return first, nil
	}
	base := first.host
	for first.length < limit {
		entries = entries[8:]
		next, err := f.standard(binary.BigEndian.Uint64(entries), offset+first.length)
		if err != nil || next.kind != first.kind {
			// A later entry's trouble is reported when it is asked for.
			break
		}
		if first.kind == mappedData && next.host != base+first.length+within {
			break
		}
		first.length = min(first.length+size, limit)
	}
	if first.kind == mappedData {
		first.host += within
		return first, f.inside(first, offset)
	}
	return first, nil
}

// standard reads one entry without subclusters.
func (f *file) standard(entry uint64, guest int64) (mapping, error) {
	host := int64(entry & offsetMask)
	switch {
	case entry&l2Compressed != 0:
		return f.compressed(entry), nil
	case entry&l2Zero != 0:
		if f.header.Version < 3 {
			return mapping{}, brokenAt(guest, "zero cluster in an image of version 2")
		}
		return mapping{kind: mappedZero}, nil
	case host == 0:
		return mapping{kind: mappedNothing}, nil
	case host&(f.header.ClusterSize-1) != 0:
		return mapping{}, brokenAt(guest, "data at %d is not at a cluster", host)
	}
	return mapping{kind: mappedData, host: host}, nil
}

// compressed reads the entry of a compressed cluster.
func (f *file) compressed(entry uint64) mapping {
	shift := 62 - (f.header.clusterBits - 8)
	host := int64(entry & (1<<shift - 1))
	// A count of further sectors follows: what is left of the first sector belongs to the cluster as well.
	sectors := int64(entry&(1<<62-1)>>shift) + 1
	return mapping{kind: mappedCompressed, host: host, packed: sectors*compressedUnit - host%compressedUnit, descriptor: entry & (1<<62 - 1)}
}

// locateSubclusters is locateClusters for entries of two words, the second with 32 allocation and 32 zero bits.
func (f *file) locateSubclusters(entries []byte, offset, limit int64) (mapping, error) {
	size, grain := f.header.ClusterSize, f.header.ClusterSize/subclusters
	var found mapping
	for found.length < limit {
		at := offset + found.length
		within := at & (size - 1)
		next, err := f.subclusterRun(binary.BigEndian.Uint64(entries), binary.BigEndian.Uint64(entries[8:]), uint(within/grain), at)
		if err != nil {
			if found.length > 0 {
				break
			}
			return mapping{}, err
		}
		next.length -= within % grain
		next.host += within
		if next.kind == mappedCompressed {
			next.host -= within
			next.length = size - within
		}
		if found.length == 0 {
			found = next
		} else if next.kind == found.kind && (next.kind != mappedData || next.host == found.host+found.length) {
			found.length += next.length
		} else {
			break
		}
		if found.kind == mappedCompressed {
			break
		}
		if (offset+found.length)&(size-1) == 0 {
			entries = entries[16:]
		}
	}
	found.length = min(found.length, limit)
	if found.kind == mappedData {
		return found, f.inside(found, offset)
	}
	return found, nil
}

// subclusterRun reads how many subclusters from the given one are of one kind. The host offset is the cluster's.
func (f *file) subclusterRun(entry, bitmap uint64, from uint, guest int64) (mapping, error) {
	if entry&l2Compressed != 0 {
		return f.compressed(entry), nil
	}
	host := int64(entry & offsetMask)
	allocated, zero := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case host&(f.header.ClusterSize-1) != 0:
		return mapping{}, brokenAt(guest, "data at %d is not at a cluster", host)
	case allocated&zero != 0:
		return mapping{}, brokenAt(guest, "subclusters that are both data and zeros")
	case host == 0 && allocated != 0:
		return mapping{}, brokenAt(guest, "subclusters with data but without a place in the file")
	}
	found := mapping{kind: mappedNothing, host: host}
	set := ^(allocated | zero)
	if zero>>from&1 != 0 {
		found.kind, set = mappedZero, zero
	} else if allocated>>from&1 != 0 {
		found.kind, set = mappedData, allocated
	}
	count := min(bits.TrailingZeros32(^(set >> from)), subclusters-int(from))
	found.length = int64(count) * (f.header.ClusterSize / subclusters)
	return found, nil
}

// inside refuses data that the file does not have.
func (f *file) inside(m mapping, guest int64) error {
	if m.host > f.size || m.length > f.size-m.host {
		return brokenAt(guest, "data at %d ends beyond the file's %d bytes", m.host, f.size)
	}
	return nil
}
