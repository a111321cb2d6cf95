package virtnbdbackup

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/stream"
)

// folder is one of virtnbdbackup's folders: what its names say, and what the heads of its files do.
type folder struct {
	root    *source.Root
	path    string
	entries map[string]source.Entry
	// files are the data files that have their final name, partials those that are being written.
	files    map[fileKey]*dataFile
	partials map[fileKey]source.Entry
	// byIdent are the names of the disks by the ident of their files.
	byIdent map[string][]string
	// configs are the domains by ident; nil if the XML could not be read, with the reason in configFaults.
	configs      map[string]*domain
	configFaults map[string]error
	// sidecars are the names of files that belong to a backup, by its ident.
	sidecars map[string][]string
	// descriptions are the names of the files that describe disks' images, by disk and ident.
	descriptions map[fileKey]string
	// diffConfigTimes are the times in the names of vmconfigs of differential backups, by ident.
	diffConfigTimes map[string]int64
	// logs by level, the oldest first.
	logs map[string][]logName
	// listed are the checkpoints of the .cpt file, in its order, and cptMachine its name without the suffix.
	listed     []string
	cptMachine string
	// fullIdent is the checkpoint of the full backup.
	fullIdent string
	// finished are the newest backups that have a vmconfig.
	finished newest
	// checkpointFolder is true if there is a folder for checkpoints, and otherCheckpoints if there is any in it.
	checkpointFolder, otherCheckpoints bool

	checkpoints map[string]*knownCheckpoint
	nodes       map[fileKey]*node
	// plans are those of the candidates so far, by the ident of their files.
	plans   map[string]*plan
	machine backup.Machine
}

// look reads a folder of the listing. It returns nil if the folder is not virtnbdbackup's, and an error only if the
// context ends.
func look(ctx context.Context, listing *source.Listing, folderPath string) (*folder, error) {
	f := &folder{
		root: listing.Root, path: folderPath, entries: map[string]source.Entry{},
		files: map[fileKey]*dataFile{}, partials: map[fileKey]source.Entry{},
		configs: map[string]*domain{}, configFaults: map[string]error{}, sidecars: map[string][]string{},
		descriptions: map[fileKey]string{}, diffConfigTimes: map[string]int64{}, logs: map[string][]logName{},
		checkpoints: map[string]*knownCheckpoint{}, nodes: map[fileKey]*node{}, plans: map[string]*plan{},
	}
	var found []dataName
	var claims, rest []string
	for _, entry := range listing.Unclaimed(folderPath) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f.entries[entry.Name] = entry
		name := entry.Name
		if data, ok := parseDataName(name); ok {
			found = append(found, data)
			claims = append(claims, name)
			if data.partial {
				f.partials[data.fileKey] = entry
			}
		} else if vmconfigPattern.MatchString(name) {
			claims = append(claims, name)
			f.readConfig(name)
		} else if log, ok := parseLogName(name); ok {
			claims = append(claims, name)
			f.logs[log.level] = append(f.logs[log.level], log)
		} else if strings.HasSuffix(name, ".cpt") {
			if f.readList(name) {
				claims = append(claims, name)
			}
		} else {
			rest = append(rest, name)
		}
	}
	if len(found) == 0 && len(f.configs) == 0 && len(f.listed) == 0 {
		return nil, nil
	}
	for _, data := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !data.partial {
			f.files[data.fileKey] = f.inspect(ctx, data)
		}
	}
	if !f.recognised() {
		return nil, nil
	}
	f.lookForCheckpoints(listing)
	f.settle(rest, &claims)
	for _, name := range claims {
		listing.Claim(f.at(name))
	}
	return f, nil
}

// at is the path of a file in the folder.
func (f *folder) at(name string) string { return path.Join(f.path, name) }

