package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"ferry/internal/job"
	"ferry/internal/repo"
)

// maxKeyFile is the size of the largest file with a passphrase, keys or a recovery kit, in bytes.
const maxKeyFile = repo.MaxKit

// The environment that keys are given by.
const (
	envPassphrase        = "FERRY_PASSPHRASE"
	envPassphraseFile    = "FERRY_PASSPHRASE_FILE"
	envPassphraseCommand = "FERRY_PASSPHRASE_COMMAND"
	envIdentity          = "FERRY_IDENTITY"
)

// promptTries is how often a passphrase is asked for.
const promptTries = 3

// secrets say where passphrases come from. Never the command line itself: everyone on the machine can list that.
type secrets struct{ files, commands []string }

func (s secrets) isGiven() bool { return len(s.files)+len(s.commands) > 0 }

// keys are what opens encrypted repositories in one run of the program. They are read when the first one needs them.
type keys struct {
	app *app
	// using is taken by who reads keys or asks for them: of one repository's keys first, then of those of the whole run. Never
	// both while a repository's own are read: where they lie may hang, and the others are opened meanwhile.
	using sync.Mutex
	secrets
	identityFiles []string
	// variables of the environment that have a passphrase of one repository of a job.
	variables []string
	// shared, of the keys of one repository of a job, are those of the whole run: tried after its own, and what is typed for
	// one repository is kept there for the others.
	shared *keys

	read bool
	// asked is how often a passphrase was asked for since the last repository was unlocked.
	asked int
	// tried is how many of all that was given or typed were tried on the repository that is being unlocked.
	tried int
	// passphrases that were given or typed, in this order, and what opens key files: these and age keys.
	passphrases []repo.Passphrase
	identities  []age.Identity
	// kits are the recovery kits among the files of age keys.
	kits []repo.Kit
	// given is how many of the passphrases were not typed.
	given int
	// unsettled are its own that were read, and not compared with the shared ones yet.
	unsettled []repo.Passphrase
}

// keyFlags are the flags of every command that may meet an encrypted repository.
func (a *app) keyFlags(root *cobra.Command) {
	a.keys = &keys{app: a}
	flags := root.PersistentFlags()
	flags.StringArrayVar(&a.keys.files, "passphrase-file", nil, "encrypted repository: `FILE` with a passphrase in its first line (repeatable)")
	flags.StringArrayVar(&a.keys.commands, "passphrase-command", nil, "encrypted repository: shell `COMMAND` that prints a passphrase (repeatable)")
	flags.StringArrayVar(&a.keys.identityFiles, "identity", nil, "encrypted repository: `FILE` of age keys, or a recovery kit (repeatable)")
	for _, flag := range []string{"passphrase-file", "identity"} {
		register(root, flag, completeFile)
	}
	register(root, "passphrase-command", nothingToComplete)
}

// Identities gives first what was given, then what is typed.
func (k *keys) Identities(ctx context.Context, request repo.KeyRequest) ([]age.Identity, error) {
	k.using.Lock()
	defer k.using.Unlock()
	if err := k.load(ctx); err != nil {
		return nil, &noKeyError{err}
	}
	of := k
	if k.shared != nil {
		of = k.shared
		of.using.Lock()
		defer of.using.Unlock()
	}
	if request.Try == 0 {
		k.asked, k.tried = 0, 0
	}
	if untried := k.all()[k.tried:]; len(untried) > 0 { // later ones were typed meanwhile for another repository
		k.tried += len(untried)
		return untried, nil
	}
	if request.Given || !slices.Contains(request.Kinds, repo.KeyPassphrase) || !k.app.canPrompt() || k.asked == promptTries {
		return nil, nil
	}
	question := "passphrase of " + request.Location + ": "
	if k.asked > 0 {
		question = "that one does not open it; " + question
	}
	k.asked++
	passphrase, err := k.app.prompt(ctx, question)
	if err != nil {
		return nil, err
	}
	if passphrase.IsEmpty() {
		return nil, nil
	}
	identity, err := of.add(passphrase)
	k.tried = len(k.all())
	return []age.Identity{identity}, err
}

// all that was given or typed, its own first.
func (k *keys) all() []age.Identity {
	if k.shared == nil {
		return k.identities
	}
	return slices.Concat(k.identities, k.shared.all())
}

