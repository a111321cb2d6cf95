package virtnbdbackup

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"ferry/internal/source"
)

// diffFile is a data file of a differential backup, finished or not, by its name.
type diffFile struct {
	fileKey
	seconds int64
	// parent and date are what the stream says; empty if it does not (yet).
	parent string
	date   time.Time
}

// diffRun is one differential backup. virtnbdbackup looks at the clock anew for each name it makes up: when it begins
// each disk, and after the transfer for the vmconfig and again for each file behind it. So the names of one backup
// differ by seconds, or by hours, and only their order tells what belongs together.
type diffRun struct {
	files []diffFile
	// begun is the time of the first data file, or of the vmconfig if there is no data. It never changes again once
	// the backup is whole, and identifies it.
	begun int64
	// config is the time in the name of the vmconfig; -1 without one.
	config int64
}

func (r diffRun) ident() string { return strconv.FormatInt(r.begun, 10) }

// groupDiffs finds the differential backups, and files all that the folder knows of each under one ident, the time it
// was begun. It returns them, the oldest first.
func (f *folder) groupDiffs() []diffRun {
	runs := f.diffRuns(f.diffFiles(), f.diffConfigs())
	files, partials := map[fileKey]*dataFile{}, map[fileKey]source.Entry{}
	configs, faults := map[string]*domain{}, map[string]error{}
	for _, run := range runs {
		for _, file := range run.files {
			key := fileKey{file.disk, run.ident()}
			if found := f.files[file.fileKey]; found != nil {
				found.ident, found.seconds = key.ident, file.seconds
				files[key] = found
				delete(f.files, file.fileKey)
			}
			if partial, ok := f.partials[file.fileKey]; ok {
				partials[key] = partial
				delete(f.partials, file.fileKey)
			}
		}
		if run.config >= 0 {
			named := strconv.FormatInt(run.config, 10)
			configs[run.ident()] = f.configs[named]
			delete(f.configs, named)
			if fault := f.configFaults[named]; fault != nil {
				faults[run.ident()] = fault
				delete(f.configFaults, named)
			}
			f.diffConfigTimes[run.ident()] = run.config
		}
	}
	maps.Copy(f.files, files)
	maps.Copy(f.partials, partials)
	maps.Copy(f.configs, configs)
	maps.Copy(f.configFaults, faults)
	return runs
}

// diffFiles lists the data files of all differential backups by time.
func (f *folder) diffFiles() []diffFile {
	keys := map[fileKey]bool{}
	for key, file := range f.files {
		if file.level == levelDiff {
			keys[key] = true
		}
	}
	for key := range f.partials {
		if isDiffIdent(key.ident) {
			keys[key] = true
		}
	}
	list := make([]diffFile, 0, len(keys))
	for key := range keys {
		file := diffFile{fileKey: key}
		file.seconds, _ = identNumber(key.ident)
		if found := f.files[key]; found != nil {
			file.parent = found.meta.Parent
			file.date, _ = found.date()
		}
		list = append(list, file)
	}
	slices.SortFunc(list, func(a, b diffFile) int {
		return cmp.Or(cmp.Compare(a.seconds, b.seconds), cmp.Compare(a.disk, b.disk))
	})
	return list
}

// diffConfigs lists the times in the names of the vmconfigs of differential backups, ascending.
func (f *folder) diffConfigs() []int64 {
	var times []int64
	for ident := range f.configs {
		if isDiffIdent(ident) {
			seconds, _ := identNumber(ident)
			times = append(times, seconds)
		}
	}
	slices.Sort(times)
	return times
}

// diffRuns gives each vmconfig the data that was begun before it and after the vmconfig before it. Backups of one
// machine do not overlap, so that is all of its backup; and what a backup that was killed left behind, which is split
// off.
func (f *folder) diffRuns(files []diffFile, configs []int64) []diffRun {
	var runs []diffRun
	for _, config := range configs {
		end := sort.Search(len(files), func(i int) bool { return files[i].seconds > config })
		closed := f.splitRuns(files[:end])
		if len(closed) == 0 {
			closed = []diffRun{{begun: config}}
		}
		closed[len(closed)-1].config = config
		for i := range closed[:len(closed)-1] {
			closed[i].config = -1
		}
		runs, files = append(runs, closed...), files[end:]
	}
	for _, run := range f.splitRuns(files) {
		run.config = -1
		runs = append(runs, run)
	}
	return runs
}

