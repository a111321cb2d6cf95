package image

import (
	"path"
	"strings"
	"testing"
)

// FuzzBackingName: whatever an image calls its backing file, the path that comes of it is below the source.
func FuzzBackingName(f *testing.F) {
	dir := f.TempDir()
	root, listing := openRoot(f, dir)
	s := &scan{root: root, listing: listing}
	for _, name := range []string{
		"base.raw", "../base.raw", "a/../../../base.raw", "/etc/passwd", dir + "/base.raw", dir + "/../x", "file:b", "file:///x", "json:{}",
		"nbd://host/x", "a:b", "./a:b", "", ".", "..", "a\x00b", "//", dir, "\xff",
	} {
		f.Add("sub", name)
		f.Add(".", name)
	}
	f.Fuzz(func(t *testing.T, folder, name string) {
		folder = path.Clean("/" + strings.ReplaceAll(folder, "\x00", ""))[1:] // as a listing has them
		if folder == "" {
			folder = "."
		}
		where, err := s.resolve(folder, name)
		if err != nil {
			return
		}
		if path.IsAbs(where) || where == ".." || strings.HasPrefix(where, "../") || where != path.Clean(where) || strings.Contains(where, "\x00") {
			t.Fatalf("%q in %q is %q", name, folder, where)
		}
	})
}
