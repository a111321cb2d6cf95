package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"ferry/internal/pace"
	"ferry/internal/policy"
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

// Where a script of a job may not be run any more, its session is not; the script after the job is, if that one may be, and without
// secrets.
func TestScriptAfterAJobThatIsNotAllowed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"allowed", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	may, mayNot := filepath.Join(dir, "allowed", "script"), filepath.Join(dir, "other", "script")
	s := &service{app: &app{limits: &pace.Limits{}, keys: &keys{}}, allowed: server.Allowed{Files: []string{filepath.Join(dir, "allowed")}}, log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		pre, post string
		runs      bool
	}{{mayNot, may, true}, {may, mayNot, false}, {mayNot, mayNot, false}} {
		resources := policy.Resources{
			Repositories: []policy.Repository{{Name: "src", Location: "/srv/src"}, {Name: "vault", Location: "/srv/vault", Passphrase: policy.SecretRef{Environment: "VAULT"}}},
			Jobs: []policy.Job{{
				Name: "offsite", Source: policy.Origins{Repositories: []string{"src"}}, Target: policy.Target{Repository: "vault"},
				Scripts: policy.Scripts{Pre: policy.Script{Run: []string{c.pre}}, Post: policy.Script{Run: []string{c.post}}},
			}},
		}
		setup, err := s.prepare(t.Context(), resources, "offsite")
		if err == nil {
			t.Errorf("%+v: it is set up", c)
		}
		if runs := len(setup.Job.Scripts.Post.Run) > 0; runs != c.runs || setup.Target.Location != "/srv/vault" || !slices.Equal(setup.Hidden, []string{"VAULT"}) {
			t.Errorf("%+v: %+v", c, setup)
		}
	}
}
