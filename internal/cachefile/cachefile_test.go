package cachefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/cachefile"
)

func TestWriteReplacesWholeAndLeavesNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "file")
	for _, content := range []string{"first, and longer", "second"} {
		if err := cachefile.Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Fatalf("the folder has %d entries, %v; want the file alone", len(entries), err)
	}
}

func TestWriteFailsWithoutLeavingADraft(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := cachefile.Write(taken, []byte("x")); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Fatalf("the folder has %d entries, %v; want the folder alone", len(entries), err)
	}
}
