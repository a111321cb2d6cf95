package cli

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	// systemSocket is the socket of a server that root runs.
	systemSocket = "/run/ferry/ferry.sock"
	socketName   = "ferry.sock"
)

// defaultStateDir is where a server of a user keeps its catalog. Without a home there is a folder below the system's temporary folder.
func defaultStateDir(uid int) string {
	if uid == 0 {
		return "/var/lib/ferry"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ferry")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return homelessStateDir(uid)
	}
	return filepath.Join(home, ".local", "state", "ferry")
}

// homelessStateDir is the state folder of a user without a home.
func homelessStateDir(uid int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("ferry-state-%d", uid))
}

// checkStateDir makes sure that a default state folder where everyone may make one is the user's alone: who made it first could put
// jobs, with their scripts, into its catalog.
func checkStateDir(dir string, uid int) error {
	if dir != homelessStateDir(uid) {
		return nil
	}
	return mustBePrivate(dir, uid, "server's state", "--state DIR, and --socket PATH")
}

// defaultSocket is where a server of a user listens.
func defaultSocket(uid int) string {
	if path := os.Getenv("FERRY_SOCKET"); path != "" {
		return path
	}
	if uid == 0 {
		return systemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, socketName)
	}
	return filepath.Join(defaultStateDir(uid), socketName)
}

// socketToAsk is the socket of the server that is asked: the user's own, or else the system's where there is one. What lies in a folder
// that another user may have made is not the user's own.
func socketToAsk(uid int) string {
	own := defaultSocket(uid)
	if os.Getenv("FERRY_SOCKET") != "" {
		return own
	}
	dir := filepath.Dir(own)
	if private, err := isPrivate(dir, uid); dir == homelessStateDir(uid) && (err != nil || !private) {
		return systemSocket
	}
	if _, err := os.Stat(own); err != nil {
		if _, err := os.Stat(systemSocket); err == nil {
			return systemSocket
		}
	}
	return own
}
