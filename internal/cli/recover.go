package cli

import (
	"context"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
)

func (a *app) repoRecoverCommand() *cobra.Command {
	var kit string
	var f newKeyFlags
	command := &cobra.Command{
		Use: "recover REPOSITORY", Short: "Bring back access to an encrypted repository from its recovery kit",
		Long: `Bring back access to an encrypted repository whose folder keys/ is lost, or whose
every key is: with the recovery kit that ferry key export wrote. It makes a key
file for a new passphrase, which is asked for, or for age keys. No data is read,
and key files that are there stay.`,
		Example: `  ferry repo recover --kit kit.txt /mnt/usb/vault
  ferry repo recover --kit kit.txt /mnt/usb/vault --recipient age1pq1…`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoRecover(cmd.Context(), args[0], kit, f) },
	}
	command.Flags().StringVar(&kit, "kit", "", "`FILE` that ferry key export wrote")
	register(command, "kit", completeFile)
	f.register(command)
	f.registerLabel(command)
	return command
}

func (a *app) repoRecover(ctx context.Context, path, kitFile string, f newKeyFlags) error {
	if kitFile == "" {
		return usage("--kit FILE is missing: the recovery kit that ferry key export wrote")
	}
	content, err := a.readSecretFile(kitFile)
	if err != nil {
		return err
	}
	kit := repo.Kit{Name: printable(kitFile), Content: content}
	if err := a.keys.load(ctx); err != nil {
		return err
	}
	if repo.KitIsEncrypted(content) && len(a.keys.passphrases) == 0 {
		if _, err := a.keys.KitPassphrase(ctx, kit, nil); err != nil {
			return err
		}
	}
	store, err := a.openStore(path)
	if err != nil {
		return err
	}
	defer store.Close()
	repository, err := repo.OpenWithKit(ctx, store, a.environment(), kit, a.keys.passphrases)
	if err != nil {
		return kitError(err, path)
	}
	defer repository.Close()
	a.warnings(repository.Warnings())
	recipients, err := f.resolve(ctx, a, "the repository from now on", false)
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
		a.say("made key %s: %s", key.ID[:shownKeyID], opensWith(key))
	}
	a.say("%s can be opened again. Prove that it is whole: ferry verify %s", repository.ID(), printable(path))
	return nil
}

// addKeys lets recipients open a repository.
func addKeys(ctx context.Context, repository *repo.Repository, recipients []repo.KeyRecipient) ([]repo.Key, error) {
	var added []repo.Key
	for _, recipient := range recipients {
		key, err := repository.AddKey(ctx, recipient)
		if err != nil {
			return nil, keyError(err)
		}
		added = append(added, key)
	}
	return added, nil
}
