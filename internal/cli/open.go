package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ferry/internal/answer"
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
	"ferry/internal/storage/s3"
)

func (a *app) environment() repo.Environment {
	environment := repo.Environment{CacheDir: a.cacheDir, Program: "ferry " + Version}
	if !a.completing {
		environment.Keys = a.keys
	}
	return environment
}

// formats in the order in which they claim files: the most particular first.
func (a *app) formats() []source.Format {
	return []source.Format{
		ferry.Format{Environment: a.environment(), Receive: a.receive, Memory: a.listed}, vzdump.Format{}, virtnbdbackup.Format{}, image.Format{},
	}
}

// openSource lists a folder of backups, or a repository in a bucket. A repository that does not open, such as one whose log is damaged,
// is an error: it is not known to be without points. A job tells of one that is damaged, or lies in a folder, as of what is not listed
// whole; a bucket that is only not to be reached is an error of its source, which passes.
func (a *app) openSource(ctx context.Context, path, name string) (*registry.Source, error) {
	options := registry.Options{Name: name, Instance: a.instance, CacheDir: a.cacheDir, Formats: a.formats()}
	if s3.IsLocation(path) {
		store, err := a.openBucket(path)
		if err != nil {
			return nil, err
		}
		options.Elsewhere = true
		options.Formats = []source.Format{ferry.Stored{Store: store, Environment: a.environment(), Memory: a.listed}}
	} else if err := mustBeFolder(path, "name the folder that the backups are in"); err != nil {
		return nil, err
	}
	if pace := a.receive; pace != nil {
		options.Pace = func(bytes int) error { return pace(ctx, bytes) }
	}
	opened, err := registry.Open(ctx, path, options)
	if err != nil {
		return nil, err
	}
	if len(opened.Points) == 0 && len(opened.Incomplete) > 0 && isRepository(path) { // the only place there is
		reason := opened.Incomplete[0]
		told := a.ofJob && (!options.Elsewhere || errors.Is(reason, repo.ErrCorrupt))
		if !told && !errors.Is(reason, repo.ErrNeedsKey) {
			opened.Close()
			return nil, reason
		}
	}
	var messages []string
	for _, problem := range opened.Problems {
		message := problem.Error()
		if hint := backup.Hint(problem); isKeyError(problem) && hint != "" {
			message += "; " + hint
		}
		messages = append(messages, message)
	}
	a.warnings(messages)
	return opened, nil
}

// openReadable lists a source whose points are to be read: a Ferry repository that no key given opens is an error.
func (a *app) openReadable(ctx context.Context, path, name string) (*registry.Source, error) {
	opened, err := a.openSource(ctx, path, name)
	if err != nil || !s3.IsLocation(path) && !isRepository(path) {
		return opened, err
	}
	for _, problem := range opened.Problems {
		if isKeyError(problem) {
			opened.Close()
			return nil, problem
		}
	}
	return opened, nil
}

// openRepository opens the repository at a path, and closing it closes its store. The error wraps repo.ErrNoRepository if there is none.
func (a *app) openRepository(ctx context.Context, path string) (*repo.Repository, error) {
	store, err := a.openStore(path)
	if err != nil {
		return nil, err
	}
	environment := a.environment()
	environment.OwnsStore = true
	opened, err := repo.Open(ctx, store, environment)
	if err != nil {
		store.Close()
		if errors.Is(err, repo.ErrNoRepository) {
			return nil, noRepository(path, nearbyHint(path))
		}
		return nil, err
	}
	a.rememberPlace(opened.ID(), path)
	if diverged := opened.Diverged(); diverged != nil {
		a.warnings([]string{diverged.Error()})
	}
	return opened, nil
}

// openStore opens the folder or the bucket that a repository lies in.
func (a *app) openStore(path string) (storage.Store, error) {
	if s3.IsLocation(path) {
		return a.openAnsweringBucket(path)
	}
	store, err := filestore.Open(path)
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return nil, noRepository(path, nearbyHint(path))
	case errors.Is(err, unix.ENOTDIR):
		return nil, mustBeFolder(path, "name the folder that has repository.json in it")
	case err != nil:
		return nil, err
	}
	return storage.Paced(storage.Answering(store, answer.Of(path)), a.send, a.receive), nil
}

