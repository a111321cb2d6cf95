package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
	"ferry/internal/restore"
	"ferry/internal/storage"
)

// shownKeyID is how many digits of a key's id lists show.
const shownKeyID = 12

func (a *app) keyCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "key", Short: "Say and change who can open an encrypted repository",
		Long: `Say and change who can open an encrypted repository: anyone with one of its
passphrases or age keys. Nothing that is stored is touched by these commands.
docs/keys.md says what to choose, and what to do when a key is lost.`,
		Example: `  ferry key list /mnt/usb/vault
  ferry key add /mnt/usb/vault --recipient age1… --label "the safe"
  ferry key export /mnt/usb/vault kit.txt`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyRotateCommand(), a.keyExportCommand(), a.keyGenerateCommand())
	return command
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list REPOSITORY", Short: "List who can open a repository",
		Long: `List the key files of a repository: the id of each, what it opens with, and with
a key its label and when it was added. Without a key there are ids and kinds.`,
		Example:           "  ferry key list /mnt/usb/vault",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.keyList(cmd.Context(), args[0]) },
	}
}

func (a *app) keyList(ctx context.Context, path string) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	list, err := repository.ListKeys(ctx)
	none := errors.Is(err, repo.ErrNoKeyFiles)
	a.warnings(slices.DeleteFunc(repository.Warnings(), func(warning string) bool { // what the error says as well is said once
		return none && strings.HasPrefix(warning, err.Error())
	}))
	if len(list) == 0 && err != nil {
		return keyError(err)
	}
	if a.json {
		return cmp.Or(a.printJSON(describeKeys(repository, list)), keyError(err))
	}
	rows := [][]string{{"KEY", "OPENS WITH", "ADDED", "LABEL"}}
	for _, key := range list {
		added, label := "not known", printable(key.Label)
		if key.Known {
			added = when(key.Added)
		}
		if generation := repository.KeyGeneration(); generation != 0 && key.Generation < generation {
			label = strings.TrimSpace(label + " (of an older generation: run ferry key rotate)")
		}
		rows = append(rows, []string{key.ID[:shownKeyID], opensWith(key), added, label})
	}
	a.table(rows)
	if !none {
		a.sayStrength(list)
	}
	return keyError(err)
}

// opensWith says what kind of key it is.
func opensWith(key repo.Key) string {
	if key.Damaged {
		return "nothing: the file is damaged"
	}
	switch key.Kind {
	case repo.KeyPassphrase:
		return "passphrase"
	case repo.KeyX25519:
		return "age key (X25519)"
	case repo.KeyHybrid:
		return "age key (hybrid)"
	}
	return "not known"
}

// sayStrength says what the weakest key makes of the whole.
func (a *app) sayStrength(list []repo.Key) {
	var weak []string
	for _, key := range list {
		if !key.PostQuantum() {
			weak = append(weak, key.ID[:shownKeyID])
		}
	}
	a.say("")
	if len(weak) > 0 {
		a.say("The weakest key counts: a quantum computer would open the repository by %s.", strings.Join(weak, ", "))
		return
	}
	a.say("No key is one that a quantum computer would break. A passphrase is as strong as it is hard to guess.")
}

func (a *app) keyAddCommand() *cobra.Command {
	var f newKeyFlags
	command := &cobra.Command{
		Use: "add REPOSITORY", Short: "Let a passphrase or an age key open a repository",
		Long: `Let a new passphrase or an age key open a repository as well. Nothing that is
stored is touched. Without a flag that says otherwise, a new passphrase is asked
for. A key that opens the repository already is needed too.`,
		Example: `  ferry key add /mnt/usb/vault --label "night shift"
  ferry key add /mnt/usb/vault --recipient age1pq1… --identity admin.key`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.keyAdd(cmd.Context(), args[0], f) },
	}
	f.register(command)
	f.registerLabel(command)
	return command
}

func (a *app) keyAdd(ctx context.Context, path string, f newKeyFlags) error {
	repository, err := a.openUnlocked(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	a.warnings(repository.Warnings())
	recipients, err := f.resolve(ctx, a, "the repository", false)
	if err != nil {
		return err
	}
	added, err := addKeys(ctx, repository, recipients)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(describeKeys(repository, added))
	}
	for _, key := range added {
		a.say("added %s: %s", key.ID[:shownKeyID], opensWith(key))
	}
	return nil
}

func (a *app) keyRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove REPOSITORY KEY", Short: "Take away a passphrase or an age key",
		Long: `Delete a key file, by its id in ferry key list or the first digits of that.
Nothing that is stored is touched. Who opened the repository before may have kept
its keys, and can read whatever was copied so far if they get at the files: this
cannot be taken back. ferry key rotate --drop KEY removes a key and gives the
others a new one, for what is copied from then on.`,
		Example:           "  ferry key remove /mnt/usb/vault 3f2a9c",
		Args:              arguments("REPOSITORY", "KEY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.keyRemove(cmd.Context(), args[0], args[1]) },
	}
}

