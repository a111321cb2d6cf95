package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/storage"
)

// Keys that a rotation could not give the new data key to are named, and what helps.
func TestKeysWithoutTheNewDataKey(t *testing.T) {
	keys := []repo.Key{{ID: "0123456789abcdef0123456789abcdef", Kind: repo.KeyPassphrase, Label: "the safe"}, {ID: "fedcba9876543210fedcba9876543210", Kind: repo.KeyX25519}}
	for hint, err := range map[string]error{"--passphrase-file": &repo.CannotRotateError{Keys: keys}, "ferry key add": &repo.LateKeysError{Keys: keys}} {
		err := keyError(err)
		var told *backup.Error
		var exit *exitError
		if !errors.As(err, &told) || !strings.Contains(told.Hint, hint) || !errors.As(err, &exit) || exit.code != ExitKey {
			t.Errorf("%v", err)
		}
		if text := err.Error(); !strings.Contains(text, "0123456789ab (passphrase) the safe, fedcba987654 (age key (X25519))") {
			t.Errorf("%s", text)
		}
	}
	if err := keyError(nil); err != nil {
		t.Errorf("nothing is wrong, and: %v", err)
	}
}

// A key whose file the storage has locked is not removed, and one is told what can be done instead.
func TestLockedKey(t *testing.T) {
	err := keyError(lockedKeyHint(&storage.LockedError{Name: "keys/000001-0123", Until: time.Now()}, "s3://b/my vault", "0123"))
	if !strings.Contains(backup.Hint(err), "ferry key rotate 's3://b/my vault' --drop 0123") || !strings.Contains(err.Error(), "keys/000001-0123 is locked") {
		t.Errorf("%v; %s", err, backup.Hint(err))
	}
	if other := errors.New("another"); lockedKeyHint(other, "", "") != other {
		t.Error("another error has changed")
	}
}

// What is no public key is named by where it stands, as all names are. What it is may be a secret.
func TestWrongRecipients(t *testing.T) {
	file := filepath.Join(t.TempDir(), "those\x1b[2J%.pub")
	if err := os.WriteFile(file, []byte("# office\n\nhunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for where, f := range map[string]newKeyFlags{printable(file) + ", line 3": {recipientFiles: []string{file}}, "--recipient": {recipients: []string{"hunter2"}}} {
		if _, err := f.publicKeys(); err == nil || !strings.HasPrefix(err.Error(), where+": ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %s", err, where)
		}
	}
}

// A secret's command that is ended, or has, is not waited for because of what it left running.
func TestSecretCommandLeavesSomethingRunning(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	left := func() { // what the last command left
		content, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(number, unix.SIGKILL); err != nil {
			t.Errorf("it was waited for: %v", err)
		}
	}
	a := &app{errOut: io.Discard}
	background := "sleep 60 & echo $! >" + pid + "; echo hunter2"
	if got, err := a.runSecretCommand(t.Context(), "passphrase", background); err != nil || string(got) != "hunter2\n" {
		t.Errorf("%q, %v", got, err)
	}
	left()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := filepath.Join(t.TempDir(), "began")
	if err := unix.Mkfifo(began, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = os.ReadFile(began)
		cancel()
	}()
	if got, err := a.runSecretCommand(ctx, "passphrase", background+"; echo >"+began+"; wait"); err == nil {
		t.Errorf("ended, it gives %q", got)
	}
	left()
}

// Of repositories that are opened at once none asks for what was typed for another meanwhile.
func TestTypedMeanwhile(t *testing.T) {
	whole := &app{errOut: io.Discard, unattended: true} // so nobody can be asked
	whole.keys = &keys{app: whole}
	of := whole.asResource(policy.Repository{}).app.keys
	identities := func(try, want int) {
		t.Helper()
		got, err := of.Identities(t.Context(), repo.KeyRequest{Kinds: []repo.KeyKind{repo.KeyPassphrase}, Try: try})
		if err != nil || len(got) != want {
			t.Errorf("try %d: %d keys, %v, want %d", try, len(got), err, want)
		}
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"first": "horse\n", "second": "staple\n"} {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ExitDone, "repo", "init", in("vault"), "--encrypt", "--new-passphrase-file", in("first"), "--cache-dir", in("cache"))
	run(t, ExitDone, "key", "export", in("vault"), in("kit"), "--new-passphrase-file", in("second"), "--passphrase-file", in("first"), "--cache-dir", in("cache"))
	content, err := os.ReadFile(in("kit"))
	if err != nil {
		t.Fatal(err)
	}
	kit, wrong, right := repo.Kit{Name: "kit", Content: content}, repo.NewPassphrase("horse"), repo.NewPassphrase("staple")
	opens := func(want repo.Passphrase, tried ...repo.Passphrase) {
		t.Helper()
		if got, err := of.KitPassphrase(t.Context(), kit, tried); err != nil || !got.Equal(want) {
			t.Errorf("%d tried: %d letters, %v, want %d", len(tried), got.Length(), err, want.Length())
		}
	}
	identities(0, 0)
	opens(repo.Passphrase{})
	for _, typed := range []repo.Passphrase{wrong, right} {
		if _, err := whole.keys.add(typed); err != nil {
			t.Fatal(err)
		}
	}
	identities(1, 2)
	identities(2, 0)
	identities(0, 2) // when it is opened again
	opens(right)
	opens(right, wrong)
	opens(repo.Passphrase{}, wrong, right)
}

// A passphrase's file that hangs keeps nobody from the keys of other repositories.
func TestSecretThatHangsHoldsUpItsOwnRepository(t *testing.T) {
	dir := t.TempDir()
	hangs := filepath.Join(dir, "hangs")
	if err := unix.Mkfifo(hangs, 0o600); err != nil {
		t.Fatal(err)
	}
	given := filepath.Join(dir, "given")
	if err := os.WriteFile(given, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := &app{errOut: io.Discard, unattended: true}
	whole.keys = &keys{app: whole}
	of := func(file string) *keys {
		return whole.asResource(policy.Repository{Passphrase: policy.SecretRef{File: file}}).app.keys
	}
	type found struct {
		identities []age.Identity
		err        error
	}
	ask := func(k *keys) chan found {
		got := make(chan found, 1)
		go func() {
			identities, err := k.Identities(t.Context(), repo.KeyRequest{})
			got <- found{identities, err}
		}()
		return got
	}
	first := ask(of(hangs))
	writer, err := os.OpenFile(hangs, os.O_WRONLY, 0) // once it is open for reading too
	if err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-ask(of(given)):
		if len(got.identities) != 1 || got.err != nil {
			t.Errorf("%d keys, %v", len(got.identities), got.err)
		}
	case <-time.After(time.Minute):
		t.Error("the other repository waits for its key")
	}
	if _, err := writer.WriteString("another\n"); err != nil {
		t.Error(err)
	}
	writer.Close()
	if got := <-first; len(got.identities) != 1 || got.err != nil {
		t.Errorf("%d keys, %v", len(got.identities), got.err)
	}
}
