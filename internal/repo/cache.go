package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ferry/internal/cachefile"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// cache is what this machine keeps of a repository: the last head it saw, and its index segments as files that are
// mapped into memory. It can be thrown away at any time; what is lost is only time, and the memory of the head.
type cache struct {
	dir       string // empty: keep nothing
	encrypted bool
}

// seenHead is what the cache knows of a repository's history.
type seenHead struct {
	// Head is what the repository must have: the newest entry but passing ones.
	commitlog.Head
	// Newest is the newest entry, where passing ones are all that came after that; else zero.
	Newest    commitlog.Head `json:"newest,omitzero"`
	Encrypted bool           `json:"encrypted,omitempty"`
}

// is true if an entry is the last that was seen, or the last that must be there.
func (s seenHead) is(head commitlog.Head) bool {
	return head.N > 0 && (head == s.Head || head == s.Newest)
}

func newCache(base string, repository format.Description) *cache {
	if base == "" {
		return &cache{}
	}
	return &cache{dir: filepath.Join(base, repository.ID.String()), encrypted: repository.Encrypted}
}

// wasEncrypted is true if the repository was when this machine saw it last.
func (c *cache) wasEncrypted() bool { return c.seen().Encrypted }

// seen is zero if nothing was, or it cannot be read.
func (c *cache) seen() seenHead {
	var seen seenHead
	if c.dir == "" {
		return seen
	}
	content, err := os.ReadFile(filepath.Join(c.dir, "head.json"))
	if err != nil || json.Unmarshal(content, &seen) != nil {
		return seenHead{}
	}
	return seen
}

// setHead remembers the head that the repository must have, and the newest. A cache that cannot be written is not an error of the commit it belongs to; Adopt, whose
// only purpose it is, returns it.
func (c *cache) setHead(head, newest commitlog.Head) error {
	if c.dir == "" {
		return nil
	}
	seen := seenHead{Head: head, Encrypted: c.encrypted}
	if newest != head {
		seen.Newest = newest
	}
	content, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	return cachefile.Write(filepath.Join(c.dir, "head.json"), content)
}

// checkNote says that a cached segment was read whole and its checksum compared, and tells the file from any other that
// may be at its place since.
type checkNote struct {
	Checksum format.ID `json:"checksum"`
	Size     int64     `json:"size"`
	Modified int64     `json:"modified"` // nanoseconds
	Inode    uint64    `json:"inode"`
}

const noteSuffix = ".checked"

func (c *cache) segmentPath(id format.Name) string { return filepath.Join(c.dir, "index", id.String()) }

func noteOf(file *os.File, checksum format.ID) (checkNote, error) {
	info, err := file.Stat()
	if err != nil {
		return checkNote{}, err
	}
	note := checkNote{Checksum: checksum, Size: info.Size(), Modified: info.ModTime().UnixNano()}
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		note.Inode = system.Ino
	}
	return note, nil
}

// segment opens a cached segment, or returns nil. It is read and checked once: when it is not noted that it was.
func (c *cache) segment(segment commitlog.Segment, hasher *format.Hasher) *index.Segment {
	if c.dir == "" {
		return nil
	}
	path := c.segmentPath(segment.ID)
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	note, err := noteOf(file, segment.Checksum)
	if err != nil || note.Size != segment.Size {
		file.Close()
		return nil
	}
	var noted checkNote
	content, err := os.ReadFile(path + noteSuffix)
	checked := err == nil && json.Unmarshal(content, &noted) == nil && noted == note
	opened, err := index.OpenFile(file, hasher, checked)
	if err != nil {
		return nil
	}
	if opened.Checksum() != segment.Checksum {
		opened.Close()
		return nil
	}
	if !checked {
		_ = c.note(path, note) // it is checked again then
	}
	return opened
}

func (c *cache) note(path string, note checkNote) error {
	content, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return cachefile.Write(path+noteSuffix, content)
}

// file makes a file without a name for a segment: in the cache, where keep can name it, or else among the system's
// temporary files.
func (c *cache) file() (*os.File, error) {
	if c.dir != "" {
		folder := filepath.Join(c.dir, "index")
		if err := os.MkdirAll(folder, 0o700); err == nil {
			if fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
				return os.NewFile(uintptr(fd), filepath.Join(folder, "unnamed")), nil
			}
		}
	}
	file, err := os.CreateTemp("", "ferry-index-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// keep names a file that holds a whole segment which was checked. What cannot be kept is fetched again the next time.
func (c *cache) keep(file *os.File, id format.Name, checksum format.ID) error {
	if c.dir == "" {
		return nil
	}
	if err := file.Sync(); err != nil { // else the name can be durable before the content
		return err
	}
	path := c.segmentPath(id)
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) { // another process was first, or the file there is a damaged one
		if err = os.Remove(path); err == nil {
			err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
		}
	}
	if err != nil {
		return err
	}
	note, err := noteOf(file, checksum)
	if err != nil {
		return err
	}
	return c.note(path, note)
}

// drop removes a cached segment.
func (c *cache) drop(id format.Name) {
	if c.dir != "" {
		os.Remove(c.segmentPath(id))
		os.Remove(c.segmentPath(id) + noteSuffix)
	}
}

// dropSegments removes cached segments that the repository has no more.
func (c *cache) dropSegments(live func(format.Name) bool) {
	if c.dir == "" {
		return
	}
	entries, err := os.ReadDir(filepath.Join(c.dir, "index"))
	if err != nil {
		return
	}
	for _, entry := range entries {
		var id format.Name
		if id.UnmarshalText([]byte(strings.TrimSuffix(entry.Name(), noteSuffix))) == nil && !live(id) {
			os.Remove(filepath.Join(c.dir, "index", entry.Name()))
		}
	}
}
