// Package fs keeps a store's objects as files below a folder: on a local disk, a removable one, or a mounted share.
//
// What it does for the promises of package storage:
//
//   - An object is written to a file without a name (O_TMPFILE) in the folder it belongs to, synced, and then linked
//     to its name. The link fails if the name is taken, and a killed writer leaves nothing behind. Where that is not
//     supported, the file gets a name below tmp/ first, and is then linked, or renamed with RENAME_NOREPLACE. A medium
//     that can do none of these is refused with storage.ErrUnsuitable. Which way works is tried out at the first write.
//   - The folder is synced after a name was made in it, and so is the parent of every folder that is used.
//   - Files below tmp/ are locked by their writers. Those that nobody holds were left by a crash; they are removed at the
//     first write. tmp/ is not part of the store: names in it are refused, and listings leave it out.
//
// Objects have mode 0600 and folders 0700, further limited by the umask: a repository that is not encrypted holds the
// disks of virtual machines, and with them the secrets of all their users. The mode of a folder that exists is left
// alone, so an administrator can decide otherwise about the repository's own.
//
// The medium may have been in other hands: inside the store no symbolic link is followed, and nothing but regular files
// is opened. Only the path given to Open or Create may lead through links.
//
// The package needs Linux.
package fs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ferry/internal/pagecache"
	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// Modes of what is made; the package comment says why they are narrow.
const (
	fileMode   = 0o600
	folderMode = 0o700
)

// Store is a storage.Store in a folder. It holds the folder open: a file system that is mounted over it or moved
// while the store is open does not lead objects astray.
type Store struct {
	path string
	root *os.File
	// distant is true on a network's file system where each write waits for the server.
	distant bool
	// made are the folders that Create made, those above before those in them.
	made []string

	// mu guards the fields below.
	mu sync.Mutex
	// ready is true once orphans were removed and how was chosen.
	ready bool
	how   method
	// durable has the folders whose own names are known to be on disk.
	durable map[string]bool
	// lockUntil says until when what is published is locked; nil: it is not.
	lockUntil func(name string) time.Time
}

var (
	_ storage.Store    = (*Store)(nil)
	_ storage.Measured = (*Store)(nil)
)

// Open opens the store in an existing folder; nothing is written until the first object is. It gives
// storage.ErrNotExist if there is no such folder.
func Open(path string) (*Store, error) {
	root, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("folder %s: %w", path, storage.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("opening folder %s: %w", path, cause(err))
	}
	return &Store{path: path, root: root, distant: isDistant(root), durable: map[string]bool{}}, nil
}

// Create makes the folder, and its parents, unless they exist, opens it, and probes whether it is fit for a
// repository: storage.ErrUnsuitable if it is not. A failure leaves nothing.
func Create(path string) (*Store, error) {
	made, err := makeRoot(filepath.Clean(path))
	if err != nil {
		removeEmpty(made)
		return nil, err
	}
	store, err := Open(path)
	if err != nil {
		removeEmpty(made)
		return nil, err
	}
	store.made = made
	if _, err := statAt(store.root, tmpFolder); errors.Is(err, unix.ENOENT) { // the probe makes it
		store.made = append(store.made, store.pathOf(tmpFolder))
	}
	if err := store.Probe(context.Background()); err != nil {
		store.Withdraw()
		store.Close()
		return nil, err
	}
	return store, nil
}

// Withdraw removes the folders that Create made, as far as nothing lies in them: no repository was made after all.
func (s *Store) Withdraw() { removeEmpty(s.made) }

// removeEmpty removes those of some folders, each behind the one that it lies in, that are empty. What stays is in nobody's way.
func removeEmpty(folders []string) {
	for _, folder := range slices.Backward(folders) {
		_ = unix.Rmdir(folder)
	}
}

// makeRoot makes a folder and its missing parents, each synced into the one above, and returns which it made.
func makeRoot(folder string) (made []string, err error) {
	info, err := os.Stat(folder)
	switch {
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder", folder)
	case err == nil:
		return nil, nil
	case !errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("looking at %s: %w", folder, cause(err))
	}
	above := filepath.Dir(folder)
	if made, err = makeRoot(above); err != nil {
		return made, err
	}
	switch err := os.Mkdir(folder, folderMode); {
	case err == nil:
		made = append(made, folder)
	case !errors.Is(err, unix.EEXIST):
		return made, describe("making folder", folder, err)
	}
	parent, err := os.Open(above)
	if errors.Is(err, unix.EACCES) {
		// A parent that may be written but not read cannot be opened to be synced. Folders like that are rare and
		// the loss is a folder that is plainly missing.
		return made, nil
	}
	if err != nil {
		return made, describe("opening folder", above, err)
	}
	defer parent.Close()
	return made, describe("syncing folder", above, syncFolder(parent))
}

// Location is the path as it was given.
func (s *Store) Location() string { return s.path }

// Free is what the file system has left for who is not its administrator. Quotas that it does not tell of are not counted. It is not
// known where the file system tells no size at all, as some that FUSE serves.
func (s *Store) Free(ctx context.Context) (free int64, known bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	var status unix.Statfs_t
	if err := unix.Fstatfs(int(s.root.Fd()), &status); err != nil {
		return 0, false, describe("asking for the space left in", s.path, err)
	}
	if status.Blocks == 0 || status.Frsize <= 0 {
		return 0, false, nil
	}
	return int64(min(status.Bavail, math.MaxInt64/uint64(status.Frsize))) * status.Frsize, true, nil
}

// Close releases the folder. Writers and readers that are still open stay usable; the store's methods fail.
func (s *Store) Close() error { return s.root.Close() }

// Open opens an object for reading.
func (s *Store) Open(ctx context.Context, name string) (storage.Reader, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	folder, err := s.folder(path.Dir(name))
	if err != nil {
		return nil, s.readError("opening", name, err)
	}
	defer folder.Close()
	file, err := openObject(folder, path.Base(name))
	if err != nil {
		return nil, s.readError("opening", name, err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, s.readError("opening", name, err)
	}
	return newReader(file, info.Size(), s.pathOf(name)), nil
}

// Stat describes an object. Modified is the file's modification time, which Commit sets by the file system's clock.
func (s *Store) Stat(ctx context.Context, name string) (storage.Info, error) {
	if err := check(ctx, name); err != nil {
		return storage.Info{}, err
	}
	folder, err := s.folder(path.Dir(name))
	if err != nil {
		return storage.Info{}, s.readError("looking at", name, err)
	}
	defer folder.Close()
	status, err := statAt(folder, path.Base(name))
	if err == nil {
		err = regular(status)
	}
	if err != nil {
		return storage.Info{}, s.readError("looking at", name, err)
	}
	return describeFile(name, status), nil
}

// Delete removes an object's name. It is not synced: a pack that comes back after a power cut is garbage that the
// next reclaim removes again. SyncDeletes is for what must not come back.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	folder, err := s.folder(path.Dir(name))
	if err == nil {
		defer folder.Close()
		err = control(folder, func(fd int) error { return unix.Unlinkat(fd, path.Base(name), 0) })
	}
	if folder != nil && errors.Is(err, unix.EPERM) { // what cannot be removed may be locked
		if err = s.unlock(ctx, name, err); err != nil {
			return err
		}
		err = control(folder, func(fd int) error { return unix.Unlinkat(fd, path.Base(name), 0) })
	}
	// A folder's name is not an object's: there is nothing to delete.
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EISDIR) {
		return nil
	}
	return s.writeError("deleting", name, err)
}

// SyncDeletes makes durable that names are gone from a folder.
func (s *Store) SyncDeletes(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := storage.CheckPrefix(name); err != nil {
		return err
	}
	folder, err := s.folder(path.Clean(name))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		defer folder.Close()
		err = syncFolder(folder)
	}
	return s.writeError("syncing", name, err)
}

// check is what every method with a name asks first.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return storage.CheckName(name)
}

// reader reads one file.
type reader struct {
	file   *os.File
	size   int64
	path   string
	behind *pagecache.Behind
}

func newReader(file *os.File, size int64, path string) *reader {
	return &reader{file: file, size: size, path: path, behind: pagecache.NewBehind(file, size)}
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.file.ReadAt(p, off)
	var place *os.PathError
	if errors.As(err, &place) {
		// The file's own name in the error is its base name only.
		err = fmt.Errorf("reading %s at offset %d: %w", r.path, off, place.Err)
	}
	return n, err
}

func (r *reader) Close() error {
	r.behind.Close()
	return r.file.Close()
}
