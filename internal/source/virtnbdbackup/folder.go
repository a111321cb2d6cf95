package virtnbdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	logs     []logName
	// listed are the checkpoints of the .cpt file, in its order, and cptMachine its name without the suffix.
	listed     []string
	cptMachine string
	// fullIdent is the checkpoint of the full backup.
	fullIdent string

	checkpoints map[string]*knownCheckpoint
	nodes       map[fileKey]*node
	// plans are those of the candidates so far, by the ident of their files.
	plans   map[string]*plan
	machine backup.Machine
}

// knownCheckpoint is a checkpoint's XML that was looked for: nil fields where it is not there or not readable.
type knownCheckpoint struct {
	*checkpoint
	identity *source.FileIdentity
}

// dataFile is a data file, as far as its head tells.
type dataFile struct {
	dataName
	identity source.FileIdentity
	meta     stream.Meta
	// raw is true for plain images, which have no meta.
	raw bool
	// size of the disk in bytes.
	size int64
	// head is the SHA-256 of the first 4 KiB.
	head [sha256.Size]byte
	// fault says why the file cannot be used; nil if nothing speaks against it.
	fault error
}

// checkLimit is how many bytes beyond the head a scan reads of a data file to walk over its frames.
const checkLimit = 64 << 10

// look reads a folder of the listing. It returns nil if the folder is not virtnbdbackup's, and an error only if the
// context ends.
func look(ctx context.Context, listing *source.Listing, folderPath string) (*folder, error) {
	f := &folder{
		root: listing.Root, path: folderPath, entries: map[string]source.Entry{},
		files: map[fileKey]*dataFile{}, partials: map[fileKey]source.Entry{},
		configs: map[string]*domain{}, configFaults: map[string]error{}, sidecars: map[string][]string{},
		checkpoints: map[string]*knownCheckpoint{}, nodes: map[fileKey]*node{}, plans: map[string]*plan{},
	}
	var found []dataName
	var claims, rest []string
	for _, entry := range listing.Unclaimed(folderPath) {
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
			f.logs = append(f.logs, log)
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
	f.settle(rest, &claims)
	for _, name := range claims {
		listing.Claim(f.at(name))
	}
	for _, entry := range listing.Unclaimed(path.Join(folderPath, "checkpoints")) {
		if name, ok := strings.CutSuffix(entry.Name, ".xml"); ok && checkpointPattern.MatchString(name) {
			listing.Claim(entry.Path)
		}
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
	f.sortDisks()
	f.fullIdent = firstCheckpoint
	for _, name := range f.disks("full") {
		file := f.files[fileKey{name, "full"}]
		if file != nil && file.fault == nil && checkpointPattern.MatchString(file.meta.Checkpoint) {
			f.fullIdent = file.meta.Checkpoint
			break
		}
	}
	idents := map[string]bool{f.fullIdent: true, identCopy: true}
	for key := range f.files {
		idents[key.ident] = true
	}
	for ident := range f.configs {
		idents[ident] = true
	}
	for _, name := range rest {
		m := identPattern.FindStringSubmatch(name)
		switch {
		case m != nil && idents[m[2]]:
			f.sidecars[m[2]] = append(f.sidecars[m[2]], name)
		case isSum(name):
		case f.isCopyFirmware(name):
			f.sidecars[identCopy] = append(f.sidecars[identCopy], name)
		default:
			continue
		}
		*claims = append(*claims, name)
	}
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

// checkpoint looks for the XML of a checkpoint. It may be deeper than a listing goes.
func (f *folder) checkpoint(ident string) *knownCheckpoint {
	if known := f.checkpoints[ident]; known != nil {
		return known
	}
	known := &knownCheckpoint{}
	f.checkpoints[ident] = known
	if !checkpointPattern.MatchString(ident) {
		return known
	}
	text, identity, err := f.root.ReadFile(f.at(path.Join("checkpoints", ident+".xml")), source.ScanLimit)
	if err == nil {
		known.checkpoint, err = parseCheckpoint(text, ident)
	}
	if err == nil {
		known.identity = &identity
	}
	return known
}

// inspect reads a data file's head.
func (f *folder) inspect(ctx context.Context, name dataName) *dataFile {
	fileName := name.disk + ".copy.data"
	switch name.level {
	case levelFull:
		fileName = name.disk + ".full.data"
	case levelInc, levelDiff:
		fileName = fmt.Sprintf("%s.%s.%s.data", name.disk, name.level, name.ident)
	}
	entry := f.entries[fileName]
	d := &dataFile{dataName: name, identity: entry.FileIdentity}
	file, err := f.root.Open(entry.Path)
	if err != nil {
		d.fault = inFile(entry.Path, err)
		return d
	}
	defer file.Close()
	d.identity = file.Identity()
	d.fault = inFile(entry.Path, d.readHead(ctx, file))
	return d
}

func (d *dataFile) readHead(ctx context.Context, file *source.File) error {
	head := make([]byte, min(stream.HeadSize, file.Size()))
	if n, err := file.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = backup.ErrChanged
		}
		return err
	}
	d.head = sha256.Sum256(head)
	if !stream.IsStream(head) {
		if d.level == levelCopy && file.Size() > 0 {
			d.raw, d.size = true, file.Size()
			return nil
		}
		return fmt.Errorf("%w: not a virtnbdbackup stream", backup.ErrBroken)
	}
	var err error
	if d.meta, err = stream.ReadMeta(file, file.Size(), head); err != nil {
		return err
	}
	d.size = d.meta.VirtualSize
	if err := d.plausible(); err != nil {
		return err
	}
	short := &shortReader{file: file, left: checkLimit}
	if _, err = stream.BuildIndex(ctx, short, file.Size(), d.meta); errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// plausible compares what the file says with its name: a file under a wrong name would put wrong data on a disk.
func (d *dataFile) plausible() error {
	incremental := d.level == levelInc || d.level == levelDiff
	switch {
	case d.meta.Incremental != incremental:
		return fmt.Errorf("%w: its name says %s, its content does not", backup.ErrBroken, d.level)
	case d.meta.DiskName != "" && d.meta.DiskName != d.disk:
		return fmt.Errorf("%w: it is of disk %s", backup.ErrBroken, backup.EncodeName(d.meta.DiskName))
	case d.level == levelInc && d.meta.Checkpoint != d.ident:
		return fmt.Errorf("%w: it is of checkpoint %s", backup.ErrBroken, backup.EncodeName(d.meta.Checkpoint))
	case incremental && !checkpointPattern.MatchString(d.meta.Parent):
		return fmt.Errorf("%w: it names no parent", backup.ErrBroken)
	}
	return nil
}

// errEnough ends the walk over a file's frames when the scan has read as much as it may.
var errEnough = errors.New("read enough for a scan")

// shortReader allows only so many bytes to be read.
type shortReader struct {
	file io.ReaderAt
	left int64
}

func (s *shortReader) ReadAt(p []byte, offset int64) (int, error) {
	if s.left -= int64(len(p)); s.left < 0 {
		return 0, errEnough
	}
	return s.file.ReadAt(p, offset)
}
