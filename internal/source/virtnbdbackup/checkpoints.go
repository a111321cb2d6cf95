package virtnbdbackup

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// checkpointsName is the folder of the checkpoints' XML files.
const checkpointsName = "checkpoints"

// knownCheckpoint is a checkpoint's XML that was looked for: nil fields where it is not there or not readable.
type knownCheckpoint struct {
	*checkpoint
	identity *source.FileIdentity
}

// checkpointPath is where the XML of a checkpoint belongs.
func (f *folder) checkpointPath(ident string) string {
	return f.at(path.Join(checkpointsName, ident+".xml"))
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
	text, identity, err := f.root.ReadFile(f.checkpointPath(ident), source.ScanLimit)
	if err == nil {
		known.checkpoint, err = parseCheckpoint(text, ident)
	}
	if err == nil {
		known.identity = &identity
	}
	return known
}

// lookForCheckpoints finds out whether checkpoints are kept beside the backups, and claims them.
func (f *folder) lookForCheckpoints(listing *source.Listing) {
	f.checkpointFolder = slices.ContainsFunc(listing.Folders[f.path], func(entry source.Entry) bool {
		return entry.IsFolder && entry.Name == checkpointsName
	})
	for _, entry := range listing.Unclaimed(path.Join(f.path, checkpointsName)) {
		if name, ok := strings.CutSuffix(entry.Name, ".xml"); ok && checkpointPattern.MatchString(name) {
			f.otherCheckpoints = true
			listing.Claim(entry.Path)
		}
	}
}

// checkpointAwaited says that a backup's checkpoint is still to come: its creation time is part of the backup's
// identity, which must not change when it arrives. A folder that was moved without its checkpoints will not get them.
func (f *folder) checkpointAwaited(c candidate) error {
	if !f.namedByCheckpoint(c) || !f.checkpointFolder || f.checkpoint(c.ident).checkpoint != nil {
		return nil
	}
	if !f.otherCheckpoints && !slices.Contains(f.listed, c.ident) {
		return nil
	}
	return fmt.Errorf("%w: its checkpoint file %s has not arrived, or not whole", backup.ErrLocked, path.Join(checkpointsName, c.ident+".xml"))
}

// namedByCheckpoint is true for backups that made a checkpoint of their own.
func (f *folder) namedByCheckpoint(c candidate) bool {
	return (c.level == levelFull || c.level == levelInc) && !c.offline
}
