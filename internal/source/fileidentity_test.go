package source_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// A program that writes in place and sets the mtime back leaves a trace in the time of change alone.
func TestWriteWithOldModTimeIsAChange(t *testing.T) {
	inside, root := folder(t)
	path := filepath.Join(inside, "a.vma")
	before, err := root.Identify("a.vma")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Millisecond) // the file system's clock is coarse
	write(t, path, "CONTENT of a")
	if err := os.Chtimes(path, before.ModTime, before.ModTime); err != nil {
		t.Fatal(err)
	}
	now, err := root.Identify("a.vma")
	if err != nil {
		t.Fatal(err)
	}
	if !now.ModTime.Equal(before.ModTime) || now.Size != before.Size || now.Inode != before.Inode {
		t.Fatalf("%+v, then %+v: the test shows nothing", before, now)
	}
	if now.Same(before) {
		t.Error("written to, and the same")
	}
	if err := root.Revalidate([]source.FileIdentity{before}); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
	// Also after it was remembered in a file.
	encoded, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	var remembered source.FileIdentity
	if err := json.Unmarshal(encoded, &remembered); err != nil || !remembered.Same(before) || remembered.Same(now) {
		t.Errorf("remembered %s as %+v: %v", encoded, remembered, err)
	}
}
