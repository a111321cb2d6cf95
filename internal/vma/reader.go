package vma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"ferry/internal/backup"
)

// maxIdleExtents is how many extents without any cluster an archive may have. Real writers make none; without a limit
// a small compressed file could keep a reader busy without end.
const maxIdleExtents = 16

// Cluster is a piece of a device, at most ClusterSize bytes.
type Cluster struct {
	// Device is an index into the header's devices.
	Device int
	// Offset in the device, a multiple of ClusterSize.
	Offset int64
	// Length in bytes: ClusterSize, or less at the end of a device.
	Length int64
	// Data is the content, valid until the next call of Next; nil if the cluster is all zeros.
	Data []byte
}

// Reader reads an archive front to back. It is used by one goroutine.
type Reader struct {
	in       io.Reader
	header   *Header
	position int64 // of the next byte of the archive
	states   []deviceState
	byID     [tableEntries]uint8 // device id -> 1 + index in states
	slots    [slotsPerExtent]uint64
	next     int // slot to hand out next
	idle     int // extents without any cluster so far
	extent   [extentHeaderSize]byte
	cluster  [ClusterSize]byte
	failed   error
	// Admit, if set, is called once before more than usual is remembered of which clusters came: 4 MiB, which is clusters all over
	// 2 TiB. Its error ends reading.
	Admit func() error
	// open counts the pages that all devices' clusters take.
	open int
}

// usualPages that clusters take.
const usualPages = 1024

type deviceState struct {
	seen clusterSet
	end  int64 // highest end of a cluster so far, in bytes
}

// NewReader reads the header. Errors are those of ReadHeader. Small reads of in should be cheap.
func NewReader(in io.Reader) (*Reader, error) {
	header, size, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	r := &Reader{in: in, header: header, position: size, states: make([]deviceState, len(header.Devices)), next: slotsPerExtent}
	for i, device := range header.Devices {
		r.byID[device.ID] = uint8(i + 1)
	}
	return r, nil
}

// Header of the archive. It is not to be changed.
func (r *Reader) Header() *Header { return r.header }

// Size of a device in bytes, given by its index. That of the RAM state is final only after Next returned io.EOF.
func (r *Reader) Size(device int) int64 {
	if r.header.Devices[device].IsState() {
		return r.states[device].end
	}
	return r.header.Devices[device].Size
}

// Next returns the next cluster in the archive's own order. It returns io.EOF when the archive is at its end, was
// sound, and gave every cluster of every device. Other errors wrap backup.ErrBroken (backup.ErrUnsupported for RAM
// state beyond MaxStateSize) and name the device and the offset in it where there is one; errors of the underlying
// reader are passed on. After an error the reader is done.
func (r *Reader) Next() (Cluster, error) {
	if r.failed != nil {
		return Cluster{}, r.failed
	}
	cluster, err := r.advance()
	r.failed = err
	return cluster, err
}

func (r *Reader) advance() (Cluster, error) {
	for {
		for r.next < slotsPerExtent {
			slot := r.slots[r.next]
			r.next++
			if slotDevice(slot) != 0 {
				return r.read(slot)
			}
		}
		err := r.readExtent()
		if err == io.EOF {
			err = r.complete()
		}
		if err != nil {
			return Cluster{}, err
		}
	}
}

// A slot of an extent's table is mask<<48 | device id<<32 | cluster number; bits 40 to 47 are reserved.

func slotMask(slot uint64) uint16    { return uint16(slot >> 48) }
func slotReserved(slot uint64) uint8 { return uint8(slot >> 40) }
func slotDevice(slot uint64) uint8   { return uint8(slot >> 32) }
func slotCluster(slot uint64) int64  { return int64(uint32(slot)) }

