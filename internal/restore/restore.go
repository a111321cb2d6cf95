// Package restore writes a point's disks, archives and configuration into a folder.
//
// Each file is written under a temporary name beside its final one, synced, and given its name only when all of it is
// proven. Disks are sparse: what is zeros takes no space.
package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// ErrExists: a file is there already, and overwriting was not asked for.
var ErrExists = errors.New("exists already")

// Options of a restore.
type Options struct {
	// Force overwrites files that are there.
	Force bool
	// SHA256 computes each file's SHA-256 for restore.json.
	SHA256 bool
	// SkipDamaged writes zeros where a disk cannot be read, and a map of these places beside it.
	SkipDamaged bool
	// Progress, if set, is given the counters when the restore begins.
	Progress func(*Progress)
}

// Progress counts bytes of all objects, holes included; it may be read at any time.
type Progress struct {
	Total, Done atomic.Int64
}

// File is a restored file.
type File struct {
	// Path relative to the folder.
	Path string
	Role backup.Role
	// Name of the object, as the source gave it.
	Name string
	Size int64
	// Root is the tree's root id, which proves the content; empty for inline objects.
	Root string
	// SHA256 of the file in hex, if asked for.
	SHA256 string
	// Damaged are the ranges that could not be read and are zeros in the file, ascending and merged; Map is the file beside
	// it that says so, relative to the folder.
	Damaged []Range
	Map     string

	object int
}

// Range of a file, in bytes.
type Range struct {
	Offset, Length int64
}

// Result of a restore.
type Result struct {
	Files []File
	// Commands bring the machine back on its platform, for a person to read and adapt.
	Commands []string
}

// Missing is how many bytes could not be restored.
func (r Result) Missing() int64 {
	missing := int64(0)
	for _, file := range r.Files {
		for _, damaged := range file.Damaged {
			missing += damaged.Length
		}
	}
	return missing
}

// Restore writes the point's objects below dir, which is made if needed. Nothing is overwritten without Force. If an
// error is returned, files that were finished stay, and no other has its final name. Damage gives an error that wraps
// backup.ErrDamaged with object and offset, unless SkipDamaged is set: then Result.Missing tells.
func Restore(ctx context.Context, repository *repo.Repository, point *repo.Point, dir string, options Options) (Result, error) {
	files := Layout(point)
	if !options.Force {
		for _, file := range append(files, File{Path: restoreJSON}) {
			if _, err := os.Lstat(filepath.Join(dir, file.Path)); err == nil {
				return Result{}, &backup.Error{
					Machine: point.Machine.Name, Point: point.ID.Short(), Offset: backup.NoOffset,
					Err: fmt.Errorf("%s %w", filepath.Join(dir, file.Path), ErrExists), Hint: "restore to another folder, or overwrite with --force",
				}
			}
		}
	}
	release, err := repository.KeepHeld(ctx, point.ID, "restored")
	if err != nil {
		return Result{}, inPoint(point, "", err)
	}
	defer release()
	progress := &Progress{}
	for _, object := range point.Objects {
		progress.Total.Add(object.Size)
	}
	if options.Progress != nil {
		options.Progress(progress)
	}
	for i := range files {
		if err := restoreFile(ctx, repository, point, dir, &files[i], options, progress); err != nil {
			return Result{}, inPoint(point, point.Objects[files[i].object].Name, err)
		}
	}
	if err := writeDescription(repository, point, dir, files, options); err != nil {
		return Result{}, inPoint(point, "", err)
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return Result{}, inPoint(point, "", err)
	}
	return Result{Files: files, Commands: commands(point, absolute, files)}, nil
}

// inPoint adds machine, point and object to an error, keeping an offset that it has.
func inPoint(point *repo.Point, object string, err error) error {
	offset, hint := backup.NoOffset, ""
	var there *backup.Error
	if errors.As(err, &there) {
		if there.Machine != "" {
			return err
		}
		offset, hint, err = there.Offset, there.Hint, there.Err
	}
	return &backup.Error{Machine: point.Machine.Name, Point: point.ID.Short(), Object: object, Offset: offset, Hint: hint, Err: err}
}

