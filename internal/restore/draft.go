package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// draft is a file on its way to its name.
type draft struct {
	file *os.File
	path string
	done bool
}

func newDraft(path string) (*draft, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".ferry-restore-*")
	if err != nil {
		return nil, full(err, path)
	}
	return &draft{file: file, path: path}, nil
}

// publish syncs the file and gives it its name. Without force a file that is there is kept and is an error.
func (d *draft) publish(force bool) error {
	if err := d.file.Sync(); err != nil {
		return full(err, d.path)
	}
	if err := d.file.Close(); err != nil {
		return full(err, d.path)
	}
	var err error
	if force {
		err = os.Rename(d.file.Name(), d.path)
	} else {
		err = unix.Renameat2(unix.AT_FDCWD, d.file.Name(), unix.AT_FDCWD, d.path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = linkOrRename(d.file.Name(), d.path)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s %w", d.path, ErrExists)
	}
	if err != nil {
		return err
	}
	d.done = true
	return syncFolder(filepath.Dir(d.path))
}

// linkOrRename is for file systems that cannot rename without replacing.
func linkOrRename(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if errors.Is(err, os.ErrExist) {
		return err
	}
	if _, statErr := os.Lstat(to); statErr == nil {
		return os.ErrExist
	}
	return os.Rename(from, to)
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// drop removes the file unless it was published.
func (d *draft) drop() {
	if !d.done {
		d.file.Close()
		os.Remove(d.file.Name())
	}
}

// writeback has the kernel begin to write while there is more to come, so that the sync at the end waits for the rest only.
type writeback struct {
	file    *os.File
	written atomic.Int64
}

// writebackStep is after how many bytes the kernel is told.
const writebackStep = 32 << 20

// wrote counts bytes. It is advice that follows: where the call is not supported, the sync does it all.
func (w *writeback) wrote(n int64) {
	if after := w.written.Add(n); after/writebackStep != (after-n)/writebackStep {
		_ = unix.SyncFileRange(int(w.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
}
