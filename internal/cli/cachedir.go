package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// rootCacheDir is the cache of root without a home, such as in a systemd unit, and the one that packaging/ferry.service names.
const rootCacheDir = "/var/cache/ferry"

// defaultCacheDir follows the XDG rules. Without a home there is a folder of the system for root, and for others one below the
// system's temporary folder.
func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	switch {
	case err == nil:
		return filepath.Join(dir, "ferry")
	case os.Getuid() == 0:
		return rootCacheDir
	}
	return homelessCacheDir(os.Getuid())
}

// homelessCacheDir is the cache of a user without a home.
func homelessCacheDir(uid int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("ferry-cache-%d", uid))
}

// checkCacheDir makes sure that a default cache folder where everyone may make one is this user's alone: who made it first could say
// in it what was seen of a repository.
func checkCacheDir(dir string) error {
	uid := os.Getuid()
	if dir != homelessCacheDir(uid) {
		return nil
	}
	return mustBePrivate(dir, uid, "cache", "--cache-dir DIR")
}

// mustBePrivate makes a folder that is the user's alone, or gives an error unless it is one. Its use and the option that names another
// are for the error.
func mustBePrivate(dir string, uid int, use, option string) error {
	hint := "say where the " + use + " may lie: " + option
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return hinted(usage("there is no home for the %s, and its folder cannot be made: %w", use, err), hint)
	}
	private, err := isPrivate(dir, uid)
	if err == nil && !private {
		err = hinted(usage("there is no home for the %s, and %s is not a folder of this user alone", use, printable(dir)), hint)
	}
	return err
}

// isPrivate is true of a folder that is the user's alone.
func isPrivate(dir string, uid int) (bool, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return false, err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	return known && int(owner.Uid) == uid && info.IsDir() && info.Mode().Perm()&0o077 == 0, nil
}
