package vzdump

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// fileRole is what a file of a dump folder is to a backup.
type fileRole uint8

const (
	// roleForeign: not vzdump's.
	roleForeign fileRole = iota
	// roleArchive: a finished backup that can be read.
	roleArchive
	// roleUnread: a finished backup whose outer layer is known and cannot be read.
	roleUnread
	// roleRunning: the file that a running backup writes to.
	roleRunning
	// roleLog, roleNotes and roleProtected: files beside an archive.
	roleLog
	roleNotes
	roleProtected
)

// container is what lies inside the compression.
type container uint8

const (
	containerUnknown container = iota
	containerVMA
	containerTar
)

// dumpName is what a file's name says.
type dumpName struct {
	role fileRole
	// base is the name without extensions; the log of a backup has the same.
	base string
	// archive is the whole name of the archive that notes and protection belong to.
	archive string
	// guest is "qemu", "lxc" or "openvz".
	guest string
	// vmid and stamp are empty for a non-standard name. The stamp is the node's local time: 2006_01_02-15_04_05.
	vmid, stamp string
	container   container
	compression string
	// outer is the extension that is not read, of a roleUnread.
	outer string
	// sealed is true if that extension means encryption.
	sealed bool
}

const (
	stampLayout     = "2006_01_02-15_04_05"
	notesSuffix     = ".notes"
	protectedSuffix = ".protected"
	logSuffix       = ".log"
	runningSuffix   = ".dat"
	temporarySuffix = ".tmp"
)

var (
	prefixPattern   = regexp.MustCompile(`^vzdump-(qemu|lxc|openvz)-`)
	standardPattern = regexp.MustCompile(`^vzdump-(?:qemu|lxc|openvz)-([0-9]{1,9})-([0-9]{4}_[0-9]{2}_[0-9]{2}-[0-9]{2}_[0-9]{2}_[0-9]{2})$`)

	compressions       = []string{"gz", "lzo", "zst", "bz2"}
	otherCompressions  = []string{"xz", "lzma", "lz4", "lz", "br", "7z", "zip", "rar", "Z", "gz", "lzo", "zst", "bz2"}
	sealingExtensions  = []string{"gpg", "pgp", "age", "enc", "aes"}
	containerExtension = map[string]container{".vma": containerVMA, ".tar": containerTar, ".tgz": containerTar}
)

// parseName says what a file is by its name alone. Names may be any bytes.
func parseName(name string) dumpName {
	guest := prefixPattern.FindStringSubmatch(name)
	if guest == nil {
		return dumpName{}
	}
	parsed := dumpName{guest: guest[1]}
	switch rest, suffix := cutExtension(name); suffix {
	case logSuffix:
		parsed.role, parsed.base = roleLog, rest
	case runningSuffix:
		parsed.role, parsed.base = roleRunning, rest
		// A compressed backup runs into .vma.dat, a plain one into .dat.
		if base, inner := cutExtension(rest); containerExtension[inner] != containerUnknown {
			parsed.base, parsed.container = base, containerExtension[inner]
		} else if parsed.guest == "qemu" {
			parsed.container = containerVMA
		} else {
			parsed.container = containerTar
		}
	case notesSuffix, protectedSuffix:
		parsed = parseArchive(rest, parsed)
		if parsed.role == roleForeign {
			return parsed
		}
		parsed.archive, parsed.role = rest, roleNotes
		if suffix == protectedSuffix {
			parsed.role = roleProtected
		}
	default:
		parsed = parseArchive(name, parsed)
	}
	return parsed.withMachine()
}

// parseArchive recognises <base>.vma, .tar or .tgz, and one extension more. parsed has what the prefix says.
func parseArchive(name string, parsed dumpName) dumpName {
	rest, extension := cutExtension(name)
	if kind := containerExtension[extension]; kind != containerUnknown {
		parsed.role, parsed.base, parsed.container = roleArchive, rest, kind
		if extension == ".tgz" {
			parsed.compression = "gz"
		}
		return parsed
	}
	base, inner := cutExtension(rest)
	kind := containerExtension[inner]
	outer := strings.TrimPrefix(extension, ".")
	switch {
	case kind == containerUnknown:
		// vzdump-….vma.zst.gpg: encryption goes around compression.
		innermost, container := cutExtension(base)
		if kind = containerExtension[container]; kind == containerUnknown || !slices.Contains(sealingExtensions, outer) {
			return dumpName{}
		}
		base = innermost
		parsed.role, parsed.outer, parsed.sealed = roleUnread, extension, true
	case slices.Contains(compressions, outer) && inner != ".tgz":
		parsed.role, parsed.compression = roleArchive, outer
	case slices.Contains(sealingExtensions, outer):
		parsed.role, parsed.outer, parsed.sealed = roleUnread, extension, true
	case slices.Contains(otherCompressions, outer):
		parsed.role, parsed.outer = roleUnread, extension
	default:
		return dumpName{}
	}
	parsed.base, parsed.container = base, kind
	return parsed
}

// parseTemporary recognises the folder that a running backup works in.
func parseTemporary(folder string) (dumpName, bool) {
	guest := prefixPattern.FindStringSubmatch(folder)
	base, temporary := strings.CutSuffix(folder, temporarySuffix)
	if guest == nil || !temporary {
		return dumpName{}, false
	}
	parsed := dumpName{role: roleRunning, guest: guest[1], base: base, container: containerTar}
	if parsed.guest == "qemu" {
		parsed.container = containerVMA
	}
	return parsed.withMachine(), true
}

// withMachine reads VMID and time from a standard name.
func (n dumpName) withMachine() dumpName {
	if match := standardPattern.FindStringSubmatch(n.base); match != nil {
		if _, err := time.Parse(stampLayout, match[2]); err == nil {
			n.vmid, n.stamp = match[1], match[2]
		}
	}
	return n
}

// nativeMachineID is the VMID, else the file's base name: VMIDs are never guessed.
func (n dumpName) nativeMachineID() string {
	if n.vmid != "" {
		return n.vmid
	}
	return n.base
}

// time of a standard name, taken as if the node were in UTC: its zone is not known.
func (n dumpName) time() (time.Time, bool) {
	created, err := time.Parse(stampLayout, n.stamp)
	return created, err == nil
}

// cutExtension splits a name before its last dot.
func cutExtension(name string) (rest, extension string) {
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		return name[:dot], name[dot:]
	}
	return name, ""
}
