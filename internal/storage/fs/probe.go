package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// Probe tries out what package storage asks of a medium, with files of a few bytes below tmp/, and returns an error
// that wraps storage.ErrUnsuitable and names what is missing. A repository is probed when it is created.
func (s *Store) Probe(ctx context.Context) error {
	if _, err := s.prepare(ctx); err != nil {
		return err
	}
	draft, err := s.newNamedDraft()
	if err != nil {
		return s.writeError("probing", tmpFolder, err)
	}
	defer draft.drop()
	if _, err := draft.file.Write([]byte("probe")); err != nil {
		return s.writeError("probing", tmpFolder, err)
	}
	if err := draft.file.Sync(); err != nil {
		if lacking(err) {
			return s.unsuitable("files cannot be synced to the medium", cause(err))
		}
		return s.writeError("probing", tmpFolder, err)
	}
	info, err := draft.file.Stat()
	if err != nil {
		return s.writeError("probing", tmpFolder, err)
	}
	if info.ModTime().Unix() <= 0 {
		return s.unsuitable("files have no modification time", nil)
	}
	// Onto a file that exists, as Overwrite does it.
	target, err := s.newNamedDraft()
	if err != nil {
		return s.writeError("probing", tmpFolder, err)
	}
	defer target.drop()
	if err := draft.replace(target.tmp, target.name); err != nil {
		return s.unsuitable("files cannot be renamed over others", err)
	}
	return s.writeError("syncing", tmpFolder, syncFolder(target.tmp))
}

// prepare makes the store ready for writing, once: it removes orphans and finds out how to publish. A failure is not
// remembered, so that a folder that was put right can be used.
func (s *Store) prepare(ctx context.Context) (method, error) {
	s.mu.Lock()
	how, ready := s.how, s.ready
	s.mu.Unlock()
	if ready {
		return how, nil
	}
	// Several goroutines may get here at once. They come to the same result, and each can be cancelled.
	tmp, err := s.makeFolder(tmpFolder)
	if err != nil {
		return how, s.writeError("making folder", tmpFolder, err)
	}
	defer tmp.Close()
	if err := removeOrphans(ctx, tmp); err != nil {
		return how, s.writeError("removing left-over files below", tmpFolder, err)
	}
	how, err = s.choose(ctx, tmp, methods)
	if err != nil {
		return how, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		s.how, s.ready = how, true
	}
	return s.how, nil
}

// choose returns the first of the methods that works.
func (s *Store) choose(ctx context.Context, tmp *os.File, among []method) (method, error) {
	// A folder that cannot be written to is something else than a medium that cannot publish.
	writable, err := s.newNamedDraft()
	if err != nil {
		return 0, s.writeError("writing below", tmpFolder, err)
	}
	writable.drop()
	var reasons []error
	for _, how := range among {
		if err := ctx.Err(); err != nil {
			return how, err
		}
		err := s.try(tmp, how)
		if err == nil {
			return how, nil
		}
		if !lacking(err) {
			return how, s.writeError("trying out how to write to", tmpFolder, err)
		}
		reasons = append(reasons, fmt.Errorf("%v: %w", how, err))
	}
	return 0, s.unsuitable("files cannot be published without a risk of replacing another writer's", errors.Join(reasons...))
}

// errReplaced: a medium let a second writer have a name that was taken.
var errReplaced = errors.New("a name was given to two files")

// try publishes two files under one name below tmp/, of which only the first may succeed.
func (s *Store) try(tmp *os.File, how method) error {
	name := "probe-" + rand.Text()
	defer func() {
		// If it stays it is an orphan, and goes with the next.
		_ = control(tmp, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
	}()
	first, err := s.newDraft(tmp, how)
	if err != nil {
		return err
	}
	// Dropped last: its lock keeps others from removing the published name as an orphan meanwhile.
	defer first.drop()
	if how == unnamed {
		first.lock()
	}
	if _, err := first.file.Write([]byte("first")); err != nil {
		return err
	}
	if err := first.publish(tmp, name); err != nil {
		return err
	}
	second, err := s.newDraft(tmp, how)
	if err != nil {
		return err
	}
	defer second.drop()
	if err := second.publish(tmp, name); !errors.Is(err, unix.EEXIST) {
		return errors.Join(errReplaced, err)
	}
	found, err := openAt(tmp, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer found.Close()
	content := make([]byte, len("first"))
	if _, err := found.ReadAt(content, 0); err != nil || !bytes.Equal(content, []byte("first")) {
		return errors.Join(errReplaced, err)
	}
	return nil
}

// lacking tells errors that mean "this medium cannot do that" from those that mean that something went wrong.
// Permission errors are among them: FAT and some servers answer a link with one, and choose has seen that files may be
// made in the folder.
func lacking(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.EISDIR, unix.ENOTTY, unix.EPERM, unix.EACCES, unix.EXDEV,
		unix.EMLINK, unix.ENOENT,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, errReplaced)
}

// unsuitable names what the medium lacks.
func (s *Store) unsuitable(lack string, err error) error {
	if err == nil {
		return fmt.Errorf("%s: %w: %s", s.path, storage.ErrUnsuitable, lack)
	}
	return fmt.Errorf("%s: %w: %s (%w)", s.path, storage.ErrUnsuitable, lack, err)
}
