package virtnbdbackup

import (
	"cmp"
	"fmt"
	"time"

	"ferry/internal/backup"
)

// chainLimit is how many files of one disk a point may be read from. Every file costs a lookup for each read.
const chainLimit = 2000

// node is a data file with all that it builds on, or the reason why that does not hold.
type node struct {
	file   *dataFile
	parent *node
	// depth is the number of files down to the full backup, this one included.
	depth int
	fault error
	// culprit is the ident of the file that the fault is in.
	culprit string
}

// chainOf resolves the file of a disk and ident through its parents. It never returns nil.
func (f *folder) chainOf(key fileKey) *node {
	var pending []fileKey
	waiting := map[fileKey]bool{}
	for at := key; f.nodes[at] == nil; {
		if waiting[at] {
			f.nodes[at] = &node{fault: fmt.Errorf("%w: %s is its own ancestor", backup.ErrBroken, at.ident), culprit: at.ident}
			break
		}
		if len(pending) > chainLimit {
			f.nodes[at] = &node{fault: errLongChain, culprit: at.ident}
			break
		}
		waiting[at] = true
		pending = append(pending, at)
		file := f.files[at]
		if file == nil || file.fault != nil || (file.level != levelInc && file.level != levelDiff) {
			break
		}
		parent := f.parentKey(file)
		if parent == at {
			break
		}
		at = parent
	}
	for i := len(pending) - 1; i >= 0; i-- {
		if f.nodes[pending[i]] == nil {
			f.nodes[pending[i]] = f.resolve(pending[i])
		}
	}
	return f.nodes[key]
}

var errLongChain = fmt.Errorf("%w: a chain of more than %d files", backup.ErrUnsupported, chainLimit)

// parentKey is the file that an increment builds on. An increment with the full backup's own checkpoint was made of a
// machine that was switched off, and builds on the full backup too.
func (f *folder) parentKey(file *dataFile) fileKey {
	if file.meta.Parent == f.fullIdent {
		return fileKey{file.disk, "full"}
	}
	return fileKey{file.disk, file.meta.Parent}
}

// resolve makes the node of a file whose parent's node is known.
func (f *folder) resolve(key fileKey) *node {
	fail := func(err error) *node { return &node{fault: err, culprit: key.ident} }
	if partial, ok := f.partials[key]; ok {
		return fail(fmt.Errorf("%w: %s is being written", backup.ErrLocked, backup.EncodeName(partial.Name)))
	}
	file := f.files[key]
	switch {
	case file == nil && key.ident == "full":
		return fail(fmt.Errorf("%w: %s.full.data is missing", backup.ErrBroken, backup.EncodeName(key.disk)))
	case file == nil:
		return fail(fmt.Errorf("%w: disk %s has no file of %s", backup.ErrBroken, backup.EncodeName(key.disk), key.ident))
	case file.fault != nil:
		return fail(file.fault)
	case f.beforeCheckpoint(file):
		return fail(inFile(file.identity.Path, errOlderChain))
	case file.level == levelFull || file.level == levelCopy:
		return &node{file: file, depth: 1}
	case file.level == levelInc && file.meta.Parent == key.ident && key.ident != f.fullIdent:
		return fail(inFile(file.identity.Path, fmt.Errorf("%w: it was overwritten by a backup of the machine while it was switched off, "+
			"and the changes before that are lost; a new full backup is needed", backup.ErrBroken)))
	}
	parent := f.nodes[f.parentKey(file)]
	if parent == nil {
		return fail(errLongChain)
	}
	if parent.fault != nil {
		return &node{fault: parent.fault, culprit: parent.culprit}
	}
	if parent.depth >= chainLimit {
		return fail(errLongChain)
	}
	if err := f.outdated(file, parent.file); err != nil {
		return fail(inFile(file.identity.Path, err))
	}
	return &node{file: file, parent: parent, depth: parent.depth + 1}
}

// dateSlack is how much older than its parent an increment may seem by the dates in the streams: they are local time,
// which goes back by an hour once a year.
const dateSlack = time.Hour + 5*time.Minute

