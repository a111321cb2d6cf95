package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/image"
	"ferry/internal/source/registry"
	"ferry/internal/source/virtnbdbackup"
	"ferry/internal/source/vzdump"
	"ferry/internal/storage"
	filestore "ferry/internal/storage/fs"
)

func (a *app) environment() repo.Environment {
	return repo.Environment{CacheDir: a.cacheDir, Program: "ferry " + Version}
}

// formats in the order in which they claim files: the most particular first.
func (a *app) formats() []source.Format {
	return []source.Format{
		ferry.Format{Environment: a.environment()}, vzdump.Format{}, virtnbdbackup.Format{}, image.Format{},
	}
}

// openSource lists a folder of backups.
func (a *app) openSource(ctx context.Context, path, name string) (*registry.Source, error) {
	if err := mustBeFolder(path, "name the folder that the backups are in"); err != nil {
		return nil, err
	}
	opened, err := registry.Open(ctx, path, registry.Options{Name: name, CacheDir: a.cacheDir, Formats: a.formats()})
	if err != nil {
		return nil, err
	}
	var messages []string
	for _, problem := range opened.Problems {
		messages = append(messages, problem.Error())
	}
	a.warnings(messages)
	return opened, nil
}

// openRepository opens the repository at a path. The error wraps repo.ErrNoRepository if there is none.
func (a *app) openRepository(ctx context.Context, path string) (*repo.Repository, error) {
	store, err := filestore.Open(path)
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return nil, noRepository(path, nearbyHint(path))
	case errors.Is(err, unix.ENOTDIR):
		return nil, mustBeFolder(path, "name the folder that has repository.json in it")
	case err != nil:
		return nil, err
	}
	opened, err := repo.Open(ctx, store, a.environment())
	if err != nil {
		store.Close()
		if errors.Is(err, repo.ErrNoRepository) {
			return nil, noRepository(path, nearbyHint(path))
		}
		return nil, err
	}
	if diverged := opened.Diverged(); diverged != nil {
		a.warnings([]string{diverged.Error()})
	}
	return opened, nil
}

// mustBeFolder gives a usage error unless there is a folder at path.
func mustBeFolder(path, hint string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hinted(usage("there is no folder %s", path), "is the disk mounted?")
	case errors.Is(err, unix.ENOTDIR):
		return usage("a part of %s is a file, not a folder", path)
	case err == nil && !info.IsDir():
		return hinted(usage("%s is a file, not a folder", path), hint)
	}
	return err
}

// noRepository is the error of a path without a repository.
func noRepository(path, hint string) error {
	return hinted(fmt.Errorf("%w at %s; is the disk mounted?", repo.ErrNoRepository, path), hint)
}

// nearbyHint names repositories one level below a path that is none.
func nearbyHint(path string) string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		if below := filepath.Join(path, entry.Name()); isRepository(below) {
			return "there is one at " + below
		}
	}
	return ""
}

// createRepository makes a new repository at a path.
func (a *app) createRepository(ctx context.Context, path string, options repo.Options) (*repo.Repository, error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, usage("%s is a file, not a folder", path)
	}
	store, err := filestore.Create(path)
	if err != nil {
		return nil, err
	}
	made, err := repo.Init(ctx, store, a.environment(), options)
	if err != nil {
		store.Close()
	}
	return made, err
}

// isRepository is true if a repository lies at the path itself.
func isRepository(path string) bool {
	info, err := os.Stat(filepath.Join(path, "repository.json"))
	return err == nil && info.Mode().IsRegular()
}