// openAnsweringBucket is openBucket for a target: whether it answers is told, and who waits for it is let go.
func (a *app) openAnsweringBucket(path string) (storage.Store, error) {
	store, err := a.openBucket(path)
	if err != nil {
		return nil, err
	}
	return storage.Answering(store, answer.Of(path)), nil
}

// openBucket opens the store at a location of the form s3://BUCKET/PREFIX.
func (a *app) openBucket(path string) (storage.Store, error) {
	location, err := s3.ParseLocation(path)
	if err != nil {
		return nil, &exitError{code: ExitUsage, err: err}
	}
	store, err := s3.Open(location, s3.Options{Credentials: a.credentials, Send: a.send, Receive: a.receive, ReceiveRate: a.receiveRate})
	if err != nil {
		return nil, err
	}
	a.buckets.add(store)
	return store, nil
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
	if s3.IsLocation(path) {
		return hinted(fmt.Errorf("%w at %s", repo.ErrNoRepository, path), hint)
	}
	return hinted(fmt.Errorf("%w at %s; is the disk mounted?", repo.ErrNoRepository, path), hint)
}

// nearbyHint names repositories one level below a path that is none.
func nearbyHint(path string) string {
	if s3.IsLocation(path) {
		return "are the bucket and the prefix right?"
	}
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

// createRepository makes a new repository at a path, and closing it closes its store.
func (a *app) createRepository(ctx context.Context, path string, options repo.Options) (*repo.Repository, error) {
	if err := mustBeItsOwn(path); err != nil {
		return nil, err
	}
	store, err := a.makeStore(path)
	if err != nil {
		return nil, err
	}
	environment := a.environment()
	environment.OwnsStore = true
	made, err := repo.Init(ctx, store, environment, options)
	if err != nil {
		if folder, is := store.(*filestore.Store); is && !isRepository(path) { // else somebody made it meanwhile, or it is only to be finished
			folder.Withdraw()
		}
		store.Close()
		return nil, err
	}
	a.rememberPlace(made.ID(), path)
	return made, nil
}

// makeStore opens the folder, which is made if needed, or the bucket, which must be there.
func (a *app) makeStore(path string) (storage.Store, error) {
	if s3.IsLocation(path) {
		return a.openAnsweringBucket(path)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, usage("%s is a file, not a folder", path)
	}
	store, err := filestore.Create(path)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// besideRepository are the folders that do not keep a folder from becoming a repository, beside those of file systems: those that
// making one begins with, which an interrupted or a simultaneous attempt has left there.
var besideRepository = []string{"tmp", "keys"}

// mustBeItsOwn gives a usage error if a folder has other files: backups in which a repository was made would not be listed any
// more, since a repository is read as nothing else. Names that begin with a dot do not count.
func mustBeItsOwn(path string) error {
	if s3.IsLocation(path) {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // that there is none, or that it may not be read, comes out when it is made
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || entry.IsDir() && (source.OfFileSystem(name) || slices.Contains(besideRepository, name)) {
			continue
		}
		if isRepository(path) { // another process made it meanwhile
			return nil
		}
		return hinted(usage("%s is not empty: it has %s, and a repository takes a folder of its own", path, printable(name)),
			"name a new folder, such as "+filepath.Join(path, "vault"))
	}
	return nil
}

// isRepository is true if a repository lies at the path itself: surely, for a folder; as far as one can tell without asking,
// for a bucket.
func isRepository(path string) bool {
	if s3.IsLocation(path) {
		return true
	}
	info, err := os.Lstat(filepath.Join(path, "repository.json"))
	if err != nil || info.Mode().IsRegular() {
		return err == nil
	}
	log, err := os.Stat(filepath.Join(path, "log")) // what is no file does not hide that a repository is there
	return err == nil && log.IsDir()
}
