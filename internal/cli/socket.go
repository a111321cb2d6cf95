package cli

import (
	"os"
	"path/filepath"
)

// systemSocket is the socket of a server that root runs.
const systemSocket = "/run/ferry/ferry.sock"

// defaultStateDir is where a server keeps its catalog.
func defaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/ferry"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ferry")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "ferry")
}

// defaultSocket is where a server of this user listens.
func defaultSocket() string {
	if path := os.Getenv("FERRY_SOCKET"); path != "" {
		return path
	}
	if os.Geteuid() == 0 {
		return systemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ferry.sock")
	}
	return filepath.Join(defaultStateDir(), "ferry.sock")
}

// socketToAsk is the socket of the server that is asked: the user's own, or else the system's where there is one.
func socketToAsk() string {
	own := defaultSocket()
	if os.Getenv("FERRY_SOCKET") != "" {
		return own
	}
	if _, err := os.Stat(own); err != nil {
		if _, err := os.Stat(systemSocket); err == nil {
			return systemSocket
		}
	}
	return own
}