// readExtent reads the table of the next extent. io.EOF, unwrapped, says that the archive ended where it may.
func (r *Reader) readExtent() error {
	start := r.position
	n, err := io.ReadFull(r.in, r.extent[:])
	r.position += int64(n)
	switch {
	case err == io.EOF:
		return io.EOF
	case err != nil:
		return r.cut(err, "extent header")
	}
	header := r.extent[:]
	if string(header[:len(extentMagic)]) != extentMagic {
		return brokenAt(start, "no extent begins here; this is garbage or something is missing before")
	}
	if want := sum(header, offExtentSum); !bytes.Equal(header[offExtentSum:offExtentSum+len(want)], want[:]) {
		return brokenAt(start, "the extent header's MD5 sum is wrong")
	}
	if !bytes.Equal(header[offExtentUUID:offExtentUUID+16], r.header.UUID[:]) {
		return brokenAt(start, "the extent belongs to another archive: its UUID is not the header's")
	}
	blocks, used := 0, 0
	for i := range r.slots {
		slot := u64(header, offSlots+8*i)
		r.slots[i] = slot
		device := slotDevice(slot)
		switch {
		case slotReserved(slot) != 0:
			return brokenAt(start, "entry %d of the extent uses reserved bits", i)
		case device == 0 && slotMask(slot) != 0:
			return brokenAt(start, "entry %d of the extent has blocks and no device", i)
		case device != 0 && r.byID[device] == 0:
			return brokenAt(start, "entry %d of the extent is for device id %d, which the header does not have", i, device)
		case device != 0:
			used++
		}
		blocks += bits.OnesCount16(slotMask(slot))
	}
	if count := int(binary.BigEndian.Uint16(header[offBlockCount:])); count != blocks {
		return brokenAt(start, "the extent says %d blocks and its entries %d", count, blocks)
	}
	if used == 0 {
		if r.idle++; r.idle > maxIdleExtents {
			return brokenAt(start, "more than %d extents hold nothing", maxIdleExtents)
		}
	}
	r.next = 0
	return nil
}

// read checks one used slot and reads its blocks.
func (r *Reader) read(slot uint64) (Cluster, error) {
	index := int(r.byID[slotDevice(slot)]) - 1
	device, state := r.header.Devices[index], &r.states[index]
	number := slotCluster(slot)
	offset := number * ClusterSize
	cluster := Cluster{Device: index, Offset: offset, Length: ClusterSize}
	switch {
	case device.IsState():
		if offset+ClusterSize > MaxStateSize {
			err := fmt.Errorf("%w: vma with more than %d TiB of RAM state", backup.ErrUnsupported, int64(MaxStateSize)>>40)
			return cluster, &backup.Error{Object: device.Name, Offset: offset, Err: err}
		}
	case number >= device.clusters():
		return cluster, r.brokenDevice(device, offset, "a cluster beyond the device's end at %d", device.Size)
	default:
		cluster.Length = min(ClusterSize, device.Size-offset)
	}
	r.open -= state.seen.open
	if !state.seen.add(number) {
		return cluster, r.brokenDevice(device, offset, "a cluster that came before")
	}
	if r.open += state.seen.open; r.open > usualPages && r.Admit != nil {
		admit := r.Admit
		r.Admit = nil
		if err := admit(); err != nil {
			return cluster, err
		}
	}
	state.end = max(state.end, offset+cluster.Length)
	if mask := slotMask(slot); mask != 0 {
		if err := r.fill(mask); err != nil {
			return cluster, &backup.Error{Object: device.Name, Offset: offset, Err: err}
		}
		cluster.Data = r.cluster[:cluster.Length]
	}
	return cluster, nil
}

// fill reads the blocks whose bits are set, least significant first, and clears the others.
func (r *Reader) fill(mask uint16) error {
	for block := 0; block < blocksPerCluster; {
		rest := mask >> block
		run := min(bits.TrailingZeros16(rest), blocksPerCluster-block)
		clear(r.cluster[block*BlockSize : (block+run)*BlockSize])
		block += run
		run = bits.TrailingZeros16(^(rest >> run))
		run = min(run, blocksPerCluster-block)
		n, err := io.ReadFull(r.in, r.cluster[block*BlockSize:(block+run)*BlockSize])
		r.position += int64(n)
		if err != nil {
			return r.cut(err, "extent's blocks")
		}
		block += run
	}
	return nil
}

// complete is asked at the archive's end: io.EOF if every device had all its clusters.
func (r *Reader) complete() error {
	for i, device := range r.header.Devices {
		if device.IsState() {
			continue
		}
		if missing := device.clusters() - r.states[i].seen.count; missing > 0 {
			return r.brokenDevice(device, r.states[i].seen.firstMissing()*ClusterSize,
				"the archive ends and %d of %d clusters are missing, the first one here", missing, device.clusters())
		}
	}
	return io.EOF
}

func (r *Reader) brokenDevice(device Device, offset int64, format string, args ...any) error {
	return &backup.Error{Object: device.Name, Offset: offset, Err: brokenAt(r.position, format, args...)}
}

func brokenAt(position int64, format string, args ...any) error {
	return fmt.Errorf("%w: vma, byte %d: %s", backup.ErrBroken, position, fmt.Sprintf(format, args...))
}

// cut turns an end of file at a place where there must be more into a broken archive.
func (r *Reader) cut(err error, inside string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return brokenAt(r.position, "the archive ends inside an %s", inside)
	}
	return fmt.Errorf("vma, byte %d: %w", r.position, err)
}
