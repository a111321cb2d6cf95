package image

import (
	"cmp"
	"path"
	"regexp"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// firmwareLimit is the largest file in bytes that is taken for firmware; QEMU's own variable stores are below 1 MiB.
const firmwareLimit = 64 << 20

// foreign are extensions of image formats that are known and not read, with the name people know them by.
var foreign = map[string]string{
	".vmdk": "VMDK", ".vhd": "VHD", ".avhd": "VHD", ".vhdx": "VHDX", ".avhdx": "VHDX", ".vdi": "VDI", ".ova": "OVA",
	".qed": "QED", ".hdd": "Parallels",
}

// notImages are extensions of files that are never looked into. Any other file may be a qcow2 image: libvirt gives
// overlays the snapshot's name as extension.
var notImages = map[string]bool{
	".gz": true, ".xz": true, ".zst": true, ".lz4": true, ".lzo": true, ".bz2": true, ".zip": true, ".7z": true, ".tar": true,
	".iso": true, ".log": true, ".txt": true, ".md": true, ".json": true, ".yaml": true, ".yml": true,
	".md5": true, ".sha1": true, ".sha256": true, ".sig": true, ".asc": true, ".notes": true,
	".tmp": true, ".part": true, ".partial": true, ".filepart": true, ".crdownload": true, ".swp": true,
}

// extension returns a name's extension in lower case.
func extension(name string) string { return strings.ToLower(path.Ext(name)) }

// skipped is true for names that are not looked into: hidden files, which copying programs use for unfinished ones,
// and files whose extension says that they are something else.
func skipped(name string) bool { return strings.HasPrefix(name, ".") || notImages[extension(name)] }

// baseName is a file's name without the extension of an image.
func baseName(name string) string {
	ext := extension(name)
	if _, known := foreign[ext]; !known && ext != ".raw" && ext != ".img" && ext != ".qcow2" && ext != ".qcow" {
		return name
	}
	return name[:len(name)-len(ext)]
}

// vmdkParts matches the extent and change-tracking files of a VMDK image.
var vmdkParts = regexp.MustCompile(`(?s)^(.+)-(flat|delta|sesparse|ctk|rdm|rdmp|[sf][0-9]{3,})\.vmdk$`)

// vmdkMember is true for a file that belongs to a VMDK descriptor beside it.
func vmdkMember(name string, beside map[string]bool) bool {
	parts := vmdkParts.FindStringSubmatch(name)
	return parts != nil && beside[parts[1]+".vmdk"]
}

// configurationRole says what a file beside a machine's images is to the machine; empty for anything else.
func configurationRole(entry source.Entry) backup.Role {
	if strings.HasPrefix(entry.Name, ".") {
		return ""
	}
	switch extension(entry.Name) {
	case ".xml", ".vmx", ".conf", ".ovf":
		if entry.Size <= backup.InlineLimit {
			return backup.RoleConfiguration
		}
	case ".nvram", ".fd":
		if entry.Size <= firmwareLimit {
			return backup.RoleFirmware
		}
	}
	return ""
}

func compareText(a, b string) int { return cmp.Compare(a, b) }
