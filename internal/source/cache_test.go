package source_test

import (
	"io"
	"path/filepath"
	"testing"

	"ferry/internal/pagecache/pagecachetest"
	"ferry/internal/source"
)

// Reading a file of a source, at places or from its beginning on, leaves in the page cache what was there, and nothing else.
func TestReadingASourceDoesNotFillTheCache(t *testing.T) {
	const size, warm = 16 << 20, 4 << 20
	folder := pagecachetest.Folder(t)
	root, err := source.OpenRoot(folder, "")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, read := range map[string]func(*source.File) error{
		"at places": func(file *source.File) error {
			_, err := io.Copy(io.Discard, io.NewSectionReader(file, 0, size))
			return err
		},
		"as a stream": func(file *source.File) error {
			_, err := io.Copy(io.Discard, file)
			return err
		},
	} {
		path := filepath.Join(folder, name)
		pagecachetest.File(t, path, size, warm)
		file, err := root.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := read(file); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		pagecachetest.Resident(t, path, 0, warm, warm)
		pagecachetest.Resident(t, path, warm, size-warm, 0)
	}
}
