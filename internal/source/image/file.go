package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/qcow2"
	"ferry/internal/source"
)

// l1Limit is how many bytes of a first-level table a scan reads. With the header and the snapshots a scan stays below
// source.ScanLimit.
const l1Limit = 512 << 10

// format is how a file holds its disk.
type format string

const (
	formatRaw     format = "raw"
	formatQcow2   format = "qcow2"
	formatForeign format = "foreign"
)

// want is what is known about a file before it is looked into.
type want uint8

const (
	// wantAny: only the name and the content speak. A file that is no image is left alone.
	wantAny want = iota
	// wantRaw and wantQcow2: an overlay's header states the format.
	wantRaw
	wantQcow2
	// wantBacking: an overlay names the file without stating a format.
	wantBacking
	// wantDescribed: a ferry.yaml names the file: it is raw if it is nothing else.
	wantDescribed
)

// trouble is why a point is not complete; its zero value says that it is.
type trouble struct {
	state  backup.State
	reason string
}

// severity orders states: what waiting does not cure comes after what it does.
var severity = map[backup.State]int{
	backup.StateLocked: 1, backup.StateBroken: 2, backup.StateEncrypted: 3, backup.StateUnsupported: 4,
}

// worse returns the trouble that decides.
func worse(a, b trouble) trouble {
	if severity[b.state] > severity[a.state] {
		return b
	}
	return a
}

// busy is the trouble of a file that is being written: what is broken about it may be an accident of the moment.
func (t trouble) busy(reason string) trouble {
	if t.state == "" || t.state == backup.StateBroken {
		return trouble{backup.StateLocked, reason}
	}
	return t
}

// file is one image.
type file struct {
	source.FileIdentity
	folder string
	name   string
	// listed is true for files of the listing that no other format claimed: only they make points.
	listed bool
	format format
	header qcow2.Header
	// snapshots of a qcow2 file, in the file's order.
	snapshots []qcow2.Snapshot
	// looks is the format that QEMU would take a raw file for by its beginning, if nobody told it that the file is raw.
	looks string
	// size of the disk in bytes.
	size int64
	// trouble with this file alone.
	trouble trouble
	// gone is true if the file vanished during the scan.
	gone bool

	// below is the backing file; linked is true once it has been looked for.
	below  *file
	linked bool
	// stated is true if more than the file's own content says that it is qcow2: an overlay, or its place in a ferry.yaml.
	stated bool
	// overlays counts the files that stand directly on this one, overlaysHere those in the same folder.
	overlays, overlaysHere int
	// described is true if a ferry.yaml names the file.
	described bool

	// What weigh finds out: the chain's length, the state's time, and what is wrong with file or chain.
	depth   int
	created time.Time
	chained trouble
}

// template is true for a file that several files stand on.
func (f *file) template() bool { return f.overlays > 1 }

// examine looks into a file. It returns nil if the file is no image, or is gone.
func (s *scan) examine(identity source.FileIdentity, wanted want) *file {
	f := &file{FileIdentity: identity, folder: path.Dir(identity.Path), name: path.Base(identity.Path)}
	_, f.listed = s.entries[identity.Path]
	ext := extension(f.name)
	if wanted == wantAny && skipped(f.name) {
		return nil
	}
	if kind, known := foreign[ext]; known && wanted != wantRaw && wanted != wantQcow2 {
		f.format, f.size = formatForeign, backup.UnknownSize
		f.trouble = trouble{backup.StateUnsupported, kind + " images are not supported yet"}
		return f
	}
	// A file that a header or a description names is an image even if it cannot be opened.
	surely := wanted != wantAny || ext == ".raw" || ext == ".img" || ext == ".qcow2" || ext == ".qcow"
	opened, err := s.root.Open(identity.Path)
	if err != nil {
		if errors.Is(err, backup.ErrVanished) {
			s.vanished(f)
			return nil
		}
		if !surely {
			return nil
		}
		f.format, f.size = formatRaw, backup.UnknownSize
		f.trouble = trouble{backup.StateBroken, "it cannot be opened: " + reason(err)}
		return f
	}
	defer opened.Close()
	if f.format = decide(opened, ext, wanted); f.format == "" {
		return nil
	}
	f.inspect(s, opened, wanted)
	if locked, err := writeLocked(opened); err == nil && locked {
		f.trouble = f.trouble.busy("a running QEMU has the image open for writing")
	}
	return f
}

// decide says how a file holds its disk, by its beginning and what is known of it; empty if it is no image. A file
// named .raw is never taken for anything else, whatever a guest wrote to its first sector.
func decide(opened *source.File, ext string, wanted want) format {
	var magic [4]byte
	_, err := opened.ReadAt(magic[:], 0)
	isQcow2 := err == nil && string(magic[:]) == qcow2.Magic
	switch {
	case wanted == wantRaw, ext == ".raw" && wanted != wantQcow2:
		return formatRaw
	case isQcow2, wanted == wantQcow2, ext == ".qcow2", ext == ".qcow":
		return formatQcow2
	case ext == ".img", wanted == wantDescribed:
		return formatRaw
	}
	return ""
}

