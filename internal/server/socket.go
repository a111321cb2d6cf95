package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
)

// Group is the group whose members may speak to the server, if there is one of that name.
const Group = "ferry"

// socketLength is the longest path of a socket that the kernel takes, in bytes.
const socketLength = len(unix.RawSockaddrUnix{}.Path) - 1

// ErrRunning is in the error of Serve if a server listens on the socket already.
var ErrRunning = errors.New("a server runs already")

// socket is a listener on a path, and the lock that keeps other servers from it.
type socket struct {
	net.Listener
	path string
	// made is the socket's file: another one that has its name by now is not ours to remove.
	made fs.FileInfo
	lock *os.File
}

// listen makes a socket that its group may use, see [Group], and nobody else.
//
//  1. A lock on a file beside it: of two servers that start at once, one goes on, and what it finds is its own to remove.
//  2. What is there must be a socket that nobody listens on: one that a server left which was killed.
//  3. It is made for its owner only, given to the group, and only then opened to it.
func listen(path string) (made *socket, err error) {
	if len(path) > socketLength {
		return nil, fmt.Errorf("the socket's path %s is longer than %d bytes", backup.EncodeName(path), socketLength)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("the socket's folder: %w", err)
	}
	s := &socket{path: path}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.lock, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, fmt.Errorf("the socket's lock: %w", err)
	}
	switch err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("%w on %s", ErrRunning, backup.EncodeName(path))
	case err != nil:
		return nil, fmt.Errorf("the socket's lock: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	if s.Listener, err = listenPrivately(path); err != nil {
		return nil, err
	}
	if s.made, err = os.Lstat(path); err != nil {
		return nil, err
	}
	return s, share(path, Group)
}

// removeStale removes the socket of a server that has gone.
func removeStale(path string) error {
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", backup.EncodeName(path))
	}
	connection, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		connection.Close()
		return fmt.Errorf("%w on %s", ErrRunning, backup.EncodeName(path))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s may be in use: %w", backup.EncodeName(path), err)
	}
	return os.Remove(path)
}

// listenPrivately makes a socket that only its owner can reach, from its first moment on.
func listenPrivately(path string) (net.Listener, error) {
	// The mask is the whole process's. What others make meanwhile is private too, which does no harm.
	before := unix.Umask(0o177)
	defer unix.Umask(before)
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // Close looks whose it is
	return listener, nil
}

// share opens the socket to the group. Without the group, or the right to give to it, the socket stays its owner's.
func share(path, name string) error {
	group, err := user.LookupGroup(name)
	if err != nil {
		return nil // there is none
	}
	id, err := strconv.Atoi(group.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", name, err)
	}
	switch err := os.Lchown(path, -1, id); {
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(path, 0o660)
}

// Close ends listening and removes the socket. The lock's file stays: who has opened it must not lock what is gone.
func (s *socket) Close() error {
	var err error
	if s.Listener != nil {
		err = s.Listener.Close()
	}
	if there, lstatErr := os.Lstat(s.path); lstatErr == nil && s.made != nil && os.SameFile(there, s.made) {
		os.Remove(s.path)
	}
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}
