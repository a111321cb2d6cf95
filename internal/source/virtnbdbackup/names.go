package virtnbdbackup

import (
	"regexp"
	"strings"
	"time"
)

// level is the kind of a backup.
type level string

const (
	levelFull level = "full"
	levelInc  level = "inc"
	levelDiff level = "diff"
	levelCopy level = "copy"
)

// identCopy is the ident of copy backups in names of files.
const identCopy = "copy"

// checkpointPrefix is before the number in a checkpoint's name.
const checkpointPrefix = "virtnbdbackup."

// firstCheckpoint is the checkpoint of a full backup whose files do not say another.
const firstCheckpoint = checkpointPrefix + "0"

var (
	dataPattern = regexp.MustCompile(
		`(?s)^(.+)\.(full|copy|inc\.(virtnbdbackup\.[0-9]{1,9})|diff\.(0|[1-9][0-9]{0,10}))\.data(\.partial)?$`)
	// identPattern takes what is named after a backup's ident: "autostart.copy", "OVMF_VARS.fd.virtnbdbackup.3",
	// "vda.1795322423.qcow.json".
	identPattern      = regexp.MustCompile(`(?s)^(.+?)\.(virtnbdbackup\.[0-9]{1,9}|0|[1-9][0-9]{0,10}|copy)(\.qcow\.json)?$`)
	vmconfigPattern   = regexp.MustCompile(`^vmconfig\.(virtnbdbackup\.[0-9]{1,9}|0|[1-9][0-9]{0,10}|copy)\.xml$`)
	checkpointPattern = regexp.MustCompile(`^virtnbdbackup\.[0-9]{1,9}$`)
	logPattern        = regexp.MustCompile(`^backup\.(full|inc|diff|copy|auto)\.([0-9]{14})\.log$`)
)

// fileKey names a data file: ident is "full", "copy", a checkpoint (increments) or a Unix time (differential backups;
// once they are grouped, the time that the backup was begun).
type fileKey struct{ disk, ident string }

// dataName is what the name of a data file says.
type dataName struct {
	fileKey
	level   level
	partial bool
}

func parseDataName(name string) (dataName, bool) {
	m := dataPattern.FindStringSubmatch(name)
	if m == nil {
		return dataName{}, false
	}
	parsed := dataName{fileKey: fileKey{disk: m[1]}, partial: m[5] != ""}
	switch {
	case m[3] != "":
		parsed.level, parsed.ident = levelInc, m[3]
	case m[4] != "":
		parsed.level, parsed.ident = levelDiff, m[4]
	default:
		parsed.level, parsed.ident = level(m[2]), m[2]
	}
	return parsed, true
}

// vmconfigName is the name of the domain XML of a backup. It is written when all data is.
func vmconfigName(ident string) string { return "vmconfig." + ident + ".xml" }

// logName is what the name of a log says: the level asked for, and local time without a zone.
type logName struct {
	name    string
	level   string
	started time.Time
}

func parseLogName(name string) (logName, bool) {
	m := logPattern.FindStringSubmatch(name)
	if m == nil {
		return logName{}, false
	}
	started, err := time.Parse("01022006150405", m[2])
	return logName{name: name, level: m[1], started: started}, err == nil
}

// sumSuffix ends the names of check sums that virtnbdbackup 2 writes beside its data files.
const sumSuffix = ".chksum"

// isSum is true for the check sum of a data file.
func isSum(name string) bool {
	base, ok := strings.CutSuffix(name, sumSuffix)
	if !ok {
		return false
	}
	_, ok = parseDataName(base)
	return ok
}
