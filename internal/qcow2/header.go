package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"ferry/internal/backup"
)

// Sizes in bytes of the header, by version.
const (
	headerV2 = 72
	headerV3 = 104
	// headerRegion is how much of the first cluster is searched for header extensions. QEMU writes less than 1 KiB.
	headerRegion = 64 << 10
	// maxBackingName is the format's limit for the name of a backing file.
	maxBackingName = 1023
)

// Incompatible feature bits of version 3.
const (
	featureDirty        = 1 << 0
	featureCorrupt      = 1 << 1
	featureDataFile     = 1 << 2
	featureCompression  = 1 << 3
	featureExtendedL2   = 1 << 4
	knownIncompatible   = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
	extensionEnd        = 0
	extensionBackingFmt = 0xe2792aca
	extensionFeatures   = 0x6803f857
	extensionDataFile   = 0x44415441
)

// Values of the header's encryption field.
const (
	cryptNone = 0
	cryptAES  = 1
	cryptLUKS = 2
)

// Compression is how compressed clusters are packed.
type Compression uint8

// The compressions of the format.
const (
	// CompressionZlib is raw deflate, in spite of the name the format gives it.
	CompressionZlib Compression = 0
	CompressionZstd Compression = 1
)

// Magic is what a qcow2 file begins with.
const Magic = "QFI\xfb"

// Header is what an image says about itself.
type Header struct {
	// Version is 2 or 3 in an image that can be read.
	Version uint32
	// Size of the disk in bytes.
	Size int64
	// ClusterSize in bytes, a power of two from 512 to 2 MiB.
	ClusterSize int64
	// BackingName is the backing file as the image names it: a path, a URL, anything. Empty if it has none. It is
	// hostile input and must not be opened unexamined.
	BackingName string
	// BackingFormat is the backing file's format in QEMU's words ("raw", "qcow2"); empty if the image does not say.
	BackingFormat string
	// DataName is the external data file as the image names it, hostile like BackingName. Empty if it has none: a name
	// without the feature bit that says so is left over, and QEMU does not look at it either.
	DataName string
	// Dirty: the image was not closed properly. Reference counts may be stale, data is not.
	Dirty bool
	// Corrupt: QEMU found damage in the image and marked it. It can be read, but what it shows may be wrong.
	Corrupt bool
	// ExtendedL2: clusters have 32 subclusters.
	ExtendedL2 bool
	// Compression of compressed clusters.
	Compression Compression
	// SnapshotCount is the number of internal snapshots.
	SnapshotCount uint32

	encryption   uint32
	incompatible uint64
	// unknown names the incompatible features that this package does not know.
	unknown         []string
	clusterBits     uint
	l1Entries       uint32
	l1Offset        int64
	snapshotsOffset int64
}

// ReadHeader reads the header of an image of size bytes; it takes at most 65 KiB of the file. Headers of encrypted
// images and of images with unknown features are returned without error, see Header.Readable.
func ReadHeader(r io.ReaderAt, size int64) (Header, error) {
	var h Header
	if size < headerV2 {
		return h, brokenf("file of %d bytes is shorter than a header", size)
	}
	region := make([]byte, min(size, headerRegion))
	if n, err := r.ReadAt(region, 0); n < len(region) {
		return h, fmt.Errorf("qcow2: reading the header: %w", err)
	}
	if string(region[:4]) != Magic {
		return h, brokenf("does not begin as a qcow2 image")
	}
	be := binary.BigEndian
	h.Version = be.Uint32(region[4:])
	if h.Version != 2 && h.Version != 3 {
		return h, fmt.Errorf("qcow2: version %d: %w", h.Version, backup.ErrUnsupported)
	}
	h.clusterBits = uint(be.Uint32(region[20:]))
	if h.clusterBits < 9 || h.clusterBits > 21 {
		return h, brokenf("cluster size of 2^%d bytes is not between 2^9 and 2^21", h.clusterBits)
	}
	h.ClusterSize = 1 << h.clusterBits
	virtual := be.Uint64(region[24:])
	if virtual > math.MaxInt64-1<<22 {
		return h, brokenf("disk of %d bytes", virtual)
	}
	h.Size = int64(virtual)
	h.encryption = be.Uint32(region[32:])
	h.l1Entries = be.Uint32(region[36:])
	h.SnapshotCount = be.Uint32(region[60:])
	l1, snapshots := be.Uint64(region[40:]), be.Uint64(region[64:])
	if l1 > math.MaxInt64 || snapshots > math.MaxInt64 {
		return h, brokenf("header points beyond any file")
	}
	h.l1Offset, h.snapshotsOffset = int64(l1), int64(snapshots)
	length, err := h.parseFeatures(region)
	if err != nil {
		return h, err
	}
	region = region[:min(int64(len(region)), h.ClusterSize)]
	if err := h.parseBacking(r, region); err != nil {
		return h, err
	}
	return h, h.parseExtensions(region, length)
}