// beginnings are the formats that QEMU knows by a file's beginning and that are not raw, each with its mark and where it is.
var beginnings = []struct {
	name, mark string
	offset     int
}{
	{"qcow2", qcow2.Magic, 0}, {"VMDK", "KDMV", 0}, {"VMDK", "COWD", 0}, {"VMDK", "# Disk DescriptorFile", 0}, {"VHDX", "vhdxfile", 0},
	{"VHD", "conectix", 0}, {"VDI", "\x7f\x10\xda\xbe", 64}, {"QED", "QED\x00", 0},
	{"Parallels", "WithoutFreeSpace", 0}, {"Parallels", "WithouFreSpacExt", 0},
}

// probe returns the name of the format that a file begins as; empty for none.
func probe(opened *source.File) string {
	var start [68]byte
	n, _ := opened.ReadAt(start[:], 0) // what cannot be read begins as nothing, and says so when it is read
	for _, b := range beginnings {
		if strings.HasPrefix(string(start[min(b.offset, n):n]), b.mark) {
			return b.name
		}
	}
	return ""
}

// inspect fills in what the file's beginning, or end, says.
func (f *file) inspect(s *scan, opened *source.File, wanted want) {
	if f.format == formatRaw {
		f.size, f.looks = opened.Size(), probe(opened)
		switch footer, err := vhdFooter(opened); {
		case err != nil:
			f.trouble = trouble{backup.StateBroken, reason(err)}
		case f.size == 0:
			f.trouble = trouble{backup.StateBroken, "the file is empty"}
		case footer && wanted != wantRaw:
			f.format = formatForeign
			f.trouble = trouble{backup.StateUnsupported, "fixed VHD image: it ends with a VHD footer; such images are not supported yet"}
		}
		return
	}
	f.size = backup.UnknownSize
	var err error
	if f.header, err = qcow2.ReadHeader(opened, opened.Size()); err != nil {
		f.trouble = troubleOf(err)
		return
	}
	f.size = f.header.Size
	image, err := qcow2.Open(opened, opened.Size())
	if err == nil {
		defer image.Close()
		err = image.Check(l1Limit)
	}
	if err != nil {
		f.trouble = troubleOf(err)
		return
	}
	if f.snapshots, err = image.Snapshots(); err != nil {
		s.problem(f, "its internal snapshots are left out: "+reason(err))
	}
	if f.header.Corrupt {
		s.problem(f, "QEMU marked the image as corrupt; it is read as it is")
	}
}

// problem notes something about a file that does not change its points' state.
func (s *scan) problem(f *file, text string) {
	s.listing.Problems = append(s.listing.Problems, &backup.Error{Object: f.Path, Offset: backup.NoOffset, Err: errors.New(text)})
}

// troubleOf turns a reader's error into the state it means.
func troubleOf(err error) trouble {
	switch {
	case errors.Is(err, backup.ErrEncrypted):
		return trouble{backup.StateEncrypted, reason(err)}
	case errors.Is(err, backup.ErrUnsupported):
		return trouble{backup.StateUnsupported, reason(err)}
	}
	return trouble{backup.StateBroken, reason(err)}
}

// reason is an error's text, safe to print and without the condition at its end, which the point's state says. Percent
// signs of names that were encoded already stay.
func reason(err error) string {
	text := err.Error()
	for _, condition := range []error{backup.ErrBroken, backup.ErrUnsupported} {
		text = strings.TrimSuffix(text, ": "+condition.Error())
	}
	return strings.ReplaceAll(backup.EncodeName(text), "%25", "%")
}

// Of a VHD footer: its size, and where in it are the disk's size, its type and the checksum, in bytes.
const (
	vhdFooterSize = 512
	vhdSize       = 48
	vhdType       = 60
	vhdChecksum   = 64
	vhdTypeFixed  = 2
)

// vhdFooter is true if the file ends with a VHD footer: what looks like a raw image is a fixed VHD then, and its footer
// does not belong to the disk. All of the footer must fit, for the last bytes of a raw disk are its guest's, and the
// answer keeps the disk from being copied.
func vhdFooter(opened *source.File) (bool, error) {
	before := opened.Size() - vhdFooterSize
	if before < 0 {
		return false, nil
	}
	var footer [vhdFooterSize]byte
	if _, err := opened.ReadAt(footer[:], before); err != nil && err != io.EOF {
		return false, err
	}
	var sum uint32
	for k, b := range footer {
		if k < vhdChecksum || k >= vhdChecksum+4 {
			sum += uint32(b)
		}
	}
	be := binary.BigEndian
	return string(footer[:8]) == "conectix" && be.Uint32(footer[vhdChecksum:]) == ^sum &&
		be.Uint32(footer[vhdType:]) == vhdTypeFixed && be.Uint64(footer[vhdSize:]) == uint64(before), nil
}

// qemuWriteByte is the byte of an image that QEMU holds a lock on while it may write to it: 100 plus the number of its
// write permission (QEMU's block/file-posix.c, and /proc/locks beside a running QEMU).
const qemuWriteByte = 101

// writeLocked is true if another process holds QEMU's lock for writing. Locks of programs on other hosts are seen only
// where the file system carries them.
func writeLocked(opened *source.File) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuWriteByte, Len: 1}
	if err := unix.FcntlFlock(opened.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("%s: asking for locks: %w", backup.EncodeName(opened.Identity().Path), err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