// outdated says that a file is older than the one it would build on. Names do not tell: a new chain uses those of the
// one before it, whose increments are left over where a folder is copied without deletion.
func (f *folder) outdated(file, parent *dataFile) error {
	fault := func(made, base time.Time, zone string) error {
		const layout = "2006-01-02 15:04:05"
		return fmt.Errorf("%w: it was made at %s, before what it would build on (%s%s): it is left over from an older chain",
			backup.ErrBroken, made.Format(layout), base.Format(layout), zone)
	}
	made, madeKnown := f.madeAt(file)
	base, baseKnown := f.madeAt(parent)
	if madeKnown && baseKnown && made.Before(base) {
		return fault(made, base, " UTC")
	}
	// The checkpoints may be of the older chain as well. The dates are in the files themselves.
	made, hasDate := file.date()
	base, baseHasDate := parent.date()
	slack := dateSlack
	if (!madeKnown || !baseKnown) && f.beyondList(file) {
		slack = 0
	}
	if hasDate && baseHasDate && made.Add(slack).Before(base) {
		return fault(made, base, ", local time")
	}
	return nil
}

// errOlderChain says that other files of the backup are not of the chain that a file is of.
var errOlderChain = fmt.Errorf("%w: it was begun before the backup that the files beside it are of: it is of an older chain", backup.ErrBroken)

// zoneWest is how far local time is behind UTC at most.
const zoneWest = 12 * time.Hour

// beforeCheckpoint is true for a file that was begun before its own checkpoint was made: where a new chain is copied over an
// older one, the checkpoint may have arrived and the file not yet. The zone of the file's date is not known.
func (f *folder) beforeCheckpoint(file *dataFile) bool {
	if file.level == levelDiff {
		return false // what tells its time is its own name
	}
	date, hasDate := file.date()
	made, known := f.madeAt(file)
	return hasDate && known && date.Add(zoneWest+dateSlack).Before(made)
}

// judgeFull finds full backups' files of which some were begun before the log of a full backup, and some after: those before are
// of an older chain. Within dateSlack they may be of the same one, begun after the clock went back, unless an older chain has left
// the log of its full backup just before them.
func (f *folder) judgeFull() {
	var latest time.Time
	for _, name := range f.disks(string(levelFull)) {
		if date, ok := f.fullDate(name); ok && date.After(latest) {
			latest = date
		}
	}
	log, ok := f.lastLog(string(levelFull), latest)
	if !ok {
		return
	}
	for _, name := range f.disks(string(levelFull)) {
		date, ok := f.fullDate(name)
		if !ok || !date.Before(log.started) {
			continue
		}
		older, hasOlder := f.lastLog(string(levelFull), date)
		if date.Add(dateSlack).Before(log.started) || hasOlder && older.started.Add(dateSlack).After(date) {
			file := f.files[fileKey{name, string(levelFull)}]
			file.fault = cmp.Or(file.fault, inFile(file.identity.Path, errOlderChain))
		}
	}
}

// fullDate is when a disk's full stream was begun, if there is one that says so.
func (f *folder) fullDate(disk string) (time.Time, bool) {
	file := f.files[fileKey{disk, string(levelFull)}]
	if file == nil {
		return time.Time{}, false
	}
	return file.date()
}

// madeAt is when a file's backup was begun, if something says so with a zone.
func (f *folder) madeAt(file *dataFile) (time.Time, bool) {
	ident := file.ident
	switch file.level {
	case levelDiff:
		return time.Unix(file.seconds, 0).UTC(), true
	case levelFull:
		ident = f.fullIdent
	case levelInc:
		if ident == f.fullIdent { // the machine was switched off: the checkpoint is the full backup's
			return time.Time{}, false
		}
	}
	if known := f.checkpoint(ident); known.checkpoint != nil {
		return known.created, true
	}
	return time.Time{}, false
}

// beyondList is true for an increment that the .cpt file does not know of yet, or no longer.
func (f *folder) beyondList(file *dataFile) bool {
	if file.level != levelInc || len(f.listed) == 0 {
		return false
	}
	number, _ := identNumber(file.ident)
	last, _ := identNumber(f.listed[len(f.listed)-1])
	return number > last
}

// reason is the node's fault as the point with that ident sees it; nil if there is none.
func (n *node) reason(ident string) error {
	switch {
	case n.fault == nil || n.culprit == ident:
		return n.fault
	case n.culprit == "full":
		return &inherited{"its full backup", n.fault}
	}
	return &inherited{"increment " + n.culprit + ", which it builds on,", n.fault}
}

// inherited is the fault of a file that a point builds on.
type inherited struct {
	what  string
	fault error
}

func (e *inherited) Error() string {
	return e.what + " is " + string(stateOf(e.fault)) + ": " + reasonText(e.fault)
}

func (e *inherited) Unwrap() error { return e.fault }

// files returns the chain's files, the full backup first.
func (n *node) files() []*dataFile {
	files := make([]*dataFile, n.depth)
	for at := n; at != nil; at = at.parent {
		files[at.depth-1] = at.file
	}
	return files
}
