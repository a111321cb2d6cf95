package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Platform is the virtualisation platform a machine runs on. It is part of the machine's identity, the format of
// its backup is not: the same Proxmox machine in a vzdump folder and on a Proxmox Backup Server is one machine.
type Platform string

// The platforms that sources state.
const (
	PlatformProxmox Platform = "proxmox"
	PlatformLibvirt Platform = "libvirt"
	PlatformXen     Platform = "xen"
	PlatformVMware  Platform = "vmware"
	PlatformHyperV  Platform = "hyperv"
	PlatformImage   Platform = "image"
)

// MachineKey identifies a machine independently of any path. Two keys are the same machine exactly if they are equal.
type MachineKey struct {
	Platform Platform
	// Instance keeps cloned sites apart where an administrator says so; usually empty.
	Instance string
	// UUID is what the format states, in lower case; empty where it states none.
	UUID string
	// SourceName stands in for a missing UUID: the name given to the source, else its folder's base name. Empty if UUID is set.
	SourceName string
	// NativeID is the platform's own name for the machine: a VMID, a domain UUID, a file's name.
	NativeID string
}

// NewMachineKey builds a key by the identity rule: the source's name takes part only where the format states no UUID.
func NewMachineKey(platform Platform, nativeID, uuid, sourceName string) MachineKey {
	key := MachineKey{Platform: platform, NativeID: nativeID, UUID: lowerASCII(uuid)}
	if uuid == "" {
		key.SourceName = sourceName
	}
	return key
}

// lowerASCII lowers A to Z and nothing else: different bytes stay different.
func lowerASCII(text string) string {
	lowered := []byte(text)
	for i, b := range lowered {
		if b >= 'A' && b <= 'Z' {
			lowered[i] = b + 'a' - 'A'
		}
	}
	return string(lowered)
}

// Canonical returns the byte string that identifies the machine, as docs/format.md section 3 defines it.
func (k MachineKey) Canonical() []byte {
	return appendStrings(nil, "ferry v1 machine key", string(k.Platform), k.Instance, k.UUID, k.SourceName, k.NativeID)
}

// String returns the machine's id as people see and type it: platform/native id, then the UUID or the source's
// name where the native id alone does not say it. Unsafe bytes are percent-encoded, so the id is one word.
func (k MachineKey) String() string {
	parts := []string{encodeWord(string(k.Platform))} // what a hostile repository says it is
	for _, part := range []string{k.Instance, k.SourceName, k.NativeID} {
		if part != "" {
			parts = append(parts, encodeWord(part))
		}
	}
	if k.UUID != "" && !strings.EqualFold(k.UUID, k.NativeID) {
		parts = append(parts, encodeWord(k.UUID))
	}
	return strings.Join(parts, "/")
}

// Machine is one VM or container, with what the source says about it beside its identity.
type Machine struct {
	Key MachineKey
	// Name is the name the platform shows. It may be hostile bytes; it never identifies.
	Name string
	// Labels are tags given by the source.
	Labels []string
}

// PointID identifies a restore point by where it was first made. It is equal in every repository that holds a copy.
type PointID [sha256.Size]byte

// NewPointID derives the id from the machine and the point's native id, as docs/format.md section 3 defines it.
func NewPointID(machine MachineKey, nativePointID string) PointID {
	return sha256.Sum256(appendStrings(nil, "ferry v1 point id", string(machine.Canonical()), nativePointID))
}

// ParsePointID reads the 64 hex digits that String prints.
func ParsePointID(text string) (PointID, error) {
	var id PointID
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(id) {
		return id, fmt.Errorf("point id %q is not 64 hex digits", text)
	}
	copy(id[:], decoded)
	return id, nil
}

// String returns all 64 hex digits.
func (id PointID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the 12 hex digits that tables show.
func (id PointID) Short() string { return hex.EncodeToString(id[:6]) }

// MarshalText makes a point id a JSON string of 64 hex digits.
func (id PointID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *PointID) UnmarshalText(text []byte) error {
	parsed, err := ParsePointID(string(text))
	*id = parsed
	return err
}

// appendStrings appends each string behind its length as u32, so that no two lists of strings give the same bytes.
func appendStrings(dst []byte, parts ...string) []byte {
	for _, part := range parts {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(part)))
		dst = append(dst, part...)
	}
	return dst
}
