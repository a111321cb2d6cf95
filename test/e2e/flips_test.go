//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/vma"
)

// variedVault is a repository with something of everything: disks of an archive in two states, a container's stream, an
// image, configuration, more than one commit, and an index segment. With its points it returns what each restores to.
func variedVault(t *testing.T) (u *user, vault string, stored []pointInfo, want []map[string]string) {
	t.Helper()
	from := t.TempDir()
	root := device(t, "drive-scsi0", 101, 3*mib)
	for day, data := range []vma.DeviceContent{device(t, "drive-scsi1", 102, mib), device(t, "drive-scsi1", 103, mib+512)} {
		dump{vmid: 100, uuid: uuidOne, name: "web", day: day, disks: []vma.DeviceContent{root, data}}.write(t, from)
	}
	containerArchive(t, filepath.Join(from, "vzdump-lxc-200-2026_11_20-01_00_00.tar.zst"), 104, 2*mib, "")
	contentFile(t, filepath.Join(from, "image.raw"), 105, 2*mib+1536)
	u, vault = newUser(t), filepath.Join(t.TempDir(), "vault")
	for _, machine := range []string{"web", "ct200", "image"} {
		u.copied(from, vault, "--create", "--all", "--machine", machine)
	}
	stored = u.points(vault)
	if len(stored) != 4 {
		t.Fatalf("%+v", stored)
	}
	for _, p := range stored {
		want = append(want, u.restored(vault, p))
	}
	return u, vault, stored, want
}

// Single flipped bits, anywhere in a repository: verify finds each that matters, and no restore ends with exit code 0 and
// other bytes than were copied.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	flips := 150
	if testing.Short() {
		flips = 20
	}
	u, to, stored, want := variedVault(t)
	files := treeOf(t, to)
	random := rand.New(rand.NewPCG(71, 0))
	codes := map[string]int{}
	for range flips {
		name := files[random.IntN(len(files))]
		undo := flip(t, filepath.Join(to, name), random)
		// Half of the time as someone whose cache has seen the repository whole.
		reader := u
		if random.IntN(2) == 0 {
			reader = newUser(t)
		}
		verified := reader.run("verify", to)
		codes[fmt.Sprintf("%s: %d", filepath.Dir(name), verified.code)]++
		tried := []int{random.IntN(len(stored))}
		switch {
		case verified.code == 5:
		case verified.code == 0:
			tried = nil // it must have been harmless
			for i := range stored {
				tried = append(tried, i)
			}
		case verified.code == 1 && strings.Contains(verified.err, "needs a newer version"):
			// A flipped version, feature or hash is refused before anything else of the file is understood.
		default:
			t.Errorf("%s, %s: verify ended with %d: %v", name, undo.what, verified.code, verified)
		}
		for _, i := range tried {
			restoresRightOrNot(t, reader, to, stored[i], want[i], verified.code == 0, name+", "+undo.what)
		}
		undo.restore(t)
	}
	t.Logf("%v", codes)
	u.verified(to)
}

// restoresRightOrNot restores a point from a repository that may be damaged. Only the right bytes may have a final name.
func restoresRightOrNot(t *testing.T, u *user, repository string, p pointInfo, want map[string]string, must bool, what string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	defer os.RemoveAll(out)
	r := u.run("restore", repository, p.Machine.ID, "--point", p.ID, "--to", out)
	got := sumTree(t, out)
	delete(got, "restore.json")
	for name, sum := range got {
		if want[name] != sum {
			t.Errorf("%s: %s is there and wrong (exit %d)", what, name, r.code)
		}
	}
	switch {
	case r.code == 0 && !maps.Equal(got, want):
		t.Errorf("%s: restored %v, not %v: %v", what, got, want, r)
	case r.code != 0 && must:
		t.Errorf("%s: verify says that all is well, restore ends with %d: %v", what, r.code, r)
	case r.code != 0 && r.err == "":
		t.Errorf("%s: exit %d and not a word", what, r.code)
	}
}

// flipped is a file with a bit turned round.
type flipped struct {
	path   string
	at     int64
	before byte
	mode   os.FileMode
	what   string
}

func flip(t *testing.T, path string, random *rand.Rand) flipped {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		t.Fatalf("%s: %v, %d bytes", path, err, info.Size())
	}
	f := flipped{path: path, at: random.Int64N(info.Size()), mode: info.Mode()}
	file := f.open(t)
	defer file.Close()
	one := make([]byte, 1)
	if _, err := file.ReadAt(one, f.at); err != nil {
		t.Fatal(err)
	}
	f.before = one[0]
	bit := random.IntN(8)
	one[0] ^= 1 << bit
	if _, err := file.WriteAt(one, f.at); err != nil {
		t.Fatal(err)
	}
	f.what = fmt.Sprintf("byte %d bit %d", f.at, bit)
	return f
}

// open opens the file for writing, which a repository's files may not be meant for.
func (f flipped) open(t *testing.T) *os.File {
	t.Helper()
	if err := os.Chmod(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err == nil {
		err = os.Chmod(f.path, f.mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func (f flipped) restore(t *testing.T) {
	t.Helper()
	file := f.open(t)
	defer file.Close()
	if _, err := file.WriteAt([]byte{f.before}, f.at); err != nil {
		t.Fatal(err)
	}
}

// A whole file of the repository is missing or cut short.
func TestMissingFiles(t *testing.T) {
	t.Parallel()
	u, to, stored, want := variedVault(t)
	for _, name := range treeOf(t, to) {
		// What is below marks/ are hints (what was proven when, what the last copy wrote): without one nothing of a point is
		// lost, and nothing is to be noticed.
		hint := strings.HasPrefix(filepath.ToSlash(name), "marks/")
		path := filepath.Join(to, name)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, length := range []int{-1, 0, len(content) / 2, len(content) - 1} {
			what := fmt.Sprintf("%s cut to %d bytes", name, length)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if length >= 0 {
				if err := os.WriteFile(path, content[:length], 0o600); err != nil {
					t.Fatal(err)
				}
			}
			reader := newUser(t)
			verified := reader.run("verify", to)
			// Without its last entry a log is a shorter log: who has not seen the longer one cannot know.
			lost := length < 0 && filepath.Dir(name) == "log"
			// Without the description there is no repository.
			none := length < 0 && name == "repository.json"
			switch {
			case hint && verified.code != 0:
				t.Errorf("%s: it is only a hint, and verify ended with %d: %v", what, verified.code, verified)
			case hint:
				restoresRightOrNot(t, reader, to, stored[len(what)%len(stored)], want[len(what)%len(stored)], true, what)
				continue
			}
			if verified.code != 5 && !(lost && verified.code == 0) && !(none && verified.code == 2) {
				t.Errorf("%s: verify ended with %d: %v", what, verified.code, verified)
			}
			// Who has seen it must notice, whatever is missing.
			if seen := u.run("verify", to); seen.code == 0 && seen.err == "" {
				t.Errorf("%s: not a word to someone who has seen it whole: %v", what, seen)
			}
			if !lost && !none {
				i := len(what) % len(stored)
				restoresRightOrNot(t, reader, to, stored[i], want[i], false, what)
			}
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u.verified(to)
}
