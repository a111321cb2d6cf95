package fs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// withoutImmutable calls a function on a thread that may not make files immutable, as most processes may not. The thread is never
// used again.
func withoutImmutable(t *testing.T, do func()) {
	t.Helper()
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if failed = unix.Capget(&header, &sets[0]); failed != nil {
			return
		}
		sets[0].Effective &^= 1 << unix.CAP_LINUX_IMMUTABLE
		if failed = unix.Capset(&header, &sets[0]); failed == nil {
			do()
		}
	}()
	<-done
	if failed != nil {
		t.Fatal(failed)
	}
}

// mayLackAttribute fails the test if a folder's file system is one that has the immutable attribute.
func mayLackAttribute(t *testing.T, folder string) {
	t.Helper()
	var there unix.Statfs_t
	if err := unix.Statfs(folder, &there); err != nil {
		t.Fatal(err)
	}
	if there.Type == unix.EXT4_SUPER_MAGIC {
		t.Fatal("the attribute of ext4 is not found")
	}
}

// saysWhy fails unless an error says that what is there is not suitable, why, and what to do.
func saysWhy(t *testing.T, what string, err error, why, hint string) {
	t.Helper()
	if !errors.Is(err, storage.ErrUnsuitable) || !strings.Contains(err.Error(), why) || !strings.Contains(backup.Hint(err), hint) {
		t.Errorf("%s: %v; %s", what, err, backup.Hint(err))
	}
}

// What a process that may not lock, or a file system that cannot, answers is said with the reason and what to do about it.
func TestLockErrors(t *testing.T) {
	store := newStore(t, unnamed)
	const may, can = "this process may not", "the file system has no immutable attribute"
	for answer, want := range map[unix.Errno][2]string{
		unix.EPERM: {may, "cap_linux_immutable"}, unix.EACCES: {may, "cap_linux_immutable"},
		unix.ENOTTY: {can, "ext4"}, unix.EOPNOTSUPP: {can, "ext4"}, unix.ENOSYS: {can, "ext4"},
		unix.EIO: {"input/output error", ""},
	} {
		err := store.lockError("locking", "packs/aa/one", fmt.Errorf("an ioctl: %w", answer))
		saysWhy(t, answer.Error(), err, want[0], want[1])
		if !errors.Is(err, answer) || !strings.Contains(err.Error(), store.pathOf("packs/aa/one")) {
			t.Errorf("%v: %v", answer, err)
		}
	}
}

// A process without the capability is told so when a repository is to be made, and when it writes to one that is locked.
func TestLockWithoutTheCapability(t *testing.T) {
	for _, how := range methods {
		t.Run(how.String(), func(t *testing.T) {
			store := newStore(t, how)
			const why, hint = "this process may not", "setcap cap_linux_immutable+ep ferry"
			var checked error
			withoutImmutable(t, func() { checked = store.CheckLock(t.Context(), storage.Host) })
			if errors.Is(checked, unix.ENOTTY) || errors.Is(checked, unix.EOPNOTSUPP) {
				mayLackAttribute(t, store.path)
				t.Skip("the folder for temporary files has no immutable attribute: ", checked)
			}
			withoutImmutable(t, func() {
				saysWhy(t, "making a repository", checked, why, hint)
				if got := drafts(t, store.path); len(got) != 0 {
					t.Errorf("drafts %q are left", got)
				}
				store.LockNew(storage.Host, func(string) time.Time { return time.Now().Add(time.Hour) })
				saysWhy(t, "writing a file", store.Put(t.Context(), "packs/aa/one", []byte("content")), why, hint)
				saysWhy(t, "extending a lock", store.Lock(t.Context(), "packs/aa/one", storage.Host, time.Now().Add(time.Hour)), why, hint)
				if until, err := store.LockedUntil(t.Context(), "packs/aa/one"); err != nil || !until.IsZero() {
					t.Errorf("what could not be locked is locked until %v, %v", until, err)
				}
			})
		})
	}
}

// A file system without the attribute is refused.
func TestLockWhereThereIsNoAttribute(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	folder := t.TempDir()
	if err := unix.Mount("none", folder, "ramfs", 0, ""); err != nil {
		t.Skip("a ramfs cannot be mounted here: ", err)
	}
	store, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		store.Close()
		if err := unix.Unmount(folder, 0); err != nil {
			t.Errorf("unmounting %s: %v", folder, err)
		}
	})
	saysWhy(t, "making a repository", store.CheckLock(t.Context(), storage.Host), "the file system has no immutable attribute", "ext4")
}
