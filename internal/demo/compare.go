package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// errDiffers: a restored file is not what was generated.
var errDiffers = errors.New("what was restored is not what was generated")

// description is the one file of a restored folder that no backup has in it.
const description = "restore.json"

// compare reads a restored folder and returns how many bytes were compared: every file is what was generated, byte for
// byte and by its SHA-256, all are there, and no other is.
func (d dumped) compare(ctx context.Context, folder string) (int64, error) {
	total := int64(0)
	expected := map[string]bool{description: true}
	for _, f := range d.files {
		expected[f.path] = true
		if err := ctx.Err(); err != nil {
			return total, err
		}
		if err := f.compare(folder); err != nil {
			return total, err
		}
		total += f.size
	}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err == nil && !expected[name] {
			err = fmt.Errorf("%w: %s is in no backup", errDiffers, path)
		}
		return err
	})
	return total, err
}

// compare reads one restored file next to its content made again, and computes its SHA-256 besides.
func (e expectation) compare(folder string) error {
	path := filepath.Join(folder, e.path)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", errDiffers, path)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != e.size {
		return fmt.Errorf("%w: %s has %d bytes, not %d", errDiffers, path, info.Size(), e.size)
	}
	content, hash, buffer := e.content(), sha256.New(), make([]byte, mebibyte)
	for at := int64(0); at < e.size; {
		n, err := io.ReadFull(file, buffer[:min(e.size-at, int64(len(buffer)))])
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		got, want := buffer[:n], content[at:at+int64(n)]
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%w: %s differs at byte %d", errDiffers, path, at+firstDifference(got, want))
		}
		hash.Write(got)
		at += int64(n)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != e.sha256 {
		return fmt.Errorf("%w: %s has the SHA-256 %s, not %s", errDiffers, path, sum, e.sha256)
	}
	return nil
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}

// largestFile returns the path, relative to folder, and the size of the largest file below it.
func largestFile(folder string) (name string, size int64, err error) {
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > size {
			name, size = strings.TrimPrefix(path, folder+string(filepath.Separator)), info.Size()
		}
		return err
	})
	return name, size, err
}

// flip changes one bit of a file.
func flip(path string, offset int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], offset); err != nil {
		return err
	}
	b[0] ^= 0x10
	if _, err := file.WriteAt(b[:], offset); err != nil {
		return err
	}
	return file.Close()
}
