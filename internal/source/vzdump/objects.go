package vzdump

import (
	"strings"

	"ferry/internal/backup"
	"ferry/internal/vma"
)

// objects lists what the point holds, in the order of opening: what is streamed first (a VMA's devices in the order of
// its header, or the tar archive), then configuration from the archive, then the files beside it.
func (d *dump) objects(header *vma.Header) []backup.Object {
	objects := append(d.streamed(header), configurations(header)...)
	for _, s := range d.sidecars {
		objects = append(objects, s.object())
	}
	return objects
}

// streamed lists the one-pass objects. Without a header of a VMA archive there is nothing to list.
func (d *dump) streamed(header *vma.Header) []backup.Object {
	if d.name.container == containerTar {
		return []backup.Object{{Role: backup.RoleArchive, Name: d.name.base, Size: backup.UnknownSize, Format: "tar", Shifting: true}}
	}
	if header == nil {
		return nil
	}
	var objects []backup.Object
	for _, device := range header.Devices {
		object := backup.Object{Role: deviceRole(device), Name: device.Name, Size: device.Size, Format: "vma"}
		if device.IsState() {
			object.Size = backup.UnknownSize
		}
		objects = append(objects, object)
	}
	return objects
}

// configurations lists the files that a VMA archive carries in its header. The format keeps them under InlineLimit.
func configurations(header *vma.Header) []backup.Object {
	if header == nil {
		return nil
	}
	var objects []backup.Object
	for _, config := range header.Configs {
		objects = append(objects, backup.Object{
			Role: backup.RoleConfiguration, Name: config.Name, Size: int64(len(config.Data)), Inline: config.Data,
		})
	}
	return objects
}

func deviceRole(device vma.Device) backup.Role {
	switch {
	case device.IsState():
		return backup.RoleMemory
	case strings.HasPrefix(device.Name, "drive-efidisk"):
		return backup.RoleFirmware
	case strings.HasPrefix(device.Name, "drive-tpmstate"):
		return backup.RoleTPM
	}
	return backup.RoleDisk
}

// object of a file beside the archive, under its own name. The mark of protection is an empty file; it is kept as one.
func (s sidecar) object() backup.Object {
	object := backup.Object{Role: backup.RoleConfiguration, Name: s.file.Name, Size: s.file.Size}
	if s.role == roleLog {
		object.Role = backup.RoleLog
	}
	return object
}
