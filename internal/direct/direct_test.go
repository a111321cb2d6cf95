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
		var there unix.Statfs_t
		if err := unix.Fstatfs(int(file.Fd()), &there); err != nil || there.Type == unix.EXT4_SUPER_MAGIC {
			t.Fatalf("ext4 is not found to be fit; %v", err)
		}
		t.Skip("the temporary folder lies on neither ext4 nor XFS: nothing goes past the page cache there")
	}
	content := direct.Memory(2 * direct.Align)
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

func TestMemory(t *testing.T) {
	for _, size := range []int{direct.Align, 2 << 20, 6 << 20} {
		memory := direct.Memory(size)
		if len(memory) != size || cap(memory) != size || !direct.Aligned(memory, 0) {
			t.Errorf("asked for %d bytes: %d, room for %d, aligned %v", size, len(memory), cap(memory), direct.Aligned(memory, 0))
		}
		memory[0], memory[size-1] = 1, 1
	}
}

func TestAligned(t *testing.T) {
	memory := direct.Memory(2 * direct.Align)
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