func (a *app) keyRemove(ctx context.Context, path, id string) error {
	repository, err := a.openUnlocked(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	a.warnings(repository.Warnings())
	key, err := repository.RemoveKey(ctx, id)
	if err != nil {
		return keyError(lockedKeyHint(err, path, id))
	}
	if a.json {
		return a.printJSON(describeKeys(repository, []repo.Key{key}))
	}
	a.say("removed %s: %s", key.ID[:shownKeyID], opensWith(key))
	a.say("Who had it may have kept the keys of what was copied so far. For what is copied from now on,")
	a.say("make new ones: ferry key rotate %s", path)
	return nil
}

// lockedKeyHint says what helps against a key whose file the storage has locked.
func lockedKeyHint(err error, path, id string) error {
	if _, locked := errors.AsType[*storage.LockedError](err); !locked {
		return err
	}
	return hinted(err, fmt.Sprintf("until then the key opens what was copied so far; to shut it out of what is copied from now on: ferry key rotate %s --drop %s",
		restore.Quote(path), restore.Quote(id)))
}

func (a *app) keyRotateCommand() *cobra.Command {
	var drop []string
	command := &cobra.Command{
		Use: "rotate REPOSITORY", Short: "Make a new data key for what is copied from now on",
		Long: `Make a new generation of the data key, for what is copied from now on, and give
it to everyone who can open the repository. What is stored stays as it is: it is
read with the old data keys, which the others keep as well.

An age key gets the new data key by its public key. A passphrase gets it only if
it is given (--passphrase-file, --passphrase-command): give all of them, or name
those that are to lose access with --drop. Recovery kits exported before do not
open the repository any more: export a new one at once.`,
		Example: `  ferry key rotate /mnt/usb/vault
  ferry key rotate /mnt/usb/vault --drop 3f2a9c`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.keyRotate(cmd.Context(), args[0], drop) },
	}
	command.Flags().StringArrayVar(&drop, "drop", nil, "`KEY` that does not get the new data key (repeatable)")
	register(command, "drop", nothingToComplete)
	return command
}

func (a *app) keyRotate(ctx context.Context, path string, drop []string) error {
	repository, err := a.openUnlocked(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	a.warnings(repository.Warnings())
	list, err := repository.RotateKeys(ctx, repo.RotateOptions{Passphrases: a.keys.passphrases, Drop: drop})
	var cannot *repo.CannotRotateError
	if errors.As(err, &cannot) && a.canPrompt() {
		if err := a.askPassphrases(ctx, cannot.Keys); err != nil {
			return err
		}
		list, err = repository.RotateKeys(ctx, repo.RotateOptions{Passphrases: a.keys.passphrases, Drop: drop})
	}
	var late *repo.LateKeysError
	if err != nil && !errors.As(err, &late) {
		return keyError(err)
	}
	if a.json {
		return cmp.Or(a.printJSON(describeKeys(repository, list)), keyError(err))
	}
	a.say("made data key generation %d; it opens with", repository.KeyGeneration())
	for _, key := range list {
		a.say("  %s  %s  %s", key.ID[:shownKeyID], opensWith(key), printable(key.Label))
	}
	a.say("Recovery kits made before do not open the repository any more. Make a new one now:")
	a.say("ferry key export %s FILE", path)
	return keyError(err)
}

// askPassphrases asks for the passphrases of keys that have one.
func (a *app) askPassphrases(ctx context.Context, list []repo.Key) error {
	for _, key := range list {
		if key.Kind != repo.KeyPassphrase {
			continue
		}
		passphrase, err := a.prompt(ctx, strings.TrimSpace("passphrase of key "+key.ID[:shownKeyID]+" "+printable(key.Label))+": ")
		if err != nil {
			return err
		}
		if !passphrase.IsEmpty() {
			if _, err := a.keys.add(passphrase); err != nil {
				return err
			}
		}
	}
	return nil
}

// openUnlocked opens a repository whose keys are needed.
func (a *app) openUnlocked(ctx context.Context, path string) (*repo.Repository, error) {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := repository.NeedsKey(); err != nil {
		repository.Close()
		return nil, err
	}
	return repository, nil
}

// kitError says what a person can do about a recovery kit that does not work.
func kitError(err error, path string) error {
	switch {
	case errors.Is(err, repo.ErrNoKit), errors.Is(err, repo.ErrNotEncrypted):
		return usage("%w", err)
	case errors.Is(err, repo.ErrKitPassphrase):
		return hinted(err, "give it with --passphrase-file or --passphrase-command")
	case errors.Is(err, repo.ErrNoRepository):
		return noRepository(path, nearbyHint(path))
	}
	return err
}

// keyError says what a person can do about an error of the key commands.
func keyError(err error) error {
	var cannot *repo.CannotRotateError
	var late *repo.LateKeysError
	switch {
	case errors.As(err, &cannot):
		return hinted(exitWith(ExitKey, "the new data key cannot be given to %s", nameKeys(cannot.Keys)),
			"give their passphrases (--passphrase-file, --passphrase-command), or take their access away with --drop KEY; nothing was changed")
	case errors.As(err, &late):
		return hinted(exitWith(ExitKey, "added while the keys were rotated, and without the new data key: %s", nameKeys(late.Keys)),
			"the rotation is done; add them again: ferry key add")
	case errors.Is(err, repo.ErrNoSuchKey):
		return hinted(usage("%w", err), "a key is named by the beginning of its id, as ferry key list shows it")
	case errors.Is(err, repo.ErrSameKey), errors.Is(err, repo.ErrNotEncrypted):
		return usage("%w", err)
	case errors.Is(err, repo.ErrLastRecipient):
		return hinted(usage("%w", err), "add another key first: ferry key add")
	case errors.Is(err, repo.ErrOutdatedKey):
		return &exitError{code: ExitKey, err: hinted(err, "give a key that opens the newest generation, or remove that file if nobody can say whose it is")}
	}
	return err
}

// nameKeys names keys for people.
func nameKeys(keys []repo.Key) string {
	var names []string
	for _, key := range keys {
		names = append(names, strings.TrimSpace(fmt.Sprintf("%s (%s) %s", key.ID[:shownKeyID], opensWith(key), printable(key.Label))))
	}
	return strings.Join(names, ", ")
}
