package repo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ferry/internal/cachefile"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
)

// withState calls use with what setState kept, which use checks. It may be more than all else that is read of a repository when it is
// opened: so it is not left to the collector of garbage, and use must keep nothing of it.
func (c *cache) withState(use func(content []byte) error) error {
	if c.dir == "" {
		return os.ErrNotExist
	}
	file, err := os.Open(filepath.Join(c.dir, "state"))
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 || info.Size() > commitlog.MaxSize {
		return fmt.Errorf("%s has %d bytes", file.Name(), info.Size())
	}
	content, err := unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	if _, err = io.ReadFull(file, content); err == nil {
		err = use(content)
	}
	return errors.Join(err, unix.Munmap(content))
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

// keyFile is the key file that keepKeyFile kept.
func (c *cache) keyFile() (keyring.File, bool) {
	if c.dir == "" {
		return keyring.File{}, false
	}
	name, err := os.ReadFile(filepath.Join(c.dir, "key"))
	if err != nil {
		return keyring.File{}, false
	}
	return keyring.ParseFile(string(name))
}

// keepKeyFile keeps the name of the key file that opens the repository here. Not being able to costs looking for it.
func (c *cache) keepKeyFile(file keyring.File) {
	if c.dir != "" {
		_ = cachefile.Write(filepath.Join(c.dir, "key"), []byte(file.Path()))
	}
}

// KeptListing is what KeepListing has kept in this machine's cache; nil: nothing. The caller checks it.
func (r *Repository) KeptListing() []byte {
	if r.cache.dir == "" || r.description.Encrypted {
		return nil
	}
	content, err := os.ReadFile(r.cache.listingPath())
	if err != nil {
		return nil
	}
	return content
}

// KeepListing keeps what its points were listed as in this machine's cache; nil: nothing any more. Not being able to costs listing them
// again. Of an encrypted repository nothing is kept: the names in its points' files are its secret.
func (r *Repository) KeepListing(content []byte) {
	switch {
	case r.cache.dir == "" || r.description.Encrypted:
	case content == nil:
		_ = os.Remove(r.cache.listingPath()) // it may not be there
	default:
		_ = cachefile.Write(r.cache.listingPath(), content)
	}
}

func (c *cache) listingPath() string { return filepath.Join(c.dir, "listing") }