// Kits gives the recovery kits, and every passphrase for those that are encrypted.
func (k *keys) Kits(ctx context.Context) (kits []repo.Kit, passphrases []repo.Passphrase, err error) {
	k.using.Lock()
	defer k.using.Unlock()
	if err := k.load(ctx); err != nil {
		return nil, nil, &noKeyError{err}
	}
	kits, passphrases = k.kits, k.passphrases
	if k.shared != nil {
		k.shared.using.Lock()
		defer k.shared.using.Unlock()
		kits, passphrases = slices.Concat(kits, k.shared.kits), slices.Concat(passphrases, k.shared.passphrases)
	}
	return kits, passphrases, nil
}

// KitPassphrase gives what opens a recovery kit of what was typed meanwhile for another repository. Else it asks for its passphrase, and keeps
// it as one of the whole run.
func (k *keys) KitPassphrase(ctx context.Context, kit repo.Kit, tried []repo.Passphrase) (repo.Passphrase, error) {
	of := k
	if k.shared != nil {
		of = k.shared
	}
	of.using.Lock()
	defer of.using.Unlock()
	for _, typed := range of.passphrases {
		if !slices.ContainsFunc(tried, typed.Equal) && kit.Opens(typed) {
			return typed, nil
		}
	}
	if !k.app.canPrompt() {
		return repo.Passphrase{}, nil
	}
	passphrase, err := k.app.prompt(ctx, "passphrase of the recovery kit "+kit.Name+": ")
	if err == nil && !passphrase.IsEmpty() {
		_, err = of.add(passphrase)
	}
	return passphrase, err
}

// noKeyError is why a key that was given cannot be read. It is told as it is; a job tells it from what its repositories lack.
type noKeyError struct{ err error }

func (e *noKeyError) Error() string   { return e.err.Error() }
func (e *noKeyError) Unwrap() []error { return []error{job.ErrNoKey, e.err} }

// add keeps a passphrase for the other repositories of this run.
func (k *keys) add(passphrase repo.Passphrase) (age.Identity, error) {
	identity, err := passphrase.Identity()
	if err == nil {
		k.passphrases = append(k.passphrases, passphrase)
		k.identities = append(k.identities, identity)
	}
	return identity, err
}

// load reads what the flags and the environment name, once. What could not be read is tried again when it is asked for again.
func (k *keys) load(ctx context.Context) error {
	if !k.read {
		identities, kits, passphrases, err := k.readAll(ctx)
		if err != nil {
			return err
		}
		k.read, k.unsettled = true, passphrases
		k.identities, k.kits = append(k.identities, identities...), kits
	}
	if k.shared != nil {
		k.shared.using.Lock()
		defer k.shared.using.Unlock()
		if err := k.shared.load(ctx); err != nil {
			return err
		}
	}
	return k.settle()
}

// settle takes the passphrases that were read, but those that are known already: each try of one is slow.
func (k *keys) settle() error {
	if k.unsettled == nil {
		return nil
	}
	for _, passphrase := range k.unsettled {
		if k.has(passphrase) {
			continue
		}
		if _, err := k.add(passphrase); err != nil {
			return err
		}
	}
	k.unsettled, k.given = nil, len(k.passphrases)
	return nil
}

// readAll reads what is named: age keys, recovery kits, and passphrases.
func (k *keys) readAll(ctx context.Context) (identities []age.Identity, kits []repo.Kit, passphrases []repo.Passphrase, err error) {
	files, given, variables := k.identityFiles, k.secrets, k.variables
	if k.shared == nil {
		files = append(files, environmentList(envIdentity)...)
		given = secrets{append(given.files, environmentList(envPassphraseFile)...), append(given.commands, environmentOne(envPassphraseCommand)...)}
		variables = []string{envPassphrase}
	}
	for _, file := range files {
		content, err := k.app.readSecretFile(file)
		if err != nil {
			return nil, nil, nil, err
		}
		if repo.IsKit(content) {
			kits = append(kits, repo.Kit{Name: printable(file), Content: content})
			continue
		}
		list, err := parseIdentities(file, content)
		if err != nil {
			return nil, nil, nil, err
		}
		identities = append(identities, list...)
	}
	passphrases, err = given.read(ctx, k.app)
	for _, variable := range variables {
		for _, secret := range environmentOne(variable) {
			passphrases = append(passphrases, repo.NewPassphrase(secret))
		}
	}
	return identities, kits, passphrases, err
}

