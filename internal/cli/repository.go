package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"ferry/internal/repo"
	"ferry/internal/storage/s3"
)

// initFlags are the options of a new repository.
func initFlags(command *cobra.Command, options *repo.Options) {
	options.BlockSize = repo.DefaultBlockSize
	command.Flags().BoolVar(&options.SHA256, "sha256", false, "new repository: ids by HMAC-SHA-256 instead of BLAKE3")
	command.Flags().Var((*blockSize)(&options.BlockSize), "block-size", "new repository: block `SIZE`, a power of two from 4KiB to 4MiB")
	command.Flags().Var(parityFlag{&options.Parity}, "parity", "new repository: parity beside each pack, a `SHARE` such as 5%, or DATA+PARITY shards (docs/verify.md)")
}

// blockSize is the value of --block-size: bytes, or with a unit.
type blockSize int

// What block sizes there are; the repository's format says the same.
const leastBlockSize, largestBlockSize = 4 << 10, 4 << 20

func (b *blockSize) String() string { return humanize.IBytes(uint64(*b)) }

func (b *blockSize) Type() string { return "size" }

func (b *blockSize) Set(text string) error {
	bytes, err := humanize.ParseBytes(text)
	if err != nil || bytes < leastBlockSize || bytes > largestBlockSize || bytes&(bytes-1) != 0 {
		return errors.New("it is not a power of two from 4KiB to 4MiB")
	}
	*b = blockSize(bytes)
	return nil
}

func (a *app) repoCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "repo", Short: "Make a repository, say what is in it, or print the jobs that copy into it",
		Example: "  ferry repo init /mnt/usb/vault\n  ferry repo info /mnt/usb/vault",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var options repo.Options
	var lock lockFlags
	var encryption encryptFlags
	initCommand := &cobra.Command{
		Use: "init REPOSITORY", Short: "Make a new, empty repository",
		Long: `Make a new, empty repository in a folder, which is made if needed, or in a bucket
(docs/s3.md). The storage must be able to make a file only if it is not there yet,
and to make files durable; one that cannot is refused.

With --encrypt everything about the machines is encrypted before it is stored, for
a passphrase that is given or asked for, or for age keys, or both (docs/keys.md).
This cannot be changed later; who can open the repository can (ferry key).

With --lock nobody can delete or replace what is stored before its time has come,
with whatever keys: docs/s3.md#locks.`,
		Example: `  ferry repo init /mnt/usb/vault
  ferry repo init /mnt/usb/vault --encrypt
  ferry repo init /mnt/usb/vault --encrypt --recipient age1pq1…
  ferry repo init s3://backups/vault --lock compliance --lock-for 30d
  ferry repo init /mnt/usb/vault --block-size 64KiB`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if options.Lock, err = lock.lock(); err != nil {
				return err
			}
			return a.repoInit(cmd.Context(), args[0], options, encryption)
		},
	}
	initFlags(initCommand, &options)
	lock.register(initCommand)
	encryption.register(initCommand)
	encryption.registerLabel(initCommand)
	var analyze bool
	info := &cobra.Command{
		Use: "info REPOSITORY", Short: "Say what a repository is and what it holds",
		Example:           "  ferry repo info /mnt/usb/vault\n  ferry repo info /mnt/usb/vault --analyze\n  ferry repo info /mnt/usb/vault --json",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoInfo(cmd.Context(), args[0], analyze) },
	}
	info.Flags().BoolVar(&analyze, "analyze", false, "find out what of it is needed, in all and by machine, and how the newest points lie in it: reads all tree nodes")
	command.AddCommand(initCommand, info, a.repoReindexCommand(), a.repoRescanCommand(), a.repoRecoverCommand(), a.repoLocksCommand(), a.repoJobsCommand())
	return command
}

