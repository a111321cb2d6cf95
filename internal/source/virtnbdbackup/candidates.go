package virtnbdbackup

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/backup"
)

// candidate is a backup that the folder's names speak of, whatever is left of it.
type candidate struct {
	level level
	// ident is what its configuration is named after; files is the ident of its data files.
	ident, files string
	// offline is true for an increment of a machine that was switched off since the full backup.
	offline bool
}

// candidates lists the folder's backups: the full one, increments and differential backups in their order, a copy.
func (f *folder) candidates() []candidate {
	full, idents := false, map[string]bool{}
	copied := f.hasConfig(identCopy)
	note := func(ident string) {
		switch ident {
		case "full":
			full = true
		case identCopy:
		default:
			idents[ident] = true
		}
	}
	for key := range f.files {
		note(key.ident)
	}
	for key := range f.partials {
		note(key.ident)
	}
	offline := idents[f.fullIdent]
	for ident := range f.configs {
		note(ident)
	}
	full = full || f.hasConfig(f.fullIdent)
	delete(idents, f.fullIdent)
	if last := len(f.listed) - 1; last >= 0 && f.listed[last] != f.fullIdent {
		idents[f.listed[last]] = true
	} else if last == 0 {
		full = true
	}
	if !full && len(idents) == 0 {
		copied = copied || len(f.disks(identCopy)) > 0
	}
	var list []candidate
	if full {
		list = append(list, candidate{level: levelFull, ident: f.fullIdent, files: "full"})
	}
	if offline {
		list = append(list, candidate{level: levelInc, ident: f.fullIdent, files: f.fullIdent, offline: true})
	}
	for _, ident := range slices.SortedFunc(maps.Keys(idents), compareIdents) {
		c := candidate{level: levelInc, ident: ident, files: ident}
		if !checkpointPattern.MatchString(ident) {
			c.level = levelDiff
		}
		list = append(list, c)
	}
	if copied {
		list = append(list, candidate{level: levelCopy, ident: identCopy, files: identCopy})
	}
	return list
}

// hasConfig is true if there is a vmconfig file for the ident, readable or not.
func (f *folder) hasConfig(ident string) bool {
	_, ok := f.configs[ident]
	return ok
}

// compareIdents orders checkpoints by number, before Unix times by time.
func compareIdents(a, b string) int {
	numberA, checkpointA := identNumber(a)
	numberB, checkpointB := identNumber(b)
	if checkpointA != checkpointB {
		if checkpointA {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(numberA, numberB), cmp.Compare(a, b))
}

// identNumber returns an ident's number, and whether it is a checkpoint's. The patterns leave no room for errors.
func identNumber(ident string) (int64, bool) {
	digits, ok := strings.CutPrefix(ident, checkpointPrefix)
	number, _ := strconv.ParseInt(digits, 10, 64)
	return number, ok
}

// newest are the numbers of the newest checkpoint and the newest differential backup; -1 if there is none.
type newest struct{ checkpoint, diff int64 }

// newestFinished looks for the newest backups that have a vmconfig, once: there may be thousands of either.
func (f *folder) newestFinished() newest {
	found := newest{-1, -1}
	for ident := range f.configs {
		number, isCheckpoint := identNumber(ident)
		switch {
		case isCheckpoint:
			found.checkpoint = max(found.checkpoint, number)
		case ident != identCopy:
			found.diff = max(found.diff, number)
		}
	}
	return found
}

// superseded is true if a later backup than the given one is finished: then this one is not being written.
func (f *folder) superseded(c candidate) bool {
	number, _ := identNumber(c.ident)
	switch c.level {
	case levelFull:
		return f.finished.checkpoint > number || f.finished.diff >= 0
	case levelInc:
		return f.finished.checkpoint > number
	case levelDiff:
		// A diff comes before the next checkpoint, but after the one it builds on.
		after, _ := identNumber(f.parentOf(c))
		return f.finished.diff > number || (f.parentOf(c) != "" && f.finished.checkpoint > after)
	}
	return false
}

// anyMachine is the machine of backups whose own configuration is not there (yet).
func (f *folder) anyMachine() backup.Machine {
	for _, ident := range slices.SortedFunc(maps.Keys(f.configs), compareIdents) {
		if config := f.configs[ident]; config != nil {
			return config.machine(f.root)
		}
	}
	for _, ident := range f.listed {
		if known := f.checkpoint(ident); known.checkpoint != nil && known.domain != nil {
			return known.domain.machine(f.root)
		}
	}
	name := f.cptMachine
	if name == "" {
		name = path.Base(f.path)
	}
	if name == "." {
		name = f.root.Name()
	}
	return (&domain{Name: name}).machine(f.root)
}
