package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"ferry/internal/repo"
	"ferry/internal/storage/s3"
)

func (a *app) keyExportCommand() *cobra.Command {
	var secret secrets
	var encrypt bool
	command := &cobra.Command{
		Use: "export REPOSITORY FILE", Short: "Write the recovery kit of a repository",
		Long: `Write the recovery kit of a repository to a new file: text that brings access back
when the folder keys/ or every key is lost (ferry repo recover). Whoever reads it
can read the repository: print it and put it in a safe, and delete the file. Or
have it encrypted with a passphrase, which then must not get lost either.`,
		Example: `  ferry key export /mnt/usb/vault kit.txt
  ferry key export /mnt/usb/vault kit.txt --encrypt`,
		Args:              arguments("REPOSITORY", "FILE"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.keyExport(cmd.Context(), args[0], args[1], secret, encrypt)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&encrypt, "encrypt", false, "encrypt the kit with a passphrase")
	flags.StringArrayVar(&secret.files, "new-passphrase-file", nil, "encrypt the kit: `FILE` with a passphrase in its first line")
	flags.StringArrayVar(&secret.commands, "new-passphrase-command", nil, "encrypt the kit: shell `COMMAND` that prints a passphrase")
	register(command, "new-passphrase-file", completeFile)
	register(command, "new-passphrase-command", nothingToComplete)
	return command
}

func (a *app) keyExport(ctx context.Context, path, to string, secret secrets, encrypt bool) error {
	repository, err := a.openUnlocked(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	a.warnings(repository.Warnings())
	var passphrase repo.Passphrase
	given, err := secret.read(ctx, a)
	switch {
	case err != nil:
		return err
	case len(given) > 1:
		return usage("a recovery kit is encrypted with one passphrase, and %d were given", len(given))
	case len(given) == 1:
		passphrase = given[0]
	case encrypt && !a.canPrompt():
		return usage("--encrypt needs a passphrase: give --new-passphrase-file or --new-passphrase-command")
	case encrypt:
		if passphrase, err = a.promptNew(ctx, "of the recovery kit"); err != nil {
			return err
		}
	}
	kit, err := repository.ExportKit(wherever(path), passphrase)
	if err != nil {
		return keyError(err)
	}
	if err := writeSecretFile(to, kit); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(kitJSON{Repository: describePlace(repository), File: printable(to), Encrypted: !passphrase.IsEmpty()})
	}
	a.say("wrote the recovery kit of %s to %s", repository.ID(), printable(to))
	if passphrase.IsEmpty() {
		a.say("Whoever reads it can read the repository. Print it, put it in a safe, and delete the file.")
	}
	return nil
}

// wherever is where a repository lies, said so that another machine's environment and folder make no difference.
func wherever(path string) string {
	if s3.IsLocation(path) {
		if location, err := s3.ParseLocation(path); err == nil {
			return location.Whole()
		}
	} else if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// writeSecretFile makes a file that nobody else can read. One that is there already is not written over.
func writeSecretFile(name string, content []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists already", printable(name))
	}
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(name)
	}
	return err
}

func (a *app) keyGenerateCommand() *cobra.Command {
	var classic bool
	command := &cobra.Command{
		Use: "generate FILE", Short: "Make an age key",
		Long: `Make an age key in a new file, and print its public key, which --recipient takes.
The secret one stays in the file, for --identity. It is a hybrid key, which no
quantum computer is known to break; --x25519 makes one of the older kind, for age
before 1.3. age-keygen makes the same.`,
		Example: `  ferry key generate admin.key > admin.pub
  ferry key add /mnt/usb/vault --recipients-file admin.pub`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.keyGenerate(args[0], classic) },
	}
	command.Flags().BoolVar(&classic, "x25519", false, "make a key of the older kind, which quantum computers may break one day")
	return command
}

func (a *app) keyGenerate(name string, classic bool) error {
	secret, public, err := generateKey(classic)
	if err != nil {
		return err
	}
	content := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), public, secret)
	if err := writeSecretFile(name, []byte(content)); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(generatedJSON{File: printable(name), PublicKey: public})
	}
	a.line("%s", public)
	return nil
}

func generateKey(classic bool) (secret, public string, err error) {
	if classic {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return "", "", err
		}
		return identity.String(), identity.Recipient().String(), nil
	}
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		return "", "", err
	}
	return identity.String(), identity.Recipient().String(), nil
}