func (a *app) repoInit(ctx context.Context, path string, options repo.Options, encryption encryptFlags) error {
	there := func() error { return usage("%s has a Ferry repository already", path) }
	if !s3.IsLocation(path) && isRepository(path) {
		return there()
	}
	// There is nothing else that they could open.
	encryption.passphrase.files = append(encryption.passphrase.files, a.keys.files...)
	encryption.passphrase.commands = append(encryption.passphrase.commands, a.keys.commands...)
	var err error
	if options.Encrypt, err = encryption.recipientsFor(ctx, a); err != nil {
		return err
	}
	repository, err := a.createRepository(ctx, path, options)
	if errors.Is(err, repo.ErrExists) {
		return there()
	}
	if err != nil {
		return err
	}
	defer repository.Close()
	if a.json {
		return a.printJSON(describeRepository(repository))
	}
	a.say("made repository %s at %s", repository.ID(), path)
	a.sayEncrypted(repository, path)
	return nil
}

func (a *app) repoInfo(ctx context.Context, path string, analyze bool) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	machines, logical, err := a.machinesAndSize(ctx, repository)
	if err != nil {
		return err
	}
	found, err := a.analysisOf(ctx, repository, analyze)
	if err != nil {
		return err
	}
	names := machineNames{}
	if analyze {
		if names, err = a.machineNames(ctx, repository); err != nil {
			return err
		}
	}
	last, since := repository.LastRun(ctx)
	a.warnings(repository.Warnings())
	usage := repository.Usage()
	if a.json {
		byMachine, allBlocks := describeMachines(found, names)
		fragmentation, allFragmentation := describeLying(found, names)
		return a.printJSON(repositoryInfoJSON{
			Use: describeUse(found), Fragmentation: fragmentation, AllFragmentation: allFragmentation, ByMachine: byMachine, AllBlocks: allBlocks,
			LastCopy:       describeLastRun(last, since),
			repositoryJSON: describeRepository(repository), Diverged: repository.Diverged() != nil,
			Points: usage.Points, Machines: machines, Unfinished: usage.Unfinished, LogEntries: int64(usage.Entries),
			Packs: usage.Packs, Stored: usage.PackBytes, ParityBytes: usage.ParityBytes, Logical: logical,
			Damaged: usage.Damaged, Proven: describeProven(repository.Proven(ctx)),
		})
	}
	d := repository.Description()
	rows := [][]string{
		{"repository", repository.ID()},
		{"location", repository.Location()},
		{"created", when(d.Created)},
		{"ids", d.Hash},
		{"block size", size(repository.BlockSize())},
		{"encrypted", map[bool]string{true: "yes", false: "no"}[d.Encrypted]},
		lockRow(repository.LockInfo()),
		{""},
		{"machines", count(machines)},
		{"points", count(usage.Points)},
		{"size of all points", size(logical)},
		{"stored", size(usage.PackBytes) + " in " + counted(usage.Packs, "pack")},
	}
	if d.Parity != nil {
		rows = append(rows, []string{"parity", fmt.Sprintf("%s: up to %d damaged shards of %d in a pack can be mended", size(usage.ParityBytes), d.Parity.Parity, d.Parity.Data+d.Parity.Parity)})
	}
	if usage.Damaged > 0 {
		rows = append(rows, []string{"damaged", counted(usage.Damaged, "point") + " cannot be restored whole: docs/verify.md says what to do"})
	}
	for _, p := range repository.Proven(ctx) {
		rows = append(rows, []string{"proven: " + p.Level.String(), provenText(p, usage.Packs)})
	}
	if usage.Unfinished > 0 {
		rows = append(rows, []string{"unfinished copies", count(usage.Unfinished)})
	}
	rows = append(rows, lastRunRows(last, since)...)
	a.table(append(rows, useRows(found, logical, analyze)...))
	a.printMachines(found, names)
	return nil
}

// machinesAndSize counts the machines in a repository, and the bytes of all its points. What is not encrypted tells both.
func (a *app) machinesAndSize(ctx context.Context, repository *repo.Repository) (machines int, logical int64, err error) {
	seen := map[string]bool{}
	read, err := repository.ReadHeaders(ctx, repository.Entries())
	if err != nil {
		return 0, 0, err
	}
	for _, p := range read {
		seen[p.Entry.Machine.String()] = true
		if p.Err != nil {
			a.warnings([]string{p.Err.Error()})
			continue
		}
		logical += p.Header.Size()
	}
	return len(seen), logical, nil
}
