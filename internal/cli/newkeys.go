package cli

import (
	"bytes"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
)

// weakPassphrase is the length in bytes below which a passphrase is warned of.
const weakPassphrase = 12

// newKeyFlags say whom something new is encrypted for.
type newKeyFlags struct {
	recipients, recipientFiles []string
	passphrase                 secrets
	label                      string
}

// register adds the flags to a command.
func (f *newKeyFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVar(&f.recipients, "recipient", nil, "who can open it: the `PUBLIC-KEY` of an age key, age1… (repeatable)")
	flags.StringArrayVar(&f.recipientFiles, "recipients-file", nil, "who can open it: `FILE` with public keys of age, one a line (repeatable)")
	flags.StringArrayVar(&f.passphrase.files, "new-passphrase-file", nil, "who can open it: `FILE` with a new passphrase in its first line")
	flags.StringArrayVar(&f.passphrase.commands, "new-passphrase-command", nil, "who can open it: shell `COMMAND` that prints a new passphrase")
	register(command, "recipient", nothingToComplete)
	register(command, "recipients-file", completeFile)
	register(command, "new-passphrase-file", completeFile)
	register(command, "new-passphrase-command", nothingToComplete)
}

// registerLabel adds the flag that names what is added.
func (f *newKeyFlags) registerLabel(command *cobra.Command) {
	command.Flags().StringVar(&f.label, "label", "", "`NAME` that ferry key list shows to those who have a key")
	register(command, "label", nothingToComplete)
}

// given is true if any of the flags was used.
func (f *newKeyFlags) given() bool {
	return len(f.recipients)+len(f.recipientFiles) > 0 || f.passphrase.isGiven()
}

// resolve makes recipients of what the flags say. Where they say nothing, the passphrases that were given to open things with
// serve if orGiven, and at last a person is asked for a new one.
func (f *newKeyFlags) resolve(ctx context.Context, a *app, what string, orGiven bool) ([]repo.KeyRecipient, error) {
	list, err := f.publicKeys()
	if err != nil {
		return nil, err
	}
	passphrases, err := f.passphrase.read(ctx, a)
	if err != nil {
		return nil, err
	}
	if len(passphrases)+len(list) == 0 && orGiven {
		if err := a.keys.load(ctx); err != nil {
			return nil, err
		}
		passphrases = a.keys.passphrases[:a.keys.given]
	}
	if len(passphrases)+len(list) == 0 {
		if !a.canPrompt() {
			return nil, hinted(usage("who shall be able to open %s?", what),
				"give --recipient age1…, --new-passphrase-file or --new-passphrase-command; on a terminal a passphrase is asked for")
		}
		passphrase, err := a.promptNew(ctx, "for "+what)
		if err != nil {
			return nil, err
		}
		passphrases = append(passphrases, passphrase)
	}
	for _, passphrase := range passphrases {
		if passphrase.Length() < weakPassphrase {
			a.warnings([]string{"the passphrase is short: whoever has a copy of the repository can try billions of such"})
		}
		recipient, err := repo.PassphraseRecipient(passphrase, f.label)
		if err != nil {
			return nil, err
		}
		list = append(list, recipient)
	}
	return list, nil
}

// publicKeys are the age keys among whom the flags say.
func (f *newKeyFlags) publicKeys() (list []repo.KeyRecipient, err error) {
	for _, text := range f.recipients {
		recipient, err := repo.ParseRecipient(text, f.label)
		if err != nil {
			return nil, usage("--recipient: %w", err)
		}
		list = append(list, recipient)
	}
	for _, file := range f.recipientFiles {
		content, err := readSmallFile(file)
		if err != nil {
			return nil, err
		}
		number := 0
		for line := range bytes.Lines(content) {
			number++
			text := strings.TrimSpace(string(line))
			if text == "" || strings.HasPrefix(text, "#") {
				continue
			}
			recipient, err := repo.ParseRecipient(text, f.label)
			if err != nil { // the line may be a secret
				return nil, usage("%s, line %d: %w", printable(file), number, err)
			}
			list = append(list, recipient)
		}
	}
	return list, nil
}

// encryptFlags say whether a new repository is encrypted, and for whom.
type encryptFlags struct {
	encrypt bool
	newKeyFlags
}

// register adds the flags to a command that can make a repository.
func (f *encryptFlags) register(command *cobra.Command) {
	command.Flags().BoolVar(&f.encrypt, "encrypt", false, "new repository: encrypt it, for the keys that the flags below say or a passphrase")
	f.newKeyFlags.register(command)
}

// recipientsFor resolves the flags; nobody if the repository is not to be encrypted.
func (f *encryptFlags) recipientsFor(ctx context.Context, a *app) ([]repo.KeyRecipient, error) {
	switch {
	case f.encrypt:
		return f.resolve(ctx, a, "the new repository", true)
	case f.given():
		return nil, usage("keys were given for a new repository that is not to be encrypted; add --encrypt")
	}
	return nil, nil
}

// sayEncrypted tells how not to lose a new encrypted repository.
func (a *app) sayEncrypted(repository *repo.Repository, path string) {
	if repository.Description().Encrypted {
		a.say("It is encrypted. Without one of its keys nobody can read it, ever. Write a recovery kit now:")
		a.say("ferry key export %s FILE", printable(path))
	}
}
