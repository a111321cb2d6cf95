package virtnbdbackup

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"ferry/internal/source"
)

// stamp is when a backup was made, and what identifies it.
type stamp struct {
	native  string
	created time.Time
	zone    string
}

// zoneUnknown marks times from the streams, which are local without a zone, read as UTC.
const zoneUnknown = "unknown"

// stampOf identifies a backup by the name and creation time of its checkpoint. A differential backup has no
// checkpoint, but a Unix time; a copy only the time of its files. Where the checkpoint's XML is missing, the date in
// the stream stands in.
func (f *folder) stampOf(c candidate) stamp {
	switch c.level {
	case levelDiff:
		seconds, _ := identNumber(c.ident)
		return stamp{native: fmt.Sprintf("diff@%d", seconds), created: time.Unix(seconds, 0).UTC(), zone: "UTC"}
	case levelCopy:
		newest := f.newestFile(c.files)
		return stamp{native: fmt.Sprintf("copy@%d", newest.UnixNano()), created: newest, zone: "UTC"}
	}
	date, text := f.date(c.files)
	if c.offline {
		return stamp{native: c.ident + "+offline@" + text, created: date.Add(-f.zoneOffset()), zone: zoneUnknown}
	}
	if known := f.checkpoint(c.ident); known.checkpoint != nil {
		seconds := known.created.Unix()
		return stamp{native: c.ident + "@" + strconv.FormatInt(seconds, 10), created: known.created, zone: "UTC"}
	}
	if text == "" {
		newest := f.newestFile(c.files)
		native := c.ident
		if len(f.disks(c.files)) > 0 { // plain images, of which others with the same name may be elsewhere
			native = fmt.Sprintf("%s@%d", c.ident, newest.UnixNano())
		}
		return stamp{native: native, created: newest, zone: "UTC"}
	}
	return stamp{native: c.ident + "@" + text, created: date, zone: zoneUnknown}
}

// date is the earliest date that the streams of a backup state, and how it is written; "" if none does.
func (f *folder) date(files string) (time.Time, string) {
	var earliest time.Time
	text := ""
	for _, name := range f.disks(files) {
		file := f.files[fileKey{name, files}]
		if file == nil {
			continue
		}
		date, ok := file.date()
		if ok && (text == "" || date.Before(earliest)) {
			earliest, text = date, file.meta.Date
		}
	}
	return earliest, text
}

// zoneOffset is how far local time was ahead of UTC when the full backup was made: its checkpoint has one, its stream
// the other. 0 if that is not known.
func (f *folder) zoneOffset() time.Duration {
	date, text := f.date("full")
	known := f.checkpoint(f.fullIdent)
	if text == "" || known.checkpoint == nil {
		return 0
	}
	offset := date.Sub(known.created).Round(15 * time.Minute)
	if offset.Abs() > 15*time.Hour {
		return 0
	}
	return offset
}

// newestFile is the newest modification time of a backup's data files; with none, that of its configuration or list.
func (f *folder) newestFile(files string) time.Time {
	var newest time.Time
	for _, name := range f.disks(files) {
		key := fileKey{name, files}
		for _, identity := range []source.FileIdentity{f.partials[key].FileIdentity, f.identityOf(key)} {
			if identity.ModTime.After(newest) {
				newest = identity.ModTime
			}
		}
	}
	if newest.IsZero() {
		for _, name := range []string{vmconfigName(files), f.cptMachine + ".cpt"} {
			if entry, ok := f.entries[name]; ok {
				return entry.ModTime
			}
		}
	}
	return newest
}

func (f *folder) identityOf(key fileKey) source.FileIdentity {
	if file := f.files[key]; file != nil {
		return file.identity
	}
	return source.FileIdentity{}
}

// logOf finds the log of a backup: the last one of its level that was begun before the date in its streams. Both are
// local time of the same host. It returns "" if there is none.
func (f *folder) logOf(c candidate) string {
	date, text := f.date(c.files)
	if text == "" {
		return ""
	}
	levels := []string{string(c.level)}
	switch c.level {
	case levelFull, levelInc:
		levels = append(levels, "auto")
	case levelCopy: // a full backup of a machine that is switched off becomes a copy
		levels = append(levels, "full", "auto")
	}
	best := logName{}
	for _, level := range levels {
		if log, ok := f.lastLog(level, date); ok && log.started.After(best.started) {
			best = log
		}
	}
	return best.name
}

// lastLog finds the last log of a level that was begun by then.
func (f *folder) lastLog(level string, date time.Time) (logName, bool) {
	logs := f.logs[level]
	i := sort.Search(len(logs), func(i int) bool { return logs[i].started.After(date) })
	if i == 0 {
		return logName{}, false
	}
	return logs[i-1], true
}

// parentOf is the checkpoint that a backup's files build on; "" if they do not say, or not the same.
func (f *folder) parentOf(c candidate) string {
	parent := ""
	for _, name := range f.disks(c.files) {
		file := f.files[fileKey{name, c.files}]
		if file == nil || file.fault != nil || (parent != "" && file.meta.Parent != parent) {
			return ""
		}
		parent = file.meta.Parent
	}
	return parent
}

// parentFiles is the ident of the files that a backup's files build on.
func (f *folder) parentFiles(c candidate) string {
	parent := f.parentOf(c)
	if parent == f.fullIdent {
		return "full"
	}
	return parent
}
