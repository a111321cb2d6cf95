package restore_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/restore"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// Whatever a restore writes holds a machine's secrets, or says where they are: only the user who restores can read it, whatever
// the umask is, and also in place of a file that others could read. The folders it makes are closed to others, too.
func TestOthersReadNothing(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	r, store, point := stored(t, disk("vda", noise(1, 40*64<<10)),
		sourcetest.Object{Name: "root", Role: backup.RoleArchive, Data: noise(2, 100_000), Access: source.AccessOnePass, Shifting: true},
		sourcetest.Object{Name: "vm.xml", Role: backup.RoleConfiguration, Data: []byte("<domain/>")})
	for _, name := range store.Names("packs/") {
		err := store.Tamper(name, func(b []byte) []byte {
			if len(b) > 1<<20 {
				b[len(b)/2] ^= 1 // of the disk: then there is a map
			}
			return b
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "made")
	for _, options := range []restore.Options{{SkipDamaged: true, SHA256: true}, {SkipDamaged: true, Force: true}} {
		if _, err := restore.Restore(t.Context(), r, point, dir, options); err != nil {
			t.Fatal(err)
		}
		modes := map[string]fs.FileMode{}
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			name, _ := filepath.Rel(dir, path)
			modes[name] = info.Mode()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"vda.raw", "vda.raw.map", "root.tar", "restore.json", "config/vm.xml"} {
			if mode, there := modes[file]; !there || mode != 0o600 {
				t.Errorf("%s has mode %v, %v", file, mode, there)
			}
			if err := os.Chmod(filepath.Join(dir, file), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, folder := range []string{".", "config"} {
			if mode := modes[folder]; mode != fs.ModeDir|0o700 {
				t.Errorf("%s has mode %v", folder, mode)
			}
		}
		if len(modes) != 7 {
			t.Errorf("a restore wrote %v", modes)
		}
	}
}
