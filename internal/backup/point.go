package backup

import "time"

// State says what a restore point is good for.
type State string

// The states of a point.
const (
	// StateComplete: all of it is there, as far as headers and names tell. Proof comes from reading.
	StateComplete State = "complete"
	// StateLocked: another program is writing it. Waiting helps.
	StateLocked State = "locked"
	// StateBroken: it cannot be read; the reason says why.
	StateBroken State = "broken"
	// StateUnsupported: Ferry knows what it is and cannot read it.
	StateUnsupported State = "unsupported"
	// StateEncrypted: it is encrypted and Ferry has no key for it.
	StateEncrypted State = "encrypted"
)

// Point is the state of one machine at one time.
type Point struct {
	ID      PointID
	Machine Machine
	// Created is the state's time in UTC, with nanoseconds where the source has them.
	Created time.Time
	// Zone says how the source wrote the time: an IANA name, an offset, "UTC", or "unknown" for local time without a zone.
	Zone  string
	State State
	// Reason says why the state is not complete; empty otherwise.
	Reason string
	// Proven is true if everything of the point has been read and was good.
	Proven  bool
	Objects []Object
	Origin  Origin
	// Hops are the Ferry repositories the point was copied from since its origin, oldest first.
	Hops []Hop
}

// BoundTime is the time in UTC within the years that can be written down everywhere, with room for what is counted from it.
// within is false if it had to be moved there.
func BoundTime(t time.Time) (bounded time.Time, within bool) {
	switch t = t.UTC(); {
	case t.Year() > 9990:
		return time.Date(9990, 1, 1, 0, 0, 0, 0, time.UTC), false
	case t.Year() < 1:
		return time.Unix(0, 0).UTC(), false
	}
	return t, true
}

// Origin is where a point was first copied from. It never changes when the point is copied on.
type Origin struct {
	// Format is the source format: "vzdump", "virtnbdbackup", "image".
	Format string
	// Source is the name of the source the point was found in.
	Source string
	// NativePointID is the point's identity in its own format.
	NativePointID string
	// Location is where the point was, relative to the source's root. Information only.
	Location string
	// Validator is what the format's reader recorded to prove later that something is unchanged since this point.
	Validator []byte
	// SourceVerified is true if the source's own checksums covered all content and were checked.
	SourceVerified bool
}

// Hop is one step of a copy of a copy.
type Hop struct {
	RepositoryID string
	Time         time.Time
}

// Base is a point that a target already has, offered to a source as something to be compared with.
type Base struct {
	ID PointID
	// Validator is the origin's validator as it was recorded when the base was copied.
	Validator []byte
}

// Role says what an object is to its machine.
type Role string

// The roles of objects.
const (
	RoleDisk Role = "disk"
	// RoleFirmware is NVRAM, and loader, kernel and initrd files that are kept beside the disks.
	RoleFirmware Role = "firmware"
	RoleTPM      Role = "tpm"
	RoleMemory   Role = "memory"
	// RoleArchive is a file archive of a whole machine, such as a container's tar.
	RoleArchive       Role = "archive"
	RoleConfiguration Role = "configuration"
	RoleLog           Role = "log"
)

// InlineLimit is the size in bytes up to which configuration and logs are kept in the point itself.
const InlineLimit = 64 << 10

// UnknownSize is the size of an object whose length shows only when it has been read.
const UnknownSize int64 = -1

// Object is one thing that a point holds.
type Object struct {
	Role Role
	// Name is as the source gives it: "drive-scsi0", "vda", "qemu-server.conf". It may be hostile bytes.
	Name string
	// Size in bytes, or UnknownSize.
	Size int64
	// SectorSize in bytes of a disk; 0 if not stated.
	SectorSize int
	// Format the source keeps the object in: "vma", "qcow2", "raw". Information only.
	Format string
	// Shifting is true for streams whose content moves when something is inserted (archives). They are cut by content.
	Shifting bool
	// Inline is the content of a small object that travels in the point itself; nil if it does not.
	Inline []byte
}

// ExtentKind says what a source knows of a byte range before reading it.
type ExtentKind uint8

// The kinds of extents.
const (
	// ExtentData must be read.
	ExtentData ExtentKind = iota
	// ExtentZero reads as zeros.
	ExtentZero
	// ExtentUnchanged is proven to be what the base has there.
	ExtentUnchanged
)

// Extent is a byte range of a disk.
type Extent struct {
	Offset, Length int64
	Kind           ExtentKind
}

// End returns the offset behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }
