package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/pagecache"
)

// Root is a source's folder. Nothing outside it can be reached through it: not by "..", not by absolute paths, not by
// symbolic links. Paths are slash-separated and relative to it.
type Root struct {
	root *os.Root
	path string
	name string
	// instance keeps the machines of cloned sites apart; usually empty.
	instance string
	read     atomic.Int64
	// pace is told of bytes that are about to be read; nil: as fast as it goes.
	pace  func(bytes int) error
	calls *answer.Calls
}

// pacedAtOnce is how many bytes of a file are read at once where there is a pace, so that they flow.
const pacedAtOnce = 64 << 10

// OpenRoot opens the folder at path. An empty name means the folder's base name.
func OpenRoot(path, name string) (*Root, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(absolute)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = filepath.Base(absolute)
	}
	return &Root{root: root, path: absolute, name: name, calls: &answer.Calls{}}, nil
}

// Elsewhere is the root of a source that lies in no folder: it has no files of its own, and counts what is read. The
// location takes the place of the path. An empty name means the location.
func Elsewhere(location, name string) *Root {
	if name == "" {
		name = location
	}
	return &Root{path: location, name: name, calls: &answer.Calls{}}
}

// Name is the source's name, which takes part in the identity of machines whose format states no UUID.
func (r *Root) Name() string { return r.name }

// SetInstance gives the machines of the source an instance in their identity. It is for before the source is listed.
func (r *Root) SetInstance(instance string) { r.instance = instance }

// SetPace makes reads of files wait before each piece of at most 64 KiB until pace returns; its error is theirs. It is for
// before the source is listed.
func (r *Root) SetPace(pace func(bytes int) error) { r.pace = pace }

// SetCalls makes the calls that read the source some of those given. It is for before the source is listed.
func (r *Root) SetCalls(calls *answer.Calls) { r.calls = calls }

// Calls are the calls that read the source.
func (r *Root) Calls() *answer.Calls { return r.calls }

// MachineKey builds the key of a machine of this source, as backup.NewMachineKey does.
func (r *Root) MachineKey(platform backup.Platform, nativeID, uuid string) backup.MachineKey {
	key := backup.NewMachineKey(platform, nativeID, uuid, r.name)
	key.Instance = r.instance
	return key
}

// Path is the absolute path of the folder, for messages and for programs that open a repository in it.
func (r *Root) Path() string { return r.path }

// BytesRead counts the bytes read through files of this root since it was opened.
func (r *Root) BytesRead() int64 { return r.read.Load() }

// CountRead adds to BytesRead what was read of the folder by other means than its files.
func (r *Root) CountRead(n int) {
	r.read.Add(int64(n))
	r.calls.Heard()
}

// Close releases the folder. Files opened through it stay open.
func (r *Root) Close() error {
	if r.root == nil {
		return nil
	}
	return r.root.Close()
}

// FileIdentity is what tells whether a file is still the one that was seen before.
type FileIdentity struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	// ChangeTime is when the file system last changed the file or what it keeps of it. Programs can set ModTime back
	// after writing; this time they cannot. A chmod, a rename or a new link moves it too, which costs a read at worst.
	// It is no part of a point's id: it does not survive a copy.
	ChangeTime time.Time `json:"changeTime"`
	Device     uint64    `json:"device"`
	Inode      uint64    `json:"inode"`
}

// Same is true if nothing about the file changed: path, size, mtime, ctime, inode.
func (id FileIdentity) Same(other FileIdentity) bool {
	return id.Path == other.Path && id.Size == other.Size && id.ModTime.Equal(other.ModTime) &&
		id.ChangeTime.Equal(other.ChangeTime) && id.Inode == other.Inode && id.Device == other.Device
}

// File is an open regular file of a source. Reads count towards the root's BytesRead.
type File struct {
	file     *os.File
	root     *Root
	identity FileIdentity
	behind   *pagecache.Behind
	streamed int64 // bytes that Read has read
}

// Open opens a regular file for reading. Anything else (a pipe, a device, a folder) is refused without blocking.
// Symbolic links are followed within the root.
func (r *Root) Open(path string) (*File, error) {
	file, err := r.root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", backup.ErrVanished, err)
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", backup.EncodeName(path))
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &File{file: file, root: r, identity: identify(path, info), behind: pagecache.NewBehind(file, info.Size())}, nil
}

// Identify looks at a file without opening it, and asks its file system anew: shares across a network show for seconds what
// they showed before. A file that is gone gives an error wrapping backup.ErrVanished.
func (r *Root) Identify(path string) (FileIdentity, error) {
	info, err := r.root.Stat(filepath.FromSlash(path))
	if errors.Is(err, fs.ErrNotExist) {
		return FileIdentity{}, fmt.Errorf("%w: %w", backup.ErrVanished, err)
	}
	if err != nil {
		return FileIdentity{}, err
	}
	id := identify(path, info)
	if info.Mode().IsRegular() {
		r.askAnew(&id)
	}
	return id, nil
}

// askAnew replaces what is remembered of a regular file, here or by the kernel, by what its file system says now. Where that
// cannot be asked, it stays. What is opened as a path alone is not opened for its file system; a symbolic link is not
// followed so, and opened for reading.
func (r *Root) askAnew(id *FileIdentity) {
	for _, how := range []int{unix.O_PATH, os.O_RDONLY | unix.O_NONBLOCK} {
		file, err := r.root.OpenFile(filepath.FromSlash(id.Path), how, 0)
		if err != nil {
			return
		}
		var now unix.Statx_t
		err = unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &now)
		file.Close()
		if err == nil && now.Mode&unix.S_IFMT == unix.S_IFREG {
			id.Size, id.Inode = int64(now.Size), now.Ino
			id.ModTime = time.Unix(now.Mtime.Sec, int64(now.Mtime.Nsec)).UTC()
			id.ChangeTime = time.Unix(now.Ctime.Sec, int64(now.Ctime.Nsec)).UTC()
			return
		}
	}
}

// Revalidate returns an error wrapping backup.ErrChanged or backup.ErrVanished unless every file is as it was.
func (r *Root) Revalidate(files []FileIdentity) error {
	for _, before := range files {
		now, err := r.Identify(before.Path)
		if err != nil {
			return err
		}
		if !now.Same(before) {
			return fmt.Errorf("%s: %w", backup.EncodeName(before.Path), backup.ErrChanged)
		}
	}
	return nil
}

// ReadFile reads a small file whole. A file larger than limit bytes is refused.
func (r *Root) ReadFile(path string, limit int64) ([]byte, FileIdentity, error) {
	file, err := r.Open(path)
	if err != nil {
		return nil, FileIdentity{}, err
	}
	defer file.Close()
	if file.Size() > limit {
		return nil, file.identity, fmt.Errorf("%s has %d bytes, more than the %d allowed", backup.EncodeName(path), file.Size(), limit)
	}
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) != file.Size() {
		err = fmt.Errorf("%s: %w", backup.EncodeName(path), backup.ErrChanged)
	}
	return content, file.identity, err
}

func identify(path string, info fs.FileInfo) FileIdentity {
	id := FileIdentity{Path: path, Size: info.Size(), ModTime: info.ModTime().UTC()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id.ChangeTime = time.Unix(stat.Ctim.Unix()).UTC()
		id.Device, id.Inode = uint64(stat.Dev), stat.Ino
	}
	return id
}

// Identity of the file when it was opened.
func (f *File) Identity() FileIdentity { return f.identity }

// Size when the file was opened, in bytes.
func (f *File) Size() int64 { return f.identity.Size }

// ReadAt reads as io.ReaderAt.
func (f *File) ReadAt(p []byte, offset int64) (int, error) {
	f.behind.Reading(offset, int64(len(p)))
	return f.paced(p, func(piece []byte, done int) (int, error) { return f.file.ReadAt(piece, offset+int64(done)) })
}

// Read reads as io.Reader.
func (f *File) Read(p []byte) (int, error) {
	if f.root.pace != nil {
		p = p[:min(len(p), pacedAtOnce)]
	}
	f.behind.Reading(f.streamed, int64(len(p)))
	n, err := f.paced(p, func(piece []byte, _ int) (int, error) { return f.file.Read(piece) })
	f.streamed += int64(n)
	return n, err
}

// paced reads into p at the root's pace. read is told how much is done already.
func (f *File) paced(p []byte, read func(piece []byte, done int) (int, error)) (done int, err error) {
	pace := f.root.pace
	if pace == nil {
		done, err = read(p, 0)
		f.root.CountRead(done)
		return done, err
	}
	for done < len(p) {
		piece := p[done:min(len(p), done+pacedAtOnce)]
		if err := pace(len(piece)); err != nil {
			return done, err
		}
		n, err := read(piece, done)
		f.root.CountRead(n)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Close closes the file. What of it came into the page cache by reading it leaves that.
func (f *File) Close() error {
	f.behind.Close()
	return f.file.Close()
}

// Fd is the file's descriptor, for system calls that Go's library lacks (seeking data and holes, locks).
// It is valid until Close.
func (f *File) Fd() uintptr { return f.file.Fd() }
