package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"ferry/internal/backup"
	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// Locking by the immutable attribute. The kernel lets nobody write, rename, link or remove such a file; only a process with
// CAP_LINUX_IMMUTABLE can set and clear it. The time until which a file is locked is in an extended attribute, which must
// be set before the file becomes immutable, and can be read by anyone.

const (
	untilAttribute = "user.ferry.locked-until"
	immutableFlag  = 0x10 // FS_IMMUTABLE_FL
)

// CheckLock tries whether this process may make files immutable here.
func (s *Store) CheckLock(ctx context.Context, how storage.Immutability) error {
	if err := s.hasWay(how); err != nil {
		return err
	}
	if _, err := s.prepare(ctx); err != nil {
		return err
	}
	draft, err := s.newNamedDraft()
	if err != nil {
		return s.writeError("probing", tmpFolder, err)
	}
	defer draft.drop()
	if err := lockFile(draft.file, time.Now()); err != nil {
		return s.lockError("making a file immutable in", "", err)
	}
	return s.lockError("probing", tmpFolder, setImmutable(draft.file, false))
}

// hasWay returns an error unless file systems lock in the way.
func (s *Store) hasWay(how storage.Immutability) error {
	if how == storage.Host {
		return nil
	}
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s: a file system cannot lock in the way %q: %w", s.path, how, storage.ErrUnsuitable),
		Hint: "compliance and governance are of object storage; use --lock host here",
	}
}

// LockNew makes what is published from now on immutable.
func (s *Store) LockNew(how storage.Immutability, until func(name string) time.Time) error {
	if err := s.hasWay(how); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockUntil = until
	return nil
}

// lockNew locks an object that was just published, through the file it was written to.
func (s *Store) lockNew(name string, file *os.File) error {
	s.mu.Lock()
	untilOf := s.lockUntil
	s.mu.Unlock()
	if untilOf == nil {
		return nil
	}
	until := untilOf(name)
	if until.IsZero() {
		return nil
	}
	return s.lockError("locking", name, lockFile(file, until))
}

// Lock makes an object immutable until a time at least.
func (s *Store) Lock(ctx context.Context, name string, _ storage.Immutability, until time.Time) error {
	file, err := s.openLocked(ctx, name)
	if err != nil {
		return err
	}
	defer file.Close()
	there, locked, err := lockOf(file)
	if err == nil && locked && !there.Before(until) {
		return nil
	}
	if err == nil && locked {
		err = setImmutable(file, false)
	}
	if err == nil {
		if there.After(until) {
			until = there
		}
		err = lockFile(file, until)
	}
	return s.lockError("locking", name, err)
}

// LockedUntil tells until when an object is immutable.
func (s *Store) LockedUntil(ctx context.Context, name string) (time.Time, error) {
	file, err := s.openLocked(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	until, locked, err := lockOf(file)
	if err != nil || !locked {
		return time.Time{}, s.lockError("asking for the lock of", name, err)
	}
	return until, nil
}

func (s *Store) openLocked(ctx context.Context, name string) (*os.File, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	folder, err := s.folder(path.Dir(name))
	if err != nil {
		return nil, s.readError("opening", name, err)
	}
	defer folder.Close()
	file, err := openObject(folder, path.Base(name))
	if err != nil {
		return nil, s.readError("opening", name, err)
	}
	return file, nil
}

// unlock makes an object removable whose removal was refused, if its time has come. Until then it gives a
// storage.LockedError.
func (s *Store) unlock(ctx context.Context, name string, refused error) error {
	file, err := s.openLocked(ctx, name)
	if err != nil {
		return err
	}
	defer file.Close()
	until, locked, err := lockOf(file)
	switch {
	case err != nil:
		return s.lockError("asking for the lock of", name, err)
	case !locked:
		return s.writeError("deleting", name, refused)
	case until.After(time.Now()):
		return &storage.LockedError{Name: name, Until: until}
	}
	return s.lockError("unlocking", name, setImmutable(file, false))
}

// lockFile writes down until when a file is locked, and makes it immutable, durably.
func lockFile(file *os.File, until time.Time) error {
	err := control(file, func(fd int) error {
		return unix.Fsetxattr(fd, untilAttribute, []byte(until.UTC().Format(time.RFC3339)), 0)
	})
	if err == nil {
		err = setImmutable(file, true)
	}
	if err == nil {
		err = file.Sync()
	}
	return err
}

// lockOf tells until when a file is locked, and whether it is immutable. One that became immutable by other hands, without a
// time, is not of ours, and has the zero time.
func lockOf(file *os.File) (until time.Time, locked bool, err error) {
	err = control(file, func(fd int) error {
		flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		locked = flags&immutableFlag != 0
		text := make([]byte, 64)
		n, err := unix.Fgetxattr(fd, untilAttribute, text)
		if err != nil {
			return nil
		}
		if parsed, err := time.Parse(time.RFC3339, string(text[:n])); err == nil {
			until = parsed.UTC()
		}
		return nil
	})
	return until, locked, err
}

func setImmutable(file *os.File, on bool) error {
	return control(file, func(fd int) error {
		flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		if on {
			flags |= immutableFlag
		} else {
			flags &^= immutableFlag
		}
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	})
}

// lockError says what keeps this process or file system from locking.
func (s *Store) lockError(doing, name string, err error) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		err, hint = fmt.Errorf("this process may not: %w", err), "run ferry as root, or give the program the right: setcap cap_linux_immutable+ep ferry"
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		err, hint = fmt.Errorf("the file system has no immutable attribute or no extended ones: %w", err), "use ext4, xfs or btrfs"
	}
	return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s %s: %w: %w", doing, s.pathOf(name), storage.ErrUnsuitable, err), Hint: hint}
}
