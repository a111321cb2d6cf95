package repo

import (
	"os"
	"path/filepath"

	"ferry/internal/cachefile"
	"ferry/internal/repo/format"
)

// state is what setState kept; nil if there is nothing. The caller checks it.
func (c *cache) state() []byte {
	if c.dir == "" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(c.dir, "state"))
	if err != nil {
		return nil
	}
	return content
}

func (c *cache) setState(content []byte) error {
	return cachefile.Write(filepath.Join(c.dir, "state"), content)
}

// point is the file of a point that keepPoint kept; nil if there is none. The caller checks it.
func (c *cache) point(checksum format.ID) []byte {
	content, err := os.ReadFile(filepath.Join(c.dir, pointPath(checksum)))
	if err != nil {
		return nil
	}
	return content
}

// keepPoint keeps the file of a point. Not being able to costs reading it again.
func (c *cache) keepPoint(checksum format.ID, content []byte) {
	_ = cachefile.Write(filepath.Join(c.dir, pointPath(checksum)), content)
}

// dropPoints removes the files of points that the repository has no more.
func (c *cache) dropPoints(live map[format.ID]bool) {
	entries, err := os.ReadDir(filepath.Join(c.dir, "points"))
	if err != nil || len(entries) <= len(live) {
		return
	}
	for _, entry := range entries {
		var id format.ID
		if id.UnmarshalText([]byte(entry.Name())) == nil && !live[id] {
			os.Remove(filepath.Join(c.dir, "points", entry.Name()))
		}
	}
}
