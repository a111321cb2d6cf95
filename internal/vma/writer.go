package vma

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"math/rand/v2"
	"time"
)

// Archive is the content of an archive to be written: by demonstrations and tests, Ferry itself stores nothing in VMA.
type Archive struct {
	UUID [16]byte
	// Created in whole seconds; the zero time is written as the beginning of 1970.
	Created time.Time
	Configs []Config
	Devices []DeviceContent
	// Order lists what the extents' tables hold. It must give each cluster once to make a sound archive; anything
	// else makes one that a reader has to refuse. Nil means device after device.
	Order iter.Seq[Slot]
}

// DeviceContent is one device to be written. Its size is rounded up to 512 bytes, as the format wants it.
type DeviceContent struct {
	Name    string
	Size    int64
	Content io.ReaderAt
}

// Slot is an entry of an extent's table.
type Slot struct {
	// Device is an index into the archive's devices, or negative for an unused slot.
	Device int
	// Cluster is a number, ClusterSize bytes each.
	Cluster int64
}

// UnusedSlot is a table entry without a cluster. Real writers leave some.
var UnusedSlot = Slot{Device: -1}

func (d DeviceContent) rounded() int64 { return (d.Size + 511) / 512 * 512 }

func (d DeviceContent) clusters() int64 { return (d.rounded() + ClusterSize - 1) / ClusterSize }

// Sequential is all clusters, device after device, ascending.
func (a *Archive) Sequential() iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		for i, device := range a.Devices {
			for cluster := range device.clusters() {
				if !yield(Slot{i, cluster}) {
					return
				}
			}
		}
	}
}

// Interleaved is all clusters, one of each device in turn, ascending per device: about what a backup of an idle
// machine looks like.
func (a *Archive) Interleaved() iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		for cluster, more := int64(0), true; more; cluster++ {
			more = false
			for i, device := range a.Devices {
				if cluster >= device.clusters() {
					continue
				}
				if !yield(Slot{i, cluster}) {
					return
				}
				more = true
			}
		}
	}
}