// splitRuns splits data files, sorted by time, where a newer backup begins: where a disk would come twice, where the
// files build on another checkpoint, and where a log was begun in between. Files of the same second stay together.
func (f *folder) splitRuns(files []diffFile) []diffRun {
	var runs []diffRun
	end := len(files)
	disks, parent, earliest := map[string]bool{}, "", time.Time{}
	cut := func(start int) {
		if start < end {
			runs = append(runs, diffRun{files: files[start:end], begun: files[start].seconds})
			end = start
			disks, parent, earliest = map[string]bool{}, "", time.Time{}
		}
	}
	for last := len(files); last > 0; {
		first := last - 1
		for first > 0 && files[first-1].seconds == files[first].seconds {
			first--
		}
		for _, file := range files[first:last] {
			if disks[file.disk] || (parent != "" && file.parent != "" && file.parent != parent) || f.diffBegan(file.date, earliest) {
				cut(last)
				break
			}
		}
		for _, file := range files[first:last] {
			disks[file.disk] = true
			parent = cmp.Or(parent, file.parent)
			if !file.date.IsZero() && (earliest.IsZero() || file.date.Before(earliest)) {
				earliest = file.date
			}
		}
		last = first
	}
	cut(0)
	slices.Reverse(runs)
	return runs
}

// diffBegan is true if the log of a differential backup was begun after one stream and not after another. Dates of
// logs and streams are local time of the same host.
func (f *folder) diffBegan(after, until time.Time) bool {
	if after.IsZero() || until.IsZero() {
		return false
	}
	log, ok := f.lastLog(string(levelDiff), until)
	return ok && log.started.After(after)
}

// runOf finds the backup that a file named with that time belongs to: the last one begun by then.
func runOf(runs []diffRun, ident string) (diffRun, bool) {
	seconds, _ := identNumber(ident)
	i := sort.Search(len(runs), func(i int) bool { return runs[i].begun > seconds })
	if i == 0 {
		return diffRun{}, false
	}
	return runs[i-1], true
}

// isDiffIdent is true for Unix times.
func isDiffIdent(ident string) bool {
	return ident != identCopy && ident != string(levelFull) && !strings.HasPrefix(ident, checkpointPrefix)
}

// lateSeconds is how long after the vmconfig of a differential backup its last files are looked for. Only firmware is
// copied and images are described in that time.
const lateSeconds = 30

// lateNames are the names that a file of the candidate may come to have; stem and suffix are around the ident.
func (f *folder) lateNames(c candidate, stem, suffix string) []string {
	if c.level != levelDiff {
		return []string{stem + "." + c.ident + suffix}
	}
	var names []string
	for seconds := f.diffConfigTimes[c.ident]; len(names) <= lateSeconds; seconds++ {
		names = append(names, stem+"."+strconv.FormatInt(seconds, 10)+suffix)
	}
	return names
}

// diffLacks says why a differential backup should have a file of the disk; "" if it was left out. That the disk's
// description is not there says nothing here: it is written after the vmconfig, and the disk with it may have been
// begun long before.
func (f *folder) diffLacks(c candidate, disk disk) string {
	if f.describes(c, disk.Target.Dev) {
		return lackDescribed
	}
	parent := candidate{level: levelInc, ident: f.parentOf(c), files: f.parentFiles(c)}
	if parent.files == string(levelFull) {
		parent.level = levelFull
	}
	switch {
	case parent.ident == "" && !disk.saved():
		return ""
	case parent.ident == "":
		return lackUnknown
	case f.files[fileKey{disk.Target.Dev, parent.files}] == nil:
		return f.lacks(parent, disk)
	}
	if known := f.checkpoint(parent.ident); known.checkpoint != nil {
		if saved, listed := known.disks[disk.Target.Dev]; listed && !saved {
			return ""
		}
	}
	return "the backup it builds on has the disk"
}
