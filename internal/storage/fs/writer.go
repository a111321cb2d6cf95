package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"ferry/internal/backup"
	"ferry/internal/direct"
	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// writebackStep is after how many bytes the kernel is told to begin writing: so that the sync in Commit finds little
// left to wait for.
const writebackStep = 8 << 20

var errFinished = errors.New("object was committed or aborted already")

// writer writes one object to a draft.
type writer struct {
	store *Store
	// ctx is Create's: a writer whose work was cancelled takes nothing more.
	ctx    context.Context
	name   string
	folder *os.File
	draft  *draft
	// size is how much was written, started how much of it the kernel was told to write back.
	size, started int64
	// directFit is true if writes can go past the page cache, direct while they do.
	directFit, direct bool
	// failed is why the writer takes nothing more.
	failed error
}

// Create begins an object. Writes fail once ctx is cancelled. A writer belongs to one goroutine at a time.
func (s *Store) Create(ctx context.Context, name string) (storage.Writer, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	how, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := s.makeFolder(path.Dir(name))
	if err != nil {
		return nil, s.writeError("making the folder of", name, err)
	}
	draft, err := s.newDraft(folder, how)
	if err != nil {
		folder.Close()
		return nil, s.writeError("beginning", name, err)
	}
	return &writer{store: s, ctx: ctx, name: name, folder: folder, draft: draft, directFit: direct.Fit(folder)}, nil
}

// Put creates a small object.
func (s *Store) Put(ctx context.Context, name string, content []byte) error {
	w, err := s.Create(ctx, name)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Commit(ctx)
}

// Overwrite replaces an object by renaming a file over it. The file is synced, the name is not: after a power cut the
// old content may be back, which a hint must bear anyway. A folder of that name is left alone: storage.ErrNotFile.
func (s *Store) Overwrite(ctx context.Context, name string, content []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if _, err := s.prepare(ctx); err != nil {
		return err
	}
	folder, err := s.makeFolder(path.Dir(name))
	if err != nil {
		return s.writeError("making the folder of", name, err)
	}
	defer folder.Close()
	draft, err := s.newNamedDraft()
	if err != nil {
		return s.writeError("beginning", name, err)
	}
	defer draft.drop()
	if _, err := draft.file.Write(content); err != nil {
		return s.writeError("writing", name, err)
	}
	if err := draft.file.Sync(); err != nil {
		return s.writeError("syncing", name, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = draft.replace(folder, path.Base(name))
	if errors.Is(err, unix.EISDIR) {
		return &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("replacing %s: %w", s.pathOf(name), isTaken),
			Hint: "look what it is, and move it away: ferry makes only a file there",
		}
	}
	return s.writeError("replacing", name, err)
}

// Write appends to the object. After an error the object cannot be committed.
func (w *writer) Write(p []byte) (int, error) {
	if w.failed != nil {
		return 0, w.failed
	}
	if err := w.ctx.Err(); err != nil {
		w.failed = err
		return 0, err
	}
	n, err := w.write(p)
	w.size += int64(n)
	if err != nil {
		w.failed = w.store.writeError("writing", w.name, err)
		return n, w.failed
	}
	if w.direct {
		w.started = w.size
	} else if w.size-w.started >= writebackStep {
		w.startWriteback()
	}
	return n, nil
}

// startWriteback asks the kernel to begin writing what it has not been told about. It is advice: where the call is
// not supported Commit's sync does it all.
func (w *writer) startWriteback() {
	_ = control(w.draft.file, func(fd int) error {
		return unix.SyncFileRange(fd, w.started, w.size-w.started, unix.SYNC_FILE_RANGE_WRITE)
	})
	w.started = w.size
}

// Commit publishes the object.
func (w *writer) Commit(ctx context.Context) error {
	failed := w.failed
	if failed == nil {
		failed = ctx.Err()
	}
	if failed != nil {
		w.Abort()
		return failed
	}
	defer w.Abort()
	w.draft.stamp()
	if err := w.draft.file.Sync(); err != nil {
		return w.store.writeError("syncing", w.name, err)
	}
	if err := ctx.Err(); err != nil { // who waited for a sync that took hours may have given the object up
		return err
	}
	published := w.draft.publish(w.folder, path.Base(w.name))
	if published != nil && !errors.Is(published, unix.EEXIST) {
		return w.store.writeError("publishing", w.name, published)
	}
	// Also when another writer was first: the caller may build on the object being there, so its name must last.
	if err := syncFolder(w.folder); err != nil {
		return w.store.writeError("syncing the folder of", w.name, err)
	}
	if published != nil {
		return w.store.writeError("publishing", w.name, published)
	}
	w.draft.dropName() // a file that is locked keeps all its names
	return w.store.lockNew(w.name, w.draft.file)
}

// Abort drops what was written; after Commit it does nothing.
func (w *writer) Abort() {
	if w.draft == nil {
		return
	}
	w.draft.drop()
	w.folder.Close()
	w.draft, w.folder = nil, nil
	w.failed = errFinished
}
