package fs

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// folder opens a folder of the store for reading; "." is the store's own. The error is the system's, or errLink.
func (s *Store) folder(name string) (*os.File, error) {
	return s.walk(name, func(above *os.File, element, _ string) (*os.File, error) {
		return openFolder(above, element)
	})
}

// makeFolder opens a folder of the store and makes it, and those above it, if they do not exist. When it returns
// their names are durable.
func (s *Store) makeFolder(name string) (*os.File, error) {
	return s.walk(name, func(above *os.File, element, whole string) (*os.File, error) {
		made := false
		folder, err := openFolder(above, element)
		if errors.Is(err, unix.ENOENT) {
			err = control(above, func(fd int) error { return unix.Mkdirat(fd, element, folderMode) })
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, err
			}
			made = true
			if folder, err = openFolder(above, element); errors.Is(err, unix.ENOENT) {
				err = unix.ENOTDIR
			}
		}
		if err != nil {
			return nil, err
		}
		if err := s.ensureDurable(above, whole, made); err != nil {
			folder.Close()
			return nil, err
		}
		return folder, nil
	})
}

// ensureDurable syncs above unless the folder whole, which lies in it, is known to be durable. A folder that was
// found may have been made by another process a moment ago, and not be on disk yet.
func (s *Store) ensureDurable(above *os.File, whole string, made bool) error {
	s.mu.Lock()
	known := s.durable[whole] && !made
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := syncFolder(above); err != nil {
		return err
	}
	s.mu.Lock()
	s.durable[whole] = true
	s.mu.Unlock()
	return nil
}

// walk goes down from the root, one element at a time so that no element can be a link, and returns the last folder.
func (s *Store) walk(name string, step func(above *os.File, element, whole string) (*os.File, error)) (*os.File, error) {
	if name == "." {
		return openFolder(s.root, ".")
	}
	current, whole := s.root, ""
	for element := range strings.SplitSeq(name, "/") {
		whole = path.Join(whole, element)
		next, err := step(current, element, whole)
		if current != s.root {
			current.Close()
		}
		if err != nil {
			return nil, err
		}
		current = next
	}
	return current, nil
}

// openFolder opens one folder in another, never through a link: errLink for one, ENOENT for a file, which can have
// no objects below it.
func openFolder(above *os.File, element string) (*os.File, error) {
	folder, err := openAt(above, element, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return folder, err
	}
	status, err := statAt(above, element)
	switch {
	case err != nil:
		return nil, err
	case status.Mode&unix.S_IFMT == unix.S_IFLNK:
		return nil, errLink
	}
	return nil, unix.ENOENT
}

// openObject opens a regular file for reading. It is looked at first, because opening alone can do something where a
// device lies under the name, and afterwards, because it may have been exchanged meanwhile; O_NONBLOCK, because a pipe
// would wait for its other end.
func openObject(folder *os.File, element string) (*os.File, error) {
	status, err := statAt(folder, element)
	if err == nil {
		err = regular(status)
	}
	if err != nil {
		return nil, err
	}
	file, err := openAt(folder, element, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		err = isLink
	}
	if err != nil {
		return nil, err
	}
	err = control(file, func(fd int) error { return unix.Fstat(fd, &status) })
	if err == nil {
		err = regular(status)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// openAt is openat(2).
func openAt(folder *os.File, name string, flags int, mode uint32) (*os.File, error) {
	var opened int
	err := control(folder, func(fd int) (err error) {
		opened, err = unix.Openat(fd, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), name), nil
}

// statAt is fstatat(2) that looks at a link itself.
func statAt(folder *os.File, name string) (status unix.Stat_t, err error) {
	err = control(folder, func(fd int) error { return unix.Fstatat(fd, name, &status, unix.AT_SYMLINK_NOFOLLOW) })
	return status, err
}

// control makes a system call with a file's descriptor, which cannot be closed and used for another file meanwhile.
// Network and user-space file systems may interrupt any call for a signal, which Go programs get all the time.
func control(file *os.File, call func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = call(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// syncFolder makes the names in a folder durable. Some network file systems cannot sync a folder, because every name
// is the server's as soon as it is made: that is taken for success, or no SMB share could hold a repository.
func syncFolder(folder *os.File) error {
	err := folder.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
