package repo

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"ferry/internal/cachefile"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

// cache is what this machine keeps of a repository: the last head it saw, and its index segments as files that are
// mapped into memory. It can be thrown away at any time; what is lost is only time, and the memory of the head.
type cache struct {
	dir       string // empty: keep nothing
	encrypted bool
	mu        sync.Mutex
	// maps are mapped files, unmapped when the repository is closed.
	maps [][]byte
}

// seenHead is what the cache knows of a repository's history.
type seenHead struct {
	commitlog.Head
	Encrypted bool `json:"encrypted,omitempty"`
}

func newCache(base string, repository format.Description) *cache {
	if base == "" {
		return &cache{}
	}
	return &cache{dir: filepath.Join(base, repository.ID.String()), encrypted: repository.Encrypted}
}

func (c *cache) head() (commitlog.Head, bool) {
	seen := c.seen()
	return seen.Head, seen.N > 0
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

// setHead remembers a head. A cache that cannot be written is not an error of the commit it belongs to; Adopt, whose
// only purpose it is, returns it.
func (c *cache) setHead(head commitlog.Head) error {
	if c.dir == "" {
		return nil
	}
	content, err := json.Marshal(seenHead{Head: head, Encrypted: c.encrypted})
	if err != nil {
		return err
	}
	return c.write("head.json", content)
}

func (c *cache) write(name string, content []byte) error {
	return cachefile.Write(filepath.Join(c.dir, name), content)
}

func segmentPath(id format.Name) string { return filepath.Join("index", id.String()) }

// segment returns a cached segment's bytes, mapped; nil if it is not there. The caller checks them.
func (c *cache) segment(id format.Name) []byte {
	if c.dir == "" {
		return nil
	}
	file, err := os.Open(filepath.Join(c.dir, segmentPath(id)))
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	c.maps = append(c.maps, mapped)
	c.mu.Unlock()
	return mapped
}

// keepSegment caches a segment and returns its bytes as they should be used: mapped if that works.
func (c *cache) keepSegment(id format.Name, content []byte) []byte {
	if c.dir == "" || c.write(segmentPath(id), content) != nil {
		return content
	}
	if mapped := c.segment(id); len(mapped) == len(content) {
		return mapped
	}
	return content
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
		if id.UnmarshalText([]byte(entry.Name())) == nil && !live(id) {
			os.Remove(filepath.Join(c.dir, "index", entry.Name()))
		}
	}
}

func (c *cache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	for _, mapped := range c.maps {
		if err := unix.Munmap(mapped); err != nil && first == nil {
			first = err
		}
	}
	c.maps = nil
	return first
}
