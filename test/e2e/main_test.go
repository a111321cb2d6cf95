//go:build integration

// Package e2e runs the real program as a person would: its arguments, its exit codes, what it prints, and what lies in
// the folders afterwards. Nothing of Ferry's own code judges the results: restored files are compared with sums that
// others made, and repositories are read by the independent reader as well.
//
//	go test -tags integration ./test/e2e
//
// Some tests need sample data that is not part of the repository ($FERRY_SHARED, or "shared" beside the repository),
// some need root and tools. Without these they are skipped and say so; where CI is set, only the sample data may be missing. -short
// leaves out what takes long. All run beside each other: most of them wait, for a disk or for the next minute.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the file under test, built once.
var program string

// moduleRoot is the repository's folder.
var moduleRoot string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	root, err := filepath.Abs("../..")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	moduleRoot = root
	folder, err := os.MkdirTemp("", "ferry-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	program = filepath.Join(folder, "ferry")
	build := exec.Command("go", "build", "-o", program, "./cmd/ferry")
	build.Dir = moduleRoot
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building ferry: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// golden is a folder of the sample data. Without the data the test is skipped.
func golden(t *testing.T, name string) string {
	t.Helper()
	shared := os.Getenv("FERRY_SHARED")
	if shared == "" {
		shared = filepath.Join(moduleRoot, "..", "shared")
	}
	folder := filepath.Join(shared, "golden", name)
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("no sample data: %v (set FERRY_SHARED to the folder that holds golden/)", err)
	}
	return folder
}

// lacks ends a test for want of something that is not here: it is skipped, and fails where all of that must be (CI is set).
func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// needRoot is for a test that mounts file systems.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "needs root, to mount a small file system")
	}
}

// needTool is where a tool is.
func needTool(t *testing.T, name string) (path string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		lacks(t, "%v", err)
	}
	return path
}
