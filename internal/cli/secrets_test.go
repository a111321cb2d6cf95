package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretRun runs the real program and keeps what it says.
type secretRun struct {
	t        *testing.T
	dir      string
	markers  map[string]string
	printed  bytes.Buffer
	commands int
}

// ferry runs the program, with the variables set, and returns what it printed.
func (r *secretRun) ferry(want int, variables []string, args ...string) string {
	r.t.Helper()
	command := exec.Command("ferry", append(args, "--cache-dir", "cache", "--temp-dir", "temp")...)
	command.Dir = r.dir
	command.Env = append(os.Environ(), variables...)
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	_ = command.Run() // the code says it
	r.printed.Write(out.Bytes())
	r.printed.Write(errOut.Bytes())
	r.commands++
	if code := command.ProcessState.ExitCode(); code != want {
		r.t.Fatalf("ferry %s: exit code %d instead of %d\n%s%s", strings.Join(args, " "), code, want, out.Bytes(), errOut.Bytes())
	}
	return out.String()
}

func (r *secretRun) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *secretRun) read(name string) string {
	r.t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(content)
}

// mustNotTell fails the test if any secret is in the content, in any of the forms that one could get there in.
func (r *secretRun) mustNotTell(where string, content []byte) {
	r.t.Helper()
	for name, secret := range r.markers {
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")} {
			if bytes.Contains(content, []byte(form)) {
				r.t.Errorf("%s tells %s", where, name)
			}
		}
		if raw, err := hex.DecodeString(secret); err == nil && bytes.Contains(content, raw) {
			r.t.Errorf("%s tells %s, as bytes", where, name)
		}
	}
}

