package cli

import (
	"path/filepath"
	"reflect"
	"testing"

	"ferry/internal/server"
)

func TestAllowedFolders(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct {
		given serveFlags
		want  server.Allowed
	}{
		{serveFlags{}, server.Allowed{Files: []string{"/etc/ferry", "/srv/state/secrets"}, Places: []string{}}},
		{
			serveFlags{allow: []string{"/etc/backup", "sub/../secrets"}, place: []string{"vault", "s3://backups/ferry"}},
			server.Allowed{Files: []string{"/etc/backup", filepath.Join(dir, "secrets")}, Places: []string{filepath.Join(dir, "vault"), "s3://backups/ferry"}},
		},
	} {
		if got, err := c.given.allowed("/srv/state"); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, %v", c.given, got, err)
		}
	}
	for _, wrong := range []serveFlags{{allow: []string{"/etc/backup", ""}}, {place: []string{""}}, {place: []string{"/srv", "s3://"}}} {
		if got, err := wrong.allowed("/srv/state"); err == nil {
			t.Errorf("%+v allows %+v", wrong, got)
		}
	}
}
