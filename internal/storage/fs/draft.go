package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// tmpFolder has the drafts that need a name. Package storage lets no object's name begin with it.
const tmpFolder = "tmp"

// method is a way to publish a file under a name that must not be taken.
type method int

const (
	// unnamed: a file without a name (O_TMPFILE) is linked.
	unnamed method = iota
	// linked: a file in tmp/ is linked, and its first name removed.
	linked
	// renamed: a file in tmp/ is renamed with RENAME_NOREPLACE.
	renamed
)

// methods are in order of preference.
var methods = []method{unnamed, linked, renamed}

func (m method) String() string {
	return [...]string{"linking an unnamed file", "linking a named file", "renaming without replacing"}[m]
}

// draft is a file that is not published yet. A draft with a name holds a lock on itself, by which others see that its
// writer lives.
type draft struct {
	file *os.File
	how  method
	// tmp and name are nil and empty if the file has no name below tmp/.
	tmp  *os.File
	name string
}

// newDraft makes a draft that publish can bring into folder.
func (s *Store) newDraft(folder *os.File, how method) (*draft, error) {
	if how == unnamed {
		file, err := openAt(folder, ".", unix.O_TMPFILE|unix.O_RDWR, fileMode)
		if err != nil {
			return nil, err
		}
		return &draft{file: file, how: how}, nil
	}
	d, err := s.newNamedDraft()
	if err != nil {
		return nil, err
	}
	d.how = how
	return d, nil
}

// newNamedDraft makes a locked draft below tmp/.
func (s *Store) newNamedDraft() (*draft, error) {
	tmp, err := s.makeFolder(tmpFolder)
	if err != nil {
		return nil, err
	}
	for {
		d := &draft{tmp: tmp, name: "draft-" + rand.Text(), how: renamed}
		d.file, err = openAt(tmp, d.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, fileMode)
		if err != nil {
			tmp.Close()
			return nil, err
		}
		if d.lock() {
			return d, nil
		}
		// Someone who removes orphans came between the file and its lock. They remove it; another name is free.
		d.file.Close()
	}
}

// lock marks the draft as having a living writer. It is false if the draft was taken for an orphan before. Where
// there are no locks nobody removes orphans, and none is needed.
func (d *draft) lock() bool {
	err := control(d.file, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false
	}
	var status unix.Stat_t
	err = control(d.file, func(fd int) error { return unix.Fstat(fd, &status) })
	return err != nil || status.Nlink > 0
}

// stamp sets the modification time to now by the file system's clock: an object is as old as its publication, however
// long ago its last byte was written. If that fails the time of the last byte stays.
func (d *draft) stamp() {
	_ = control(d.file, func(fd int) error {
		now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), now, 0)
	})
}

// publish gives the draft its name in folder, or EEXIST. It is not durable before the folder was synced.
func (d *draft) publish(folder *os.File, base string) error {
	err := control(folder, func(into int) error {
		if d.how == unnamed {
			return control(d.file, func(fd int) error { return linkUnnamed(fd, into, base) })
		}
		return control(d.tmp, func(from int) error {
			if d.how == linked {
				return unix.Linkat(from, d.name, into, base, 0)
			}
			return unix.Renameat2(from, d.name, into, base, unix.RENAME_NOREPLACE)
		})
	})
	if err != nil && !d.landed(folder, base) {
		return err
	}
	// An error although the file is there: the request was sent twice, as network file systems do, or repeated after an
	// interruption, and the answer is the second one's.
	if d.how == renamed {
		d.name = ""
	}
	return nil
}

// linkUnnamed links an open file. Everyone may do that by /proc; the other way needs a privilege on older kernels, but
// no /proc.
func linkUnnamed(fd, into int, base string) error {
	err := unix.Linkat(unix.AT_FDCWD, procPath(fd), into, base, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Linkat(fd, "", into, base, unix.AT_EMPTY_PATH)
	}
	return err
}

// replace gives the draft its name in folder, whatever had it before.
func (d *draft) replace(folder *os.File, base string) error {
	err := control(d.tmp, func(from int) error {
		return control(folder, func(into int) error { return unix.Renameat(from, d.name, into, base) })
	})
	if err != nil && !d.landed(folder, base) {
		return err
	}
	d.name = ""
	return nil
}

// landed tells whether the name in folder is this very file.
func (d *draft) landed(folder *os.File, base string) bool {
	var own unix.Stat_t
	if err := control(d.file, func(fd int) error { return unix.Fstat(fd, &own) }); err != nil {
		return false
	}
	there, err := statAt(folder, base)
	return err == nil && own.Dev == there.Dev && own.Ino == there.Ino
}

// drop forgets the draft: its name below tmp/ if it has one still, and its bytes unless they were published.
func (d *draft) drop() {
	// Before the lock goes with the file, or the name could not be told from an orphan. If it stays it is one.
	d.dropName()
	d.file.Close()
	if d.tmp != nil {
		d.tmp.Close()
	}
}

// dropName removes the draft's name below tmp/, if it has one still.
func (d *draft) dropName() {
	if d.name != "" {
		_ = control(d.tmp, func(fd int) error { return unix.Unlinkat(fd, d.name, 0) })
		d.name = ""
	}
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// removeOrphans removes the files below tmp/ that no writer holds.
func removeOrphans(ctx context.Context, tmp *os.File) error {
	for {
		names, err := tmp.Readdirnames(listBatch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			removeOrphan(tmp, name)
		}
	}
}

// removeOrphan removes one file below tmp/ if nobody holds it. One that cannot be removed is in nobody's way.
func removeOrphan(tmp *os.File, name string) {
	// Network file systems lock only what is open for writing.
	file, err := openAt(tmp, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	_ = control(file, func(fd int) error {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		return control(tmp, func(from int) error { return unix.Unlinkat(from, name, 0) })
	})
}
