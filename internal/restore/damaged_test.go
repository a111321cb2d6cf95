package restore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/restore"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// What cannot be read is zeros, all else is what was stored, and the map has every byte once.
func TestSkipDamaged(t *testing.T) {
	const block = 64 << 10
	data := make([]byte, 9*block+100)
	for i := range data {
		data[i] = byte(i/block + i*7 + 1)
	}
	r, store, point := stored(t, sourcetest.Object{Name: "vda", Data: data, Access: source.AccessRandom})
	damage := func(n int) { // a frame of the data pack
		for _, name := range store.Names("packs/") {
			info, err := store.Stat(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size < 2000 {
				continue // the nodes
			}
			if err := store.Tamper(name, func(b []byte) []byte {
				at := 64
				for range n {
					at += 96 + int(b[at+12]) + int(b[at+13])<<8 + int(b[at+14])<<16
				}
				b[at+96+5] ^= 1
				return b
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage(2)
	damage(3)
	damage(6)
	dir := t.TempDir()
	if _, err := restore.Restore(t.Context(), r, point, dir, restore.Options{}); err == nil {
		t.Fatal("damage was passed over without being asked to")
	}
	result, err := restore.Restore(t.Context(), r, point, dir, restore.Options{SkipDamaged: true})
	if err != nil || len(result.Files) != 1 || result.Missing() != 3*block || len(result.Files[0].Damaged) < 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "vda.raw"))
	if err != nil || len(got) != len(data) {
		t.Fatal(len(got), err)
	}
	want := bytes.Clone(data)
	for _, d := range result.Files[0].Damaged {
		clear(want[d.Offset : d.Offset+d.Length])
	}
	if !bytes.Equal(got, want) {
		t.Error("the file is not what was stored with zeros where it is damaged")
	}
	checkMap(t, filepath.Join(dir, result.Files[0].Map), int64(len(data)), result.Files[0].Damaged)
	var described struct {
		Files []struct {
			Map     string
			Damaged []restore.Range
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, "restore.json"))
	if err == nil {
		err = json.Unmarshal(content, &described)
	}
	if err != nil || len(described.Files) != 1 || described.Files[0].Map != "vda.raw.map" || fmt.Sprint(described.Files[0].Damaged) != fmt.Sprint(result.Files[0].Damaged) {
		t.Errorf("restore.json: %+v, %v", described, err)
	}
	damage(2)
	damage(3)
	damage(6) // good again
	if r, err = repo.Open(t.Context(), store, repo.Environment{}); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if result, err = restore.Restore(t.Context(), r, point, dir, restore.Options{SkipDamaged: true, Force: true}); err != nil || result.Missing() != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "vda.raw.map")); err == nil {
		t.Error("a map stays beside a file that lacks nothing")
	}
}

// checkMap reads a mapfile as GNU ddrescue's manual describes it.
func checkMap(t *testing.T, path string, size int64, damaged []restore.Range) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at, status, bad := int64(0), false, []restore.Range(nil)
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !status { // the first line that is no comment is the status line
			status = true
			continue
		}
		var from, length int64
		var kind string
		if n, err := fmt.Sscanf(line, "%v %v %s", &from, &length, &kind); n != 3 || err != nil || from != at || length <= 0 {
			t.Fatalf("line %q at %d: %v", line, at, err)
		}
		if kind == "-" {
			bad = append(bad, restore.Range{Offset: from, Length: length})
		} else if kind != "+" {
			t.Errorf("line %q", line)
		}
		at += length
	}
	if at != size || fmt.Sprint(bad) != fmt.Sprint(damaged) {
		t.Errorf("the map ends at %d of %d and has %v as missing, not %v", at, size, bad, damaged)
	}
}
