package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"ferry/internal/backup"
)

// SearchDepth is how many levels of folders below the root are searched: files in the root itself are level 0.
const SearchDepth = 3

// OfFileSystem is true for the names of folders that file systems keep for themselves, for their repair and for what was deleted. Who
// may not look into one misses no backups.
func OfFileSystem(name string) bool {
	return slices.Contains([]string{"lost+found", "System Volume Information", "$RECYCLE.BIN"}, name)
}

// listingLimit bounds the number of entries that one listing keeps in memory.
const listingLimit = 1 << 20

// Listing is what a source's folders hold, looked at once. Formats claim files in it, in the registry's order.
type Listing struct {
	Root *Root
	// Folders maps each folder's path ("." for the root) to its files, sorted by name.
	Folders map[string][]Entry
	// Unreachable has, by folder, the names in it that are no file or folder that can be looked at, and why: links that lead
	// nowhere or outside, devices, what has gone meanwhile. The name "" means that the folder was not listed to its end. What
	// formats make of a folder's files may lack something then.
	Unreachable map[string]map[string]error
	// Repositories are the folders of Ferry repositories.
	Repositories []string
	// Problems are places that could not be looked into, and what formats have to say beside their points.
	Problems []error
	// Incomplete is the first place that could not be looked into: there may be points of which the listing knows nothing. Nil:
	// everything was looked at. Links that lead nowhere, and what has gone meanwhile, hide nothing.
	Incomplete error
	claimed    map[string]bool
	closers    []io.Closer
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
// not. Anything else than files and folders is left out. What is inside a Ferry repository is not looked through.
func List(ctx context.Context, root *Root) (*Listing, error) {
	if root.root == nil {
		return &Listing{Root: root}, nil
	}
	w := &walker{ctx: ctx, listing: &Listing{
		Root: root, Folders: map[string][]Entry{}, Unreachable: map[string]map[string]error{}, claimed: map[string]bool{},
	}}
	if err := w.walk(".", 0); err != nil {
		return nil, err
	}
	return w.listing, nil
}

type walker struct {
	ctx     context.Context
	listing *Listing
	count   int
}

// walk lists a folder and those below it. Only the root's own trouble, and the end of the context, are errors.
func (w *walker) walk(folder string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := w.readFolder(folder)
	if err != nil {
		if folder == "." {
			return err
		}
		if errors.Is(err, fs.ErrPermission) && OfFileSystem(path.Base(folder)) {
			return nil
		}
		w.hidden(folder, err)
		w.unreachable(folder, "", err)
	}
	repository := w.isRepository(folder, entries)
	if repository {
		w.listing.Repositories = append(w.listing.Repositories, folder)
	}
	var files []Entry
	for _, found := range entries {
		if w.count++; w.count > listingLimit {
			w.hidden(folder, errTooManyFiles)
			w.unreachable(folder, "", errTooManyFiles)
			break
		}
		entryPath := path.Join(folder, found.Name())
		info, err := w.listing.Root.root.Stat(filepath.FromSlash(entryPath))
		w.listing.Root.calls.Heard()
		if err != nil {
			if link := found.Type()&fs.ModeSymlink != 0; link || errors.Is(err, fs.ErrNotExist) {
				w.problem(entryPath, err)
			} else {
				w.hidden(entryPath, err)
			}
			if errors.Is(err, fs.ErrNotExist) && found.Type()&fs.ModeSymlink == 0 {
				err = fmt.Errorf("%w: %w", backup.ErrVanished, err)
			}
			w.unreachable(folder, found.Name(), err)
			continue
		}
		if found.IsDir() && depth < SearchDepth && !repository {
			if err := w.walk(entryPath, depth+1); err != nil {
				return err
			}
		}
		if found.IsDir() || info.Mode().IsRegular() {
			files = append(files, Entry{Name: found.Name(), FileIdentity: identify(entryPath, info), IsFolder: info.IsDir()})
		} else if !info.IsDir() { // a link to a folder is neither followed nor missed
			w.unreachable(folder, found.Name(), errNoFile)
		}
	}
	w.listing.Folders[folder] = files
	return nil
}

// readFolder returns a folder's entries, sorted. Unlike fs.ReadDir it takes names that are not UTF-8.
func (w *walker) readFolder(folder string) ([]fs.DirEntry, error) {
	opened, err := w.listing.Root.root.Open(filepath.FromSlash(folder))
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	entries, err := opened.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

// isRepository is true for the folder of a Ferry repository, also a damaged one: it has a description, and a log or a
// description that says what it is. A file that happens to have the description's name hides nothing; what is no file, and lies in place of
// the description beside a log, does not hide that a repository is there.
func (w *walker) isRepository(folder string, entries []fs.DirEntry) bool {
	described, regular, log := false, false, false
	for _, e := range entries {
		if e.Name() == "repository.json" {
			described, regular = true, e.Type().IsRegular()
		}
		log = log || (e.Name() == "log" && e.IsDir())
	}
	if log || !regular {
		return described && log
	}
	content, _, err := w.listing.Root.ReadFile(path.Join(folder, "repository.json"), ScanLimit)
	return err == nil && bytes.Contains(content, []byte(`"ferry-repository"`))
}

func (w *walker) problem(place string, err error) {
	w.listing.Problems = append(w.listing.Problems, fmt.Errorf("%s: %w", backup.EncodeName(place), err))
}

// hidden is a problem with a place that may have points.
func (w *walker) hidden(place string, err error) {
	w.problem(place, err)
	if w.listing.Incomplete == nil {
		w.listing.Incomplete = w.listing.Problems[len(w.listing.Problems)-1]
	}
}

func (w *walker) unreachable(folder, name string, err error) {
	if w.listing.Unreachable[folder] == nil {
		w.listing.Unreachable[folder] = map[string]error{}
	}
	w.listing.Unreachable[folder][name] = err
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

var errNoFile = errors.New("neither a file nor a folder")

var errTooManyFiles = errors.New("more files than a source may have; point ferry at a folder nearer to the backups")