// parseFeatures reads the fields that version 3 added, and returns the header's length.
func (h *Header) parseFeatures(region []byte) (int, error) {
	if h.Version == 2 {
		return headerV2, nil
	}
	if len(region) < headerV3 {
		return 0, brokenf("file of %d bytes is shorter than a header", len(region))
	}
	be := binary.BigEndian
	h.incompatible = be.Uint64(region[72:])
	length := be.Uint32(region[100:])
	if length < headerV3 || length%8 != 0 || int64(length) > h.ClusterSize || int64(length) > int64(len(region)) {
		return 0, brokenf("header length of %d bytes", length)
	}
	h.Dirty = h.incompatible&featureDirty != 0
	h.Corrupt = h.incompatible&featureCorrupt != 0
	h.ExtendedL2 = h.incompatible&featureExtendedL2 != 0
	if h.ExtendedL2 && h.clusterBits < 14 {
		return 0, brokenf("subclusters in clusters of %d bytes", h.ClusterSize)
	}
	if length > headerV3 {
		h.Compression = Compression(region[104])
	}
	if (h.Compression != CompressionZlib) != (h.incompatible&featureCompression != 0) {
		return 0, brokenf("compression type %d contradicts the feature bits", h.Compression)
	}
	return int(length), nil
}

// parseBacking reads the backing file's name, which lies in the first cluster.
func (h *Header) parseBacking(r io.ReaderAt, region []byte) error {
	offset := binary.BigEndian.Uint64(region[8:])
	length := binary.BigEndian.Uint32(region[16:])
	if offset == 0 || length == 0 {
		return nil
	}
	if length > maxBackingName {
		return brokenf("backing file name of %d bytes", length)
	}
	if offset > uint64(h.ClusterSize) || offset+uint64(length) > uint64(h.ClusterSize) {
		return brokenf("backing file name at %d, outside the first cluster", offset)
	}
	name := make([]byte, length)
	if offset+uint64(length) <= uint64(len(region)) {
		copy(name, region[offset:])
	} else if n, err := r.ReadAt(name, int64(offset)); n < len(name) {
		return brokenf("backing file name at %d cannot be read (%v)", offset, err)
	}
	h.BackingName = string(name)
	return nil
}

// parseExtensions walks the extensions behind the header. Unknown ones may be ignored, by the format's rule.
func (h *Header) parseExtensions(region []byte, at int) error {
	be := binary.BigEndian
	if offset := be.Uint64(region[8:]); offset != 0 && offset < uint64(len(region)) {
		region = region[:offset]
	}
	names := map[int]string{}
	for at+8 <= len(region) {
		kind, length := be.Uint32(region[at:]), int64(be.Uint32(region[at+4:]))
		at += 8
		if kind == extensionEnd {
			break
		}
		if length > int64(len(region)-at) {
			return brokenf("header extension %#x of %d bytes does not fit", kind, length)
		}
		data := region[at : at+int(length)]
		switch kind {
		case extensionBackingFmt:
			h.BackingFormat = string(data)
		case extensionDataFile:
			if h.incompatible&featureDataFile != 0 {
				h.DataName = string(data)
			}
		case extensionFeatures:
			for ; len(data) >= 48; data = data[48:] {
				if data[0] == 0 {
					names[int(data[1])] = strings.TrimRight(string(data[2:48]), "\x00")
				}
			}
		}
		at += (int(length) + 7) &^ 7
	}
	for bit := range 64 {
		if h.incompatible&^knownIncompatible&(1<<bit) == 0 {
			continue
		}
		name := fmt.Sprintf("incompatible feature bit %d", bit)
		if given := names[bit]; given != "" {
			name += " (" + backup.EncodeName(given) + ")"
		}
		h.unknown = append(h.unknown, name)
	}
	return nil
}

// Readable says whether this package can read the image: nil, or an error that wraps backup.ErrEncrypted or
// backup.ErrUnsupported and names what stands in the way.
func (h Header) Readable() error {
	switch {
	case h.encryption == cryptAES:
		return fmt.Errorf("qcow2 image with AES: %w", backup.ErrEncrypted)
	case h.encryption == cryptLUKS:
		return fmt.Errorf("qcow2 image with LUKS: %w", backup.ErrEncrypted)
	case h.encryption != cryptNone:
		return fmt.Errorf("qcow2 image with encryption method %d: %w", h.encryption, backup.ErrEncrypted)
	case len(h.unknown) > 0:
		return fmt.Errorf("qcow2 image with %s: %w", strings.Join(h.unknown, ", "), backup.ErrUnsupported)
	case h.incompatible&featureDataFile != 0:
		return fmt.Errorf("qcow2 image with an external data file: %w", backup.ErrUnsupported)
	case h.Compression > CompressionZstd:
		return fmt.Errorf("qcow2 image with compression type %d: %w", h.Compression, backup.ErrUnsupported)
	}
	return nil
}