// Layout is where each object goes, relative to the folder. Names that would meet in one file get a number.
func Layout(point *repo.Point) []File {
	taken := map[string]bool{restoreJSON: true}
	var files []File
	for i, object := range point.Objects {
		name := backup.EncodeFileName(object.Name)
		folder, suffix := "", ".raw"
		switch object.Role {
		case backup.RoleDisk, backup.RoleTPM, backup.RoleMemory:
		case backup.RoleArchive:
			suffix = ".tar"
		case backup.RoleFirmware:
			if object.Format == "" {
				folder, suffix = "config", "" // a file that the source kept beside the disks
			}
		default:
			folder, suffix = "config", ""
		}
		path := filepath.Join(folder, shorten(name, suffix)+suffix)
		for n := 2; taken[strings.ToLower(path)]; n++ {
			path = filepath.Join(folder, shorten(name, suffix)+"~"+strconv.Itoa(n)+suffix)
		}
		taken[strings.ToLower(path)] = true
		files = append(files, File{Path: path, Role: object.Role, Name: object.Name, Size: object.Size, object: i})
	}
	return files
}

// nameLimit is the longest name that file systems take, less room for a suffix and for a temporary name.
const nameLimit = 255 - 40

// shorten cuts a name that is too long for a file system; restore.json has it whole.
func shorten(name, suffix string) string {
	if len(name)+len(suffix) <= nameLimit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return strings.ToValidUTF8(name[:nameLimit-len(suffix)-17], "") + "~" + hex.EncodeToString(sum[:8])
}

// restoreFile writes one file under a temporary name and then gives it its own.
func restoreFile(ctx context.Context, repository *repo.Repository, point *repo.Point, dir string, file *File, options Options, progress *Progress) error {
	path := filepath.Join(dir, file.Path)
	draft, err := newDraft(path)
	if err != nil {
		return err
	}
	defer draft.drop()
	root := point.Roots[file.object]
	switch {
	case root != nil:
		file.Root = repository.RootID(*root)
		if file.Damaged, err = writeTree(ctx, repository, *root, draft.file, options, progress); err != nil {
			return err
		}
	default:
		inline := point.Objects[file.object].Inline
		if _, err := draft.file.Write(inline); err != nil {
			return full(err, path)
		}
		progress.Done.Add(int64(len(inline)))
	}
	if options.SHA256 {
		if file.SHA256, err = sum(ctx, draft.file); err != nil {
			return err
		}
	}
	if err := draft.publish(options.Force); err != nil {
		return err
	}
	return writeMap(dir, file, options)
}

func sum(ctx context.Context, file *os.File) (string, error) {
	hash := sha256.New()
	reader := io.NewSectionReader(file, 0, 1<<62)
	buffer := make([]byte, 1<<20)
	for {
		n, err := reader.Read(buffer)
		hash.Write(buffer[:n])
		if err == io.EOF {
			return hex.EncodeToString(hash.Sum(nil)), nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
	}
}

// full adds a hint to the error of a disk that is full.
func full(err error, path string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &backup.Error{Offset: backup.NoOffset, Err: err, Hint: "free space in " + filepath.Dir(path) + ", or restore to another folder"}
	}
	return err
}

// writeTree writes an object: leaves in parallel, each as its blocks lie in packs. What cannot be read is returned if it is
// to be skipped, else it is an error.
func writeTree(ctx context.Context, repository *repo.Repository, root repo.Root, file *os.File, options Options, progress *Progress) ([]Range, error) {
	if err := file.Truncate(root.Size); err != nil {
		return nil, full(err, file.Name())
	}
	out := newOutput(file, options.SHA256)
	damaged, err := readTree(ctx, repository, root, out.sink, options.SkipDamaged, func(done int64) { progress.Done.Add(done) })
	if outErr := out.close(); err == nil {
		err = outErr
	}
	return damaged, err
}

func readTree(ctx context.Context, repository *repo.Repository, root repo.Root, sink func() repo.Sink, skip bool, done func(int64)) ([]Range, error) {
	if !skip {
		return nil, repository.ReadObject(ctx, root, sink, done)
	}
	var mu sync.Mutex
	var damaged []Range
	err := repository.ReadObjectPast(ctx, root, sink, done, func(offset, length int64, err error) error {
		if !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, repo.ErrCorrupt) {
			return &backup.Error{Offset: offset, Err: err} // trouble that may pass: nothing is given up for it
		}
		mu.Lock()
		defer mu.Unlock()
		damaged = append(damaged, Range{offset, length})
		return nil
	})
	return mergeRanges(damaged), err
}