func (k *keys) has(passphrase repo.Passphrase) bool {
	return slices.ContainsFunc(k.passphrases, passphrase.Equal) || k.shared != nil && k.shared.has(passphrase)
}

func environmentOne(name string) []string {
	if value := os.Getenv(name); value != "" {
		return []string{value}
	}
	return nil
}

// environmentList is a list of files, separated as in PATH.
func environmentList(name string) []string { return filepath.SplitList(os.Getenv(name)) }

// read gets the passphrases from the files and commands.
func (s secrets) read(ctx context.Context, a *app) ([]repo.Passphrase, error) {
	var passphrases []repo.Passphrase
	for _, file := range s.files {
		content, err := a.readSecretFile(file)
		if err != nil {
			return nil, err
		}
		passphrase := firstLine(content)
		if passphrase.IsEmpty() {
			return nil, usage("there is no passphrase in the first line of %s", printable(file))
		}
		passphrases = append(passphrases, passphrase)
	}
	for _, command := range s.commands {
		passphrase, err := a.runPassphraseCommand(ctx, command)
		if err != nil {
			return nil, err
		}
		passphrases = append(passphrases, passphrase)
	}
	return passphrases, nil
}

// firstLine is the passphrase in the output of a command or in a file: without the end of the line, which editors add.
func firstLine(content []byte) repo.Passphrase {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	return repo.NewPassphrase(strings.TrimSuffix(string(line), "\r"))
}

// readSecretFile reads a file that only its owner should be able to read.
func (a *app) readSecretFile(name string) ([]byte, error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		a.warnings([]string{fmt.Sprintf("%s can be read by others: chmod 600", printable(name))})
	}
	return readSmallFile(name)
}

// readSmallFile reads a file of keys, which may be a pipe.
func readSmallFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usage("%w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err == nil && len(content) > maxKeyFile {
		err = fmt.Errorf("%s is larger than such a file can be", printable(name))
	}
	if err != nil {
		return nil, usage("%w", err)
	}
	return content, nil
}

// parseIdentities parses a file of age keys, as age-keygen writes them.
func parseIdentities(name string, content []byte) ([]age.Identity, error) {
	if bytes.HasPrefix(content, []byte("age-encryption.org/")) || bytes.HasPrefix(content, []byte("-----BEGIN AGE")) {
		return nil, hinted(usage("%s is encrypted itself", printable(name)), fmt.Sprintf("in a shell such as bash: --identity <(age --decrypt %s)", printable(name)))
	}
	identities, err := age.ParseIdentities(bytes.NewReader(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))))
	if err != nil {
		// The error may hold a part of a key.
		return nil, hinted(usage("%s has a line that is no age key", printable(name)), "each line is a comment (#) or begins with AGE-SECRET-KEY-; ferry key generate makes such a file")
	}
	return identities, nil
}

// runPassphraseCommand runs a command of the user's, and takes the first line of its output.
func (a *app) runPassphraseCommand(ctx context.Context, text string) (repo.Passphrase, error) {
	output, err := a.runSecretCommand(ctx, "passphrase", text)
	if err != nil {
		return repo.Passphrase{}, err
	}
	passphrase := firstLine(output)
	if passphrase.IsEmpty() {
		return passphrase, exitWith(ExitKey, "the passphrase command printed no passphrase")
	}
	return passphrase, nil
}

// secretGrace is how long what a secret's command began may keep its output open after it was ended.
const secretGrace = time.Second

// runSecretCommand runs a command of the user's that prints a secret, what it is being for the error. It gets no passphrase itself.
func (a *app) runSecretCommand(ctx context.Context, what, text string) ([]byte, error) {
	command := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	command.Stdin, command.Stderr = os.Stdin, a.errOut
	command.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, envPassphrase+"=") })
	command.WaitDelay = secretGrace
	output, err := command.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // with that it did well
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("it ended with %w", exit)
		}
		return nil, exitWith(ExitKey, "the %s command failed: %w", what, err)
	}
	return output, nil
}
