package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"ferry/internal/backup"
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
	opened, err := registry.Open(ctx, path, registry.Options{Name: name, CacheDir: a.cacheDir, Formats: a.formats()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &exitError{code: ExitUsage, err: &backup.Error{Offset: backup.NoOffset, Err: err, Hint: "is the disk mounted?"}}
	}
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

// openRepository opens the repository at a path. The error says so if there is none.
func (a *app) openRepository(ctx context.Context, path string) (*repo.Repository, error) {
	store, err := filestore.Open(path)
	if errors.Is(err, storage.ErrNotExist) || errors.Is(err, fs.ErrNotExist) {
		return nil, noRepository(path)
	}
	if err != nil {
		return nil, err
	}
	opened, err := repo.Open(ctx, store, a.environment())
	if err != nil {
		store.Close()
		return nil, err
	}
	if diverged := opened.Diverged(); diverged != nil {
		a.warnings([]string{diverged.Error()})
	}
	return opened, nil
}

func noRepository(path string) error {
	return &backup.Error{
		Offset: backup.NoOffset, Err: errors.Join(repo.ErrNoRepository, nil),
		Hint: "at " + path + ": is the disk mounted? To make a new repository there, add --create to ferry copy or use ferry repo init",
	}
}

// createRepository makes a new repository at a path.
func (a *app) createRepository(ctx context.Context, path string, options repo.Options) (*repo.Repository, error) {
	store, err := filestore.Create(path)
	if err != nil {
		return nil, err
	}
	return repo.Init(ctx, store, a.environment(), options)
}

// isRepository is true if a repository lies at the path itself.
func isRepository(path string) bool {
	info, err := os.Stat(filepath.Join(path, "repository.json"))
	return err == nil && info.Mode().IsRegular()
}
