package repo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process says which one holds a lease, so that another on the same kernel can see whether it is gone. Host names and process ids
// do not: containers share the former, and have each their own of the latter.
type process struct {
	PID int `json:"pid"`
	// Table names what PID counts in (processTable), and Started is when the process began, in the kernel's ticks: its id may be
	// another's by now. Empty and 0 if they cannot be told.
	Table   string `json:"processes,omitempty"`
	Started uint64 `json:"started,omitempty"`
}

func thisProcess() process {
	p := process{PID: os.Getpid(), Table: processTable()}
	if started, err := processStarted(p.PID); err == nil {
		p.Started = started
	}
	return p
}

// gone is true if the process has ended, for certain. If there is any doubt it is false: of another boot, or another namespace, nothing
// can be known here. One that has ended and that its parent has not asked for is not gone yet.
func (p process) gone() bool {
	if p.Table == "" || p.Started == 0 || p.PID <= 0 || p.Table != processTable() {
		return false
	}
	if err := unix.Kill(p.PID, 0); err != nil { // not by /proc, which may hide what belongs to others
		return errors.Is(err, unix.ESRCH)
	}
	started, err := processStarted(p.PID)
	return err == nil && started != p.Started
}

// processTable names the table of processes that this one is in: of one boot of one kernel, one namespace of ids, and one of times,
// which times of start count in. The number of a namespace is given again only when all its processes are gone. Empty if it cannot be told,
// as where /proc is not this namespace's.
func processTable() string {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(boot) == 0 {
		return ""
	}
	ids, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	times, err := os.Readlink("/proc/self/ns/time")
	if err != nil && !errors.Is(err, os.ErrNotExist) { // older kernels have none
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{strings.TrimSpace(string(boot)), ids, times}, "\n")))
	return hex.EncodeToString(sum[:16])
}

// processStarted is when a process of this table began, in ticks since the kernel did.
func processStarted(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, which may have any characters; the start is the 22nd.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("%s: %d fields", path, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
