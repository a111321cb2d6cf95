package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"ferry/internal/backup"
)

// SearchDepth is how many levels of folders below the root are searched: files in the root itself are level 0.
const SearchDepth = 3

// listingLimit bounds the number of entries that one listing keeps in memory.
const listingLimit = 1 << 20

// Listing is what a source's folders hold, looked at once. Formats claim files in it, in the registry's order.
type Listing struct {
	Root *Root
	// Folders maps each folder's path ("." for the root) to its files, sorted by name.
	Folders map[string][]Entry
	// Problems are places that could not be looked into.
	Problems []error
	claimed  map[string]bool
	closers  []io.Closer
}

// CloseWith hands over something that points of this listing are read through. It is closed with the source.
func (l *Listing) CloseWith(closer io.Closer) { l.closers = append(l.closers, closer) }

// Close closes what formats handed over, the last first. The root is its opener's.
func (l *Listing) Close() error {
	var errs []error
	for _, closer := range slices.Backward(l.closers) {
		errs = append(errs, closer.Close())
	}
	l.closers = nil
	return errors.Join(errs...)
}

// Entry is one regular file, or a folder that a format may know by its name.
type Entry struct {
	// Name is the last element of Path.
	Name string
	FileIdentity
	IsFolder bool
}

// List walks the root, three levels deep. Symbolic links to files are followed within the root, links to folders are
// not. Anything else than files and folders is left out.
func List(ctx context.Context, root *Root) (*Listing, error) {
	listing := &Listing{Root: root, Folders: map[string][]Entry{}, claimed: map[string]bool{}}
	count := 0
	var walk func(folder string, depth int) error
	walk = func(folder string, depth int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := fs.ReadDir(root.root.FS(), filepath.ToSlash(folder))
		if err != nil {
			if folder == "." {
				return err
			}
			listing.Problems = append(listing.Problems, err)
		}
		// A Ferry repository is known by one file; its many packs are nobody's to look through.
		repository := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "repository.json" && e.Type().IsRegular() })
		var files []Entry
		for _, dirEntry := range entries {
			if count++; count > listingLimit {
				listing.Problems = append(listing.Problems, &backup.Error{Offset: backup.NoOffset, Err: errTooManyFiles})
				break
			}
			entryPath := path.Join(folder, dirEntry.Name())
			info, err := root.root.Stat(filepath.FromSlash(entryPath))
			if err != nil {
				listing.Problems = append(listing.Problems, err)
				continue
			}
			entry := Entry{Name: dirEntry.Name(), FileIdentity: identify(entryPath, info), IsFolder: info.IsDir()}
			switch {
			case info.Mode().IsRegular():
			case dirEntry.IsDir():
				if depth < SearchDepth && !repository {
					if err := walk(entryPath, depth+1); err != nil {
						return err
					}
				}
			default:
				continue
			}
			files = append(files, entry)
		}
		listing.Folders[folder] = files
		return nil
	}
	if err := walk(".", 0); err != nil {
		return nil, err
	}
	return listing, nil
}

// Paths returns the folders' paths, sorted.
func (l *Listing) Paths() []string {
	paths := make([]string, 0, len(l.Folders))
	for folder := range l.Folders {
		paths = append(paths, folder)
	}
	slices.Sort(paths)
	return paths
}

// Unclaimed returns the folder's regular files that no format has claimed yet.
func (l *Listing) Unclaimed(folder string) []Entry {
	var files []Entry
	for _, entry := range l.Folders[folder] {
		if !entry.IsFolder && !l.claimed[entry.Path] {
			files = append(files, entry)
		}
	}
	return files
}

// Claim marks a file as known to a format: later formats do not see it, and it does not count as unknown.
func (l *Listing) Claim(path string) { l.claimed[path] = true }

// ClaimFolder claims every file in the folder and below it.
func (l *Listing) ClaimFolder(folder string) {
	for p, entries := range l.Folders {
		if p == folder || folder == "." || (len(p) > len(folder) && p[:len(folder)+1] == folder+"/") {
			for _, entry := range entries {
				l.claimed[entry.Path] = true
			}
		}
	}
}

// Unknown counts the files that no format claimed.
func (l *Listing) Unknown() int {
	count := 0
	for folder := range l.Folders {
		count += len(l.Unclaimed(folder))
	}
	return count
}

var errTooManyFiles = errors.New("more files than a source may have; point ferry at a folder nearer to the backups")