// Shuffled is all clusters in an order drawn from seed, with unused slots between them: worse than any busy machine.
func (a *Archive) Shuffled(seed uint64) iter.Seq[Slot] {
	var slots []Slot
	for slot := range a.Sequential() {
		slots = append(slots, slot)
		if len(slots)%7 == 0 {
			slots = append(slots, UnusedSlot)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	return func(yield func(Slot) bool) {
		for _, slot := range slots {
			if !yield(slot) {
				return
			}
		}
	}
}

// WriteTo writes the archive and returns the number of bytes written.
func (a *Archive) WriteTo(w io.Writer) (int64, error) {
	header, err := a.header()
	if err != nil {
		return 0, err
	}
	writer := &extentWriter{out: w, archive: a}
	if err := writer.write(header); err != nil {
		return writer.written, err
	}
	order := a.Order
	if order == nil {
		order = a.Sequential()
	}
	for slot := range order {
		if err := writer.add(slot); err != nil {
			return writer.written, err
		}
	}
	return writer.written, writer.flush()
}

// header lays out names and configuration and puts the fixed part before them.
func (a *Archive) header() ([]byte, error) {
	if len(a.Configs) > tableEntries || len(a.Devices) > lastDeviceID {
		return nil, fmt.Errorf("vma: %d configurations and %d devices are more than %d and %d", len(a.Configs), len(a.Devices), tableEntries, lastDeviceID)
	}
	header := make([]byte, fixedHeaderSize)
	blobs := []byte{0}
	add := func(content []byte) uint32 {
		offset := uint32(len(blobs))
		blobs = binary.LittleEndian.AppendUint16(blobs, uint16(len(content)))
		blobs = append(blobs, content...)
		return offset
	}
	for i, config := range a.Configs {
		if len(config.Data) > 0xffff || len(config.Name) > maxNameLength {
			return nil, fmt.Errorf("vma: configuration %q is too long", config.Name)
		}
		binary.BigEndian.PutUint32(header[offConfigNames+4*i:], add([]byte(config.Name+"\x00")))
		binary.BigEndian.PutUint32(header[offConfigData+4*i:], add(config.Data))
	}
	for i, device := range a.Devices {
		if len(device.Name) > maxNameLength || device.Size < 0 || device.clusters() > 1<<32 {
			return nil, fmt.Errorf("vma: device %q with %d bytes is too long", device.Name, device.Size)
		}
		entry := header[offDevices+deviceEntrySize*(i+1):]
		binary.BigEndian.PutUint32(entry, add([]byte(device.Name+"\x00")))
		binary.BigEndian.PutUint64(entry[8:], uint64(device.rounded()))
	}
	copy(header, headerMagic)
	binary.BigEndian.PutUint32(header[offVersion:], version)
	copy(header[offUUID:], a.UUID[:])
	if !a.Created.IsZero() {
		binary.BigEndian.PutUint64(header[offCreated:], uint64(a.Created.Unix()))
	}
	binary.BigEndian.PutUint32(header[offBlobOffset:], fixedHeaderSize)
	binary.BigEndian.PutUint32(header[offBlobSize:], uint32(len(blobs)))
	// Only the header's size is rounded, the blobs' is not.
	size := (fixedHeaderSize + len(blobs) + 511) / 512 * 512
	binary.BigEndian.PutUint32(header[offHeaderSize:], uint32(size))
	header = append(header, blobs...)
	header = append(header, make([]byte, size-len(header))...)
	checksum := sum(header, offHeaderSum)
	copy(header[offHeaderSum:], checksum[:])
	return header, nil
}

// extentWriter collects clusters until a table is full: the table lies before the blocks and has their number.
type extentWriter struct {
	out     io.Writer
	archive *Archive
	slots   [slotsPerExtent]uint64
	used    int
	blocks  []byte
	cluster [ClusterSize]byte
	written int64
}

var zeroBlock [BlockSize]byte

func (w *extentWriter) add(slot Slot) error {
	if slot.Device >= 0 {
		device := w.archive.Devices[slot.Device]
		offset := slot.Cluster * ClusterSize
		length := max(0, min(ClusterSize, device.Size-offset))
		clear(w.cluster[length:])
		if n, err := device.Content.ReadAt(w.cluster[:length], offset); int64(n) < length {
			return fmt.Errorf("vma: read %s at %d: %w", device.Name, offset, err)
		}
		mask := uint64(0)
		for i := range blocksPerCluster {
			block := w.cluster[i*BlockSize:][:BlockSize]
			if !bytes.Equal(block, zeroBlock[:]) {
				mask |= 1 << i
				w.blocks = append(w.blocks, block...)
			}
		}
		w.slots[w.used] = mask<<48 | uint64(slot.Device+1)<<32 | uint64(uint32(slot.Cluster))
	}
	w.used++
	if w.used == slotsPerExtent {
		return w.flush()
	}
	return nil
}

func (w *extentWriter) flush() error {
	if w.used == 0 {
		return nil
	}
	var header [extentHeaderSize]byte
	copy(header[:], extentMagic)
	count := 0
	for i, slot := range w.slots {
		count += bits.OnesCount16(slotMask(slot))
		binary.BigEndian.PutUint64(header[offSlots+8*i:], slot)
	}
	binary.BigEndian.PutUint16(header[offBlockCount:], uint16(count))
	copy(header[offExtentUUID:], w.archive.UUID[:])
	checksum := sum(header[:], offExtentSum)
	copy(header[offExtentSum:], checksum[:])
	if err := w.write(header[:]); err != nil {
		return err
	}
	err := w.write(w.blocks)
	w.slots, w.used, w.blocks = [slotsPerExtent]uint64{}, 0, w.blocks[:0]
	return err
}

func (w *extentWriter) write(p []byte) error {
	n, err := w.out.Write(p)
	w.written += int64(n)
	return err
}
