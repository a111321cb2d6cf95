package main

import (
	"bytes"
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

func TestNextStateChangesWhatWasAskedFor(t *testing.T) {
	before := make([]byte, 16*mebibyte)
	for i := range before {
		before[i] = byte(i >> 8)
	}
	clear(before[4*mebibyte : 6*mebibyte])
	var states [][]byte
	for range 2 {
		image := filepath.Join(t.TempDir(), "image")
		file, err := os.Create(image)
		if err != nil {
			t.Fatal(err)
		}
		for _, held := range [][2]int64{{0, 4}, {6, 16}} { // a hole between them
			if _, err := file.WriteAt(before[held[0]*mebibyte:held[1]*mebibyte], held[0]*mebibyte); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		touched, err := change(image, 2*mebibyte, 7)
		if err != nil || touched != 2*mebibyte {
			t.Fatalf("%d bytes of clusters were touched, %v", touched, err)
		}
		after, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, after)
	}
	if !bytes.Equal(states[0], states[1]) {
		t.Error("the same seed made two states")
	}
	clusters, pages := 0, 0
	for at := 0; at < len(before); at += cluster {
		if bytes.Equal(before[at:at+cluster], states[0][at:at+cluster]) {
			continue
		}
		clusters++
		for p := at; p < at+cluster; p += page {
			if !bytes.Equal(before[p:p+page], states[0][p:p+page]) {
				pages++
			}
		}
	}
	// Half of 32 clusters changed whole, half of them in one page.
	if clusters != 32 || pages != 16*cluster/page+16 {
		t.Errorf("%d clusters and %d pages changed", clusters, pages)
	}
	if hole := states[0][4*mebibyte : 6*mebibyte]; !bytes.Equal(hole, make([]byte, len(hole))) {
		t.Error("the hole was written to")
	}
}
