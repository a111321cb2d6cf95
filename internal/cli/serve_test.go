package cli

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestAllowedFolders(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct{ given, want []string }{
		{nil, []string{"/etc/ferry", "/srv/state/secrets"}},
		{[]string{"/etc/backup", "sub/../secrets"}, []string{"/etc/backup", filepath.Join(dir, "secrets")}},
	} {
		if got, err := allowedFolders(c.given, "/srv/state"); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.given, got, err)
		}
	}
	if got, err := allowedFolders([]string{"/etc/backup", ""}, "/srv/state"); err == nil {
		t.Errorf("no folder allows %q", got)
	}
}
