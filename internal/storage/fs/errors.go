package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/backup"
	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// notFile says what lies where a file is expected.
type notFile string

func (e notFile) Error() string { return string(e) }

func (e notFile) Is(target error) bool {
	return target == storage.ErrNotFile || e == isFolder && target == storage.ErrNotExist
}

const (
	isLink   notFile = "is a symbolic link, which a repository does not follow"
	isFolder notFile = "is a folder, not a file"
	isOther  notFile = "is not a regular file"
	// isTaken is isFolder for what was to be written there.
	isTaken notFile = "a folder lies there, which is left alone"
)

// errLink: a symbolic link lies where a folder of the store is expected. It is no object, nor in place of one.
var errLink = errors.New(string(isLink))

// pathOf returns where an object lies, for messages.
func (s *Store) pathOf(name string) string { return filepath.Join(s.path, name) }

// readError describes a failure to find or open an object.
func (s *Store) readError(doing, name string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", s.pathOf(name), storage.ErrNotExist)
	}
	return s.writeError(doing, name, err)
}

// writeError describes a failure to make, publish or remove an object.
func (s *Store) writeError(doing, name string, err error) error {
	return describe(doing, s.pathOf(name), err)
}

// describe says what was being done to which path, and gives errors of the system the meaning that package storage
// has for them. A missing file is not storage.ErrNotExist here: in a write it is a folder that went away.
func describe(doing, path string, err error) error {
	switch err = cause(err); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w", path, storage.ErrExists)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint := "free space there, then run it again"
		if errors.Is(err, unix.EDQUOT) {
			hint = "raise the quota that applies there, then run it again"
		}
		return &backup.Error{
			Offset: backup.NoOffset,
			Hint:   hint,
			Err:    fmt.Errorf("%s %s: %w (%w)", doing, path, storage.ErrFull, err),
		}
	case errors.Is(err, unix.ELOOP):
		err = errLink
	}
	return fmt.Errorf("%s %s: %w", doing, path, err)
}

// cause strips what package os says about the place: it knows base names only.
func cause(err error) error {
	var place *os.PathError
	if errors.As(err, &place) {
		return place.Err
	}
	return err
}

// regular refuses what is not a regular file.
func regular(status unix.Stat_t) error {
	switch status.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return isLink
	case unix.S_IFDIR:
		// A flat store has no folders: a folder's name is not an object's.
		return isFolder
	}
	return isOther
}

// describeFile gives an object's description from its file's.
func describeFile(name string, status unix.Stat_t) storage.Info {
	return storage.Info{Name: name, Size: status.Size, Modified: time.Unix(status.Mtim.Unix())}
}