// recognised is true if something in the folder can only be virtnbdbackup's.
func (f *folder) recognised() bool {
	if len(f.listed) > 0 {
		return true
	}
	for _, config := range f.configs {
		if config != nil {
			return true
		}
	}
	for _, file := range f.files {
		if !file.raw && file.meta.Version != 0 {
			return true
		}
	}
	for _, entry := range f.partials {
		head := make([]byte, stream.HeaderSize)
		file, err := f.root.Open(entry.Path)
		if err != nil {
			continue
		}
		n, _ := file.ReadAt(head, 0) // a short file is no stream
		file.Close()
		if stream.IsStream(head[:n]) {
			return true
		}
	}
	return false
}

// settle finds out what the names alone did not tell, now that all files are known.
func (f *folder) settle(rest []string, claims *[]string) {
	for _, logs := range f.logs {
		slices.SortFunc(logs, func(a, b logName) int { return a.started.Compare(b.started) })
	}
	runs := f.groupDiffs()
	f.sortDisks()
	f.fullIdent = firstCheckpoint
	for _, name := range f.disks("full") {
		file := f.files[fileKey{name, "full"}]
		if file != nil && file.fault == nil && checkpointPattern.MatchString(file.meta.Checkpoint) {
			f.fullIdent = file.meta.Checkpoint
			break
		}
	}
	f.finished = f.newestFinished()
	idents := map[string]bool{f.fullIdent: true, identCopy: true}
	for key := range f.files {
		idents[key.ident] = true
	}
	firmware := map[string]bool{}
	for ident, config := range f.configs {
		idents[ident] = true
		if config != nil {
			for _, name := range config.firmware {
				firmware[name] = true
			}
		}
	}
	for _, name := range rest {
		m := identPattern.FindStringSubmatch(name)
		if m != nil && isDiffIdent(m[2]) && (m[3] != "" || m[1] == "autostart" || firmware[m[1]]) {
			if run, ok := runOf(runs, m[2]); ok {
				m[2] = run.ident()
			}
		}
		switch {
		case m != nil && idents[m[2]]:
			f.sidecars[m[2]] = append(f.sidecars[m[2]], name)
			if m[3] != "" {
				f.descriptions[fileKey{m[1], m[2]}] = name
			}
		case isSum(name):
		case f.isCopyFirmware(name):
			f.sidecars[identCopy] = append(f.sidecars[identCopy], name)
		default:
			continue
		}
		*claims = append(*claims, name)
	}
	f.judgeImages()
	f.judgeFull()
	f.machine = f.anyMachine()
}

// isCopyFirmware: beside copy backups, loader and NVRAM keep their own names.
func (f *folder) isCopyFirmware(name string) bool {
	config := f.configs[identCopy]
	return config != nil && slices.Contains(config.firmware, name)
}

// disks returns the names of the disks that have a file or a partial file of that ident, sorted.
func (f *folder) disks(ident string) []string { return f.byIdent[ident] }

// sortDisks prepares disks.
func (f *folder) sortDisks() {
	f.byIdent = map[string][]string{}
	for key := range f.files {
		f.byIdent[key.ident] = append(f.byIdent[key.ident], key.disk)
	}
	for key := range f.partials {
		if f.files[key] == nil {
			f.byIdent[key.ident] = append(f.byIdent[key.ident], key.disk)
		}
	}
	for _, names := range f.byIdent {
		slices.Sort(names)
	}
}

// readConfig parses a vmconfig file.
func (f *folder) readConfig(name string) {
	ident := vmconfigPattern.FindStringSubmatch(name)[1]
	text, _, err := f.root.ReadFile(f.at(name), source.ScanLimit)
	if err == nil {
		f.configs[ident], err = parseDomain(text)
	}
	if err != nil {
		f.configs[ident], f.configFaults[ident] = nil, inFile(f.at(name), err)
	}
}

// readList parses a .cpt file: a JSON list of checkpoint names. It returns false if it is something else.
func (f *folder) readList(name string) bool {
	text, _, err := f.root.ReadFile(f.at(name), source.ScanLimit)
	if err != nil {
		return false
	}
	var names []string
	if json.Unmarshal(text, &names) != nil {
		return false
	}
	for _, name := range names {
		if !checkpointPattern.MatchString(name) {
			return false
		}
	}
	f.listed, f.cptMachine = names, strings.TrimSuffix(name, ".cpt")
	return true
}
