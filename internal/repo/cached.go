package repo

import (
	"os"
	"path/filepath"

	"ferry/internal/cachefile"
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
