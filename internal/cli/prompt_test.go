package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what is typed into one end a program reads from the other, and the other way round.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File

	mu      sync.Mutex
	changed *sync.Cond
	shown   bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	lacking := t.Skip
	if os.Getenv("CI") != "" { // where all that is needed must be
		lacking = t.Fatal
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacking("no pseudo-terminals here: ", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacking("no pseudo-terminals here: ", err)
	}
	term := &terminal{t: t, master: master, slave: slave}
	term.changed = sync.NewCond(&term.mu)
	var reader sync.WaitGroup
	reader.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			term.mu.Lock()
			term.shown.Write(buffer[:n])
			term.changed.Broadcast()
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { slave.Close(); master.Close(); reader.Wait() })
	return term
}

// answer waits for a question, then types a line.
func (term *terminal) answer(question, line string) {
	term.mu.Lock()
	for !strings.HasSuffix(term.shown.String(), question) {
		term.changed.Wait()
	}
	term.shown.WriteString("\n") // the question is answered
	term.mu.Unlock()
	if _, err := term.master.WriteString(line); err != nil {
		term.t.Error(err)
	}
}

// run runs the program on the terminal, and answers its questions.
func (term *terminal) run(dir string, want int, questions [][2]string, args ...string) {
	term.t.Helper()
	command := exec.Command("ferry", append(args, "--cache-dir", filepath.Join(dir, "cache"))...)
	command.Dir, command.Env = dir, append(os.Environ(), "TERM=xterm")
	command.Stdin, command.Stdout, command.Stderr = term.slave, term.slave, term.slave
	if err := command.Start(); err != nil {
		term.t.Fatal(err)
	}
	var typist sync.WaitGroup
	typist.Go(func() {
		for _, q := range questions {
			term.answer(q[0], q[1])
		}
	})
	_ = command.Wait() // the code says it
	typist.Wait()
	if code := command.ProcessState.ExitCode(); code != want {
		term.mu.Lock()
		defer term.mu.Unlock()
		term.t.Fatalf("ferry %s: exit code %d instead of %d\n%s", strings.Join(args, " "), code, want, term.shown.String())
	}
}

// interrupt runs the program and interrupts it when it asks.
func (term *terminal) interrupt(dir, question string, args ...string) {
	term.t.Helper()
	command := exec.Command("ferry", append(args, "--cache-dir", filepath.Join(dir, "cache"))...)
	command.Env = append(os.Environ(), "TERM=xterm")
	command.Stdin, command.Stdout, command.Stderr = term.slave, term.slave, term.slave
	if err := command.Start(); err != nil {
		term.t.Fatal(err)
	}
	term.answer(question, "")
	if err := command.Process.Signal(os.Interrupt); err != nil {
		term.t.Fatal(err)
	}
	_ = command.Wait() // the code says it
	if code := command.ProcessState.ExitCode(); code != ExitInterrupted {
		term.t.Errorf("interrupted: exit code %d", code)
	}
}

// A passphrase is asked for where a person is, a new one twice, and never shown.
func TestPassphrasePrompt(t *testing.T) {
	term, dir := newTerminal(t), t.TempDir()
	const first, again = "new passphrase for the new repository: ", "the same again: "
	term.run(dir, ExitDone, [][2]string{{first, "hidden horse one\n"}, {again, "hidden horse two\n"}, {first, "hidden horse\n"}, {again, "hidden horse\n"}},
		"repo", "init", "vault", "--encrypt")
	where := "passphrase of " + filepath.Join(dir, "vault") + ": "
	term.run(dir, ExitDone, [][2]string{{where, "hidden wrong\n"}, {"that one does not open it; " + where, "hidden horse\n"}}, "key", "list", filepath.Join(dir, "vault"))
	term.run(dir, ExitKey, [][2]string{{where, "hidden a\n"}, {where, "hidden b\n"}, {where, "hidden c\n"}}, "key", "list", filepath.Join(dir, "vault"))
	// None: as if nobody had been asked.
	term.run(dir, ExitDone, [][2]string{{where, "\n"}}, "key", "list", filepath.Join(dir, "vault"))
	term.run(dir, ExitUsage, nil, "repo", "init", "other", "--encrypt", "--json")
	// Ctrl-C, which the terminal makes a signal for its foreground; here there is none.
	term.interrupt(dir, where, "key", "list", filepath.Join(dir, "vault"))
	before, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if before.Lflag&unix.ECHO == 0 {
		t.Error("the terminal was left without echo")
	}
	term.mu.Lock()
	defer term.mu.Unlock()
	if strings.Contains(term.shown.String(), "hidden") {
		t.Errorf("shown: %s", term.shown.String())
	}
	if !strings.Contains(term.shown.String(), "They differ.") {
		t.Errorf("two different ones were taken: %s", term.shown.String())
	}
}

