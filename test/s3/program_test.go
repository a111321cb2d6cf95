//go:build integration

package s3

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// program builds ferry once.
var program = sync.OnceValues(func() (string, error) {
	file := filepath.Join(scratch, "ferry")
	build := exec.Command("go", "build", "-o", file, "./cmd/ferry")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		os.Stderr.Write(out)
		return "", err
	}
	return file, nil
})

// machine is one to run ferry on: a cache folder of its own.
type machine struct {
	t     *testing.T
	cache string
	env   []string
}

func newMachine(t *testing.T, env ...string) *machine {
	return &machine{t: t, cache: t.TempDir(), env: env}
}

// run runs ferry, wants the exit code, and returns standard output and error.
func (m *machine) run(code int, args ...string) (string, string) {
	m.t.Helper()
	file, err := program()
	if err != nil {
		m.t.Fatal(err)
	}
	command := exec.CommandContext(m.t.Context(), file, append(args, "--cache-dir", m.cache)...)
	command.Env = append(os.Environ(), m.env...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	_ = command.Run()
	if got := command.ProcessState.ExitCode(); got != code {
		m.t.Fatalf("ferry %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out.String(), said.String())
	}
	if strings.Contains(out.String()+said.String(), secretKey) {
		m.t.Fatalf("ferry %s prints the secret key", strings.Join(args, " "))
	}
	return out.String(), said.String()
}

// counted runs ferry with --json, and returns what it asked of the server.
func (m *machine) counted(args ...string) requests {
	m.t.Helper()
	out, _ := m.run(0, append(args, "--json")...)
	var document struct{ StorageRequests requests }
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		m.t.Fatalf("%v in %s", err, out)
	}
	return document.StorageRequests
}

type requests struct{ Get, Head, List, Put, Delete, Lock, Other, Total, Retried int }

// disks makes a source: a raw image of size bytes for each machine, not compressible, with a hole in it.
func disks(t *testing.T, size int64, names ...string) string {
	t.Helper()
	folder := t.TempDir()
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(folder, name+".raw"), noise(uint64(i+1), size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// noise is content that does not compress, but for a quarter in the middle that is zeros.
func noise(seed uint64, size int64) []byte {
	content := make([]byte, size)
	x := seed*0x9E3779B97F4A7C15 + 1
	for i := range content {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if int64(i) < size*3/8 || int64(i) > size*5/8 {
			content[i] = byte(x >> 32)
		}
	}
	return content
}

// same fails unless both files have the same bytes.
func same(t *testing.T, a, b string) {
	t.Helper()
	first, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// TestProgram: from a source into a bucket, verified, restored, and on from there into a folder and another bucket.
func TestProgram(t *testing.T) {
	for _, k := range []kind{plain, locking} {
		m := newMachine(t)
		source := disks(t, 24<<20, "web", "db")
		vault := shared.location(shared.bucket(t, k))
		m.run(2, "copy", source, vault)
		m.run(0, "copy", source, vault, "--create")
		m.run(0, "copy", source, vault)
		m.run(0, "verify", vault)
		m.run(0, "points", vault)
		m.run(0, "repo", "info", vault)
		m.run(2, "repo", "init", vault)

		restored := t.TempDir()
		newMachine(t).run(0, "restore", vault, "web", "--to", restored)
		same(t, filepath.Join(source, "web.raw"), filepath.Join(restored, "web.raw"))

		folder := filepath.Join(t.TempDir(), "vault")
		m.run(0, "copy", vault, folder, "--create")
		m.run(0, "copy", vault, shared.location(shared.bucket(t, k)), "--create")
		restored = t.TempDir()
		m.run(0, "restore", folder, "db", "--to", restored)
		same(t, filepath.Join(source, "db.raw"), filepath.Join(restored, "db.raw"))
	}
}

// TestWrongPlaces: what is wrong is named, with what to do, and no key is printed.
func TestWrongPlaces(t *testing.T) {
	m := newMachine(t)
	source := disks(t, 1<<20, "web")
	none := "s3+http://" + shared.address + "/no-such-bucket/vault"
	for _, c := range []struct {
		code int
		args []string
		want string
		env  string
	}{
		{1, []string{"copy", source, none, "--create"}, "no bucket no-such-bucket", ""},
		{2, []string{"verify", shared.location(shared.bucket(t, plain))}, "no Ferry repository", ""},
		{2, []string{"verify", "s3://key:" + "word@bucket/vault"}, "must not hold keys", ""},
		{2, []string{"verify", "s3://bucket/vault?secret=x"}, "no option secret", ""},
		{1, []string{"verify", "s3+http://127.0.0.1:1/bucket/vault"}, "nothing listens there", ""},
		{1, []string{"verify", shared.location("b")}, "no keys for S3 were found", "AWS_ACCESS_KEY_ID="},
		{1, []string{"repo", "init", shared.location(shared.bucket(t, plain))}, "not those of this server", "AWS_SECRET_ACCESS_KEY=wrong-secret"},
	} {
		m.env = []string{c.env}
		if _, said := m.run(c.code, c.args...); !strings.Contains(said, c.want) || strings.Contains(said, "wrong-secret") {
			t.Errorf("%q says %q, want %q", c.args, said, c.want)
		}
	}
}
