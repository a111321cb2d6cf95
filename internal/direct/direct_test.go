package direct_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/direct"
)

func TestSet(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !direct.Fit(file) {
		t.Skip("this file system is not one of those")
	}
	content := aligned()
	copy(content, bytes.Repeat([]byte("ferry..."), 2*direct.Align/8))
	for _, past := range []bool{true, false, true} {
		if err := direct.Set(file, past); err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
		if err != nil || (flags&unix.O_DIRECT != 0) != past {
			t.Errorf("past the page cache: %v; flags %x, %v", past, flags, err)
		}
		if _, err := file.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file.Name())
	if err != nil || !bytes.Equal(got, bytes.Repeat(content, 3)) {
		t.Errorf("%d bytes are there: %v", len(got), err)
	}
}

// aligned is memory of two pages.
func aligned() []byte {
	memory := make([]byte, 3*direct.Align)
	for !direct.Aligned(memory[:direct.Align], 0) {
		memory = memory[1:]
	}
	return memory[:2*direct.Align]
}

func TestAligned(t *testing.T) {
	memory := aligned()
	for name, c := range map[string]struct {
		p      []byte
		offset int64
		want   bool
	}{
		"all three": {memory[:direct.Align], 5 * direct.Align, true},
		"length":    {memory[:direct.Align-512], 0, false},
		"offset":    {memory[:direct.Align], 512, false},
		"memory":    {memory[512 : direct.Align+512], 0, false},
	} {
		if got := direct.Aligned(c.p, c.offset); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