// TestSecretsStaySecret runs every command that has to do with keys, and looks for passphrases, age keys and the ring's keys
// in all that it prints and leaves behind, and in the command lines of what it runs.
func TestSecretsStaySecret(t *testing.T) {
	r := &secretRun{t: t, dir: t.TempDir(), markers: map[string]string{
		"the passphrase": "MARKER-correct-horse", "the second passphrase": "MARKER-battery-staple", "a wrong passphrase": "MARKER-not-this-one",
	}}
	if err := os.Mkdir(filepath.Join(r.dir, "temp"), 0o700); err != nil {
		t.Fatal(err)
	}
	samples, err := filepath.Abs(vzdumpSamples)
	if err != nil {
		t.Fatal(err)
	}
	r.write("first", r.markers["the passphrase"]+"\n")
	r.write("second", r.markers["the second passphrase"]+"\n")
	r.write("wrong", r.markers["a wrong passphrase"]+"\n")
	given := []string{"FERRY_PASSPHRASE=" + r.markers["the passphrase"]}
	wrong := []string{"FERRY_PASSPHRASE=" + r.markers["a wrong passphrase"]}

	public := strings.TrimSpace(r.ferry(ExitDone, nil, "key", "generate", "admin.key"))
	r.ferry(ExitDone, nil, "key", "generate", "old.key", "--x25519", "--json")
	for _, key := range []string{"admin.key", "old.key"} {
		r.markers["the age key in "+key] = regexp.MustCompile(`AGE-SECRET-KEY-\S+`).FindString(r.read(key))
	}
	r.ferry(ExitDone, given, "repo", "init", "vault", "--encrypt", "--recipient", public)
	r.ferry(ExitDone, nil, "repo", "init", "other", "--encrypt", "--new-passphrase-command", "cat first")
	r.ferry(ExitDone, nil, "key", "add", "vault", "--identity", "admin.key", "--new-passphrase-file", "first", "--label", "office")
	r.ferry(ExitDone, given, "key", "list", "vault")
	r.ferry(ExitDone, given, "key", "list", "vault", "--json")
	r.ferry(ExitDone, given, "copy", samples, "vault", "--all", "--json")
	r.ferry(ExitDone, nil, "verify", "vault", "--passphrase-file", "first", "--json")
	r.ferry(ExitDone, given, "points", "vault", "--check")
	r.ferry(ExitDone, given, "restore", "vault", "web01", "--to", "out")
	r.ferry(ExitKey, wrong, "restore", "vault", "web01", "--to", "out")
	r.ferry(ExitKey, wrong, "restore", "vault", "web01", "--to", "out", "--json", "--passphrase-file", "wrong", "--identity", "old.key")
	r.ferry(ExitUsage, given, "points", "vault", "--identity", "first")
	r.ferry(ExitUsage, given, "key", "add", "vault", "--recipients-file", "admin.key")
	r.ferry(ExitUsage, given, "key", "add", "vault", "--recipient", r.markers["the age key in old.key"])

	// Whoever lists processes meanwhile sees no secret, and the command's own environment has none.
	look := "cat /proc/$$/cmdline /proc/$PPID/cmdline /proc/$$/environ > seen; cat second"
	r.ferry(ExitDone, given, "key", "add", "vault", "--new-passphrase-command", look)
	r.ferry(ExitDone, nil, "points", "vault", "--passphrase-command", look)
	seen := r.read("seen")
	if !strings.Contains(seen, "--passphrase-command") || !strings.Contains(seen, "PATH=") {
		t.Errorf("saw %q", seen)
	}
	r.mustNotTell("a list of processes", []byte(seen))

	r.ferry(ExitKey, given, "key", "rotate", "vault")
	r.ferry(ExitDone, given, "key", "rotate", "vault", "--passphrase-file", "second", "--json")
	r.ferry(ExitDone, given, "key", "export", "vault", "kit.txt")
	r.ferry(ExitDone, given, "key", "export", "vault", "kit.secret", "--new-passphrase-file", "second", "--json")
	for _, key := range regexp.MustCompile(`"(?:idKey|key|proof)": "([0-9a-f]{64})"`).FindAllStringSubmatch(r.read("kit.txt"), -1) {
		r.markers["a key of the ring, "+key[1]] = key[1] // all of it: the beginnings of two may be alike
	}
	if len(r.markers) != 5+4 {
		t.Errorf("%d secrets are known", len(r.markers))
	}
	r.ferry(ExitDone, given, "copy", "vault", "copy", "--create", "--encrypt", "--same-keys", "--new-passphrase-file", "second")
	if err := os.RemoveAll(filepath.Join(r.dir, "vault", "keys")); err != nil {
		t.Fatal(err)
	}
	r.ferry(ExitKey, given, "restore", "vault", "web01", "--to", "again")
	r.ferry(ExitKey, wrong, "repo", "recover", "vault", "--kit", "kit.secret", "--new-passphrase-file", "first")
	r.ferry(ExitDone, nil, "repo", "recover", "vault", "--kit", "kit.secret", "--passphrase-file", "second", "--new-passphrase-file", "first", "--json")
	r.ferry(ExitDone, given, "restore", "vault", "web01", "--to", "again")

	r.mustNotTell("output", r.printed.Bytes())
	r.mustNotTell("output, without spaces", bytes.Join(bytes.Fields(r.printed.Bytes()), nil))
	r.lookAtFiles(map[string]bool{"first": true, "second": true, "wrong": true, "admin.key": true, "old.key": true, "kit.txt": true})
}

// lookAtFiles looks at all files but those that hold secrets on purpose, whose mode counts.
func (r *secretRun) lookAtFiles(secret map[string]bool) {
	r.t.Helper()
	files := 0
	err := filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		private := secret[name] || name == "kit.secret" || strings.Contains(name, "/keys/")
		if private && info.Mode().Perm() != 0o600 {
			r.t.Errorf("%s has mode %s", name, info.Mode())
		}
		if secret[name] {
			return nil
		}
		files++
		content, err := os.ReadFile(path)
		r.mustNotTell(name, content)
		r.mustNotTell("the name of a file", []byte(name))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if files < 30 || r.commands < 25 {
		r.t.Errorf("%d files and %d commands were looked at", files, r.commands)
	}
}
