// Package vma reads and writes the VMA container, in which Proxmox's vzdump keeps the disks of a virtual machine.
//
// An archive is a header (devices, configuration files) and extents until end of file. An extent is a table of up to
// 59 clusters and the stored blocks of these clusters. Clusters of all devices interleave in any order, so an archive
// is read once, front to back, and its reader hands out clusters as they come.
//
// The container has MD5 sums over its header and its tables, and none over data. What else can be checked is checked:
// every device must get each of its clusters exactly once. Nothing here knows of compression, file names or Proxmox;
// that is package vzdump's business. The layout is described in docs/sources/vzdump.md.
//
// Archives are hostile input to a [Reader]. Its memory is bounded by constants of this package, whatever the archive says.
package vma

import (
	"crypto/md5"
	"encoding/binary"
	"time"
)

const (
	// BlockSize in bytes: a cluster's blocks of zeros are not stored.
	BlockSize = 4096
	// ClusterSize in bytes: what one entry of an extent's table stands for. The last one of a device may be shorter.
	ClusterSize = 65536
	// MaxHeaderSize in bytes that a Reader accepts. Real headers have about 13 KiB; one configuration file may have 64 KiB.
	MaxHeaderSize = 512 << 10
	// MaxTotalSize in bytes of all devices of an archive that a Reader accepts; it bounds the memory for remembering
	// which clusters came (128 MiB at worst, a few pages for archives whose clusters ascend).
	MaxTotalSize = 64 << 40
	// MaxStateSize in bytes of the RAM state, whose size the header does not say.
	MaxStateSize = 16 << 40
	// StateDevice is the name of the device that is a stream of RAM state: its size shows only at the end.
	StateDevice = "vmstate"
)

// The fixed part of the layout. All numbers are big endian, except the sizes of blobs, which are little endian.
const (
	headerMagic  = "VMA\x00"
	extentMagic  = "VMAE"
	version      = 1
	tableEntries = 256

	offVersion      = 4
	offUUID         = 8
	offCreated      = 24
	offHeaderSum    = 32
	offBlobOffset   = 48
	offBlobSize     = 52
	offHeaderSize   = 56
	offConfigNames  = 2044
	offConfigData   = 3068
	offDevices      = 4096
	deviceEntrySize = 32
	fixedHeaderSize = offDevices + tableEntries*deviceEntrySize // 12288

	// lastDeviceID is the highest id a device can have; 0 and 255 are never used.
	lastDeviceID = 254

	extentHeaderSize = 512
	offBlockCount    = 6
	offExtentUUID    = 8
	offExtentSum     = 24
	offSlots         = 40
	slotsPerExtent   = 59
	blocksPerCluster = ClusterSize / BlockSize

	maxNameLength = 255
	// maxCreated is the last second of the year 9999: later times cannot be written in JSON.
	maxCreated = 253402300799
)

// Header is what an archive says about itself before its data.
type Header struct {
	// UUID is made anew for each backup.
	UUID [16]byte
	// Created is when the backup began, in whole seconds UTC.
	Created time.Time
	// Configs are the machine's configuration files, such as qemu-server.conf.
	Configs []Config
	// Devices in the order of their ids. Names are distinct.
	Devices []Device
}

// Config is a configuration file that an archive carries: at most 65535 bytes.
type Config struct {
	Name string
	Data []byte
}

// Device is one disk, or the RAM state.
type Device struct {
	// ID from 1 to 254, as extents refer to it.
	ID uint8
	// Name as QEMU has it, such as drive-scsi0. 1 to 255 bytes, no NUL; otherwise any bytes.
	Name string
	// Size in bytes; of the RAM state not to be relied on.
	Size int64
}

// IsState is true for the device whose size is not known before the archive has been read.
func (d Device) IsState() bool { return d.Name == StateDevice }

// clusters the device has; its size is known to be in bounds.
func (d Device) clusters() int64 { return (d.Size + ClusterSize - 1) / ClusterSize }

// sum computes the MD5 that the format has over a header, with the field for the sum itself taken as zeros.
// MD5 is the format's choice; it guards against accidents only.
func sum(header []byte, field int) [md5.Size]byte {
	stored := header[field : field+md5.Size]
	kept := [md5.Size]byte(stored)
	clear(stored)
	result := md5.Sum(header)
	copy(stored, kept[:])
	return result
}

func u32(b []byte, offset int) uint32 { return binary.BigEndian.Uint32(b[offset:]) }
func u64(b []byte, offset int) uint64 { return binary.BigEndian.Uint64(b[offset:]) }
