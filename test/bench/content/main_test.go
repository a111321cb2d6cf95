package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func digest(t *testing.T, folder string) (sum string, size int64) {
	t.Helper()
	hash := sha256.New()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		fmt.Fprintf(hash, "%s %d\n", name, len(content))
		hash.Write(content)
		size += int64(len(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil)), size
}

func TestGeneratedContentIsAlwaysTheSame(t *testing.T) {
	const want = "ce7657ac5bd48b74c93a0c428c0f80d33cbc47bec863a28318bc79caf4903794"
	for range 2 {
		folder := filepath.Join(t.TempDir(), "content")
		if _, err := fill(folder, nil, 3*mebibyte, 0); err != nil {
			t.Fatal(err)
		}
		sum, size := digest(t, folder)
		if size != 3*mebibyte {
			t.Errorf("%d bytes, want %d", size, 3*mebibyte)
		}
		if sum != want {
			t.Errorf("digest %s, want %s: figures of other runs can no longer be compared", sum, want)
		}
	}
}

func TestSystemFilesStayWithinTheirLimit(t *testing.T) {
	system := t.TempDir()
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(system, fmt.Sprint(i)), make([]byte, 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(t.TempDir(), "content")
	copied, err := fill(folder, []string{system, "/nonexistent"}, mebibyte, 350_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, size := digest(t, folder); copied != 300_000 || size != mebibyte {
		t.Errorf("%d bytes copied, %d in all", copied, size)
	}
}