// What is typed for one repository of a job opens its others too, and is not asked for again when they are opened again.
func TestPassphraseOfJobIsTypedOnce(t *testing.T) {
	term, dir := newTerminal(t), t.TempDir()
	for name, content := range map[string]string{
		"images/web.raw": "a disk", "secret.txt": "hidden horse\n",
		"job.yaml": `{kind: Repository, name: first, location: first}
---
{kind: Repository, name: vault, location: vault}
---
{kind: Job, name: offsite, source: {repositories: [first]}, target: {repository: vault}}
`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	secret := "--passphrase-file=" + filepath.Join(dir, "secret.txt")
	term.run(dir, ExitDone, nil, "copy", "images", "first", "--create", "--encrypt", secret)
	term.run(dir, ExitDone, nil, "repo", "init", "vault", "--encrypt", secret)
	term.run(dir, ExitDone, [][2]string{{"passphrase of " + filepath.Join(dir, "vault") + ": ", "hidden horse\n"}}, "job", "run", "--once", "-f", "job.yaml")
	term.mu.Lock()
	defer term.mu.Unlock()
	if asked := strings.Count(term.shown.String(), "passphrase of "); asked != 1 || !strings.Contains(term.shown.String(), "1 copied") {
		t.Errorf("asked %d times: %s", asked, term.shown.String())
	}
}

// Whose passphrase is meant is said: of several recovery kits each by its name, and only where none opens it the repository's.
func TestKitPrompt(t *testing.T) {
	term, dir := newTerminal(t), t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"first": "horse\n", "second": "staple\n", "third": "battery\n"} {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given := []string{"--cache-dir", in("cache"), "--passphrase-file", in("first")}
	run(t, ExitDone, "repo", "init", in("vault"), "--encrypt", "--new-passphrase-file", in("first"), "--cache-dir", in("cache"))
	for _, of := range []string{"second", "third"} {
		run(t, ExitDone, append(given, "key", "export", in("vault"), in(of+".kit"), "--new-passphrase-file", in(of))...)
	}
	of := func(kit string) string { return "passphrase of the recovery kit " + in(kit) + ": " }
	list := []string{"key", "list", in("vault"), "--identity", in("second.kit"), "--identity", in("third.kit")}
	where := "passphrase of " + in("vault") + ": "
	term.run(dir, ExitDone, [][2]string{{of("second.kit"), "staple\n"}, {of("third.kit"), "battery\n"}}, list...)
	term.run(dir, ExitDone, [][2]string{{of("second.kit"), "wrong\n"}, {of("third.kit"), "battery\n"}}, list...)
	term.run(dir, ExitDone, [][2]string{{of("second.kit"), "\n"}, {of("third.kit"), "wrong\n"}, {where, "horse\n"}}, list...)
	term.run(dir, ExitDone, nil, append(list, "--passphrase-file", in("first"))...)
	term.run(dir, ExitDone, [][2]string{{of("third.kit"), "battery\n"}}, "repo", "recover", in("vault"), "--kit", in("third.kit"), "--new-passphrase-file", in("second"))
}
