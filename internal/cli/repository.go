package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// initFlags are the options of a new repository.
func initFlags(command *cobra.Command, options *repo.Options) {
	command.Flags().BoolVar(&options.SHA256, "sha256", false, "new repository: ids by HMAC-SHA-256 instead of BLAKE3")
	command.Flags().IntVar(&options.BlockSize, "block-size", repo.DefaultBlockSize, "new repository: block size in bytes, a power of two from 4096 to 4194304")
}

func (a *app) repoCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "repo", Short: "Make a repository, or say what is in it",
		Example: "  ferry repo init /mnt/usb/vault\n  ferry repo info /mnt/usb/vault",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var options repo.Options
	initCommand := &cobra.Command{
		Use: "init REPOSITORY", Short: "Make a new, empty repository",
		Example: "  ferry repo init /mnt/usb/vault",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.repoInit(cmd.Context(), args[0], options) },
	}
	initFlags(initCommand, &options)
	info := &cobra.Command{
		Use: "info REPOSITORY", Short: "Say what a repository is and what it holds",
		Example: "  ferry repo info /mnt/usb/vault --json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.repoInfo(cmd.Context(), args[0]) },
	}
	command.AddCommand(initCommand, info)
	return command
}

func (a *app) repoInit(ctx context.Context, path string, options repo.Options) error {
	if isRepository(path) {
		return usage("%s has a Ferry repository already", path)
	}
	repository, err := a.createRepository(ctx, path, options)
	if err != nil {
		return err
	}
	defer repository.Close()
	if a.json {
		return a.printJSON(describeRepository(repository))
	}
	a.line("made repository %s at %s", repository.ID(), path)
	return nil
}

type repositoryJSON struct {
	ID        string    `json:"id"`
	Location  string    `json:"location"`
	Created   time.Time `json:"created"`
	Format    int       `json:"formatVersion"`
	Hash      string    `json:"hash"`
	BlockSize int64     `json:"blockSize"`
	Encrypted bool      `json:"encrypted"`
}

func describeRepository(r *repo.Repository) repositoryJSON {
	d := r.Description()
	return repositoryJSON{ID: r.ID(), Location: r.Location(), Created: d.Created, Format: d.Version, Hash: d.Hash, BlockSize: r.BlockSize(), Encrypted: d.Encrypted}
}

func (a *app) repoInfo(ctx context.Context, path string) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	usage := repository.Usage()
	points, err := a.repositoryPoints(ctx, repository)
	if err != nil {
		return err
	}
	machines := map[backup.MachineKey]bool{}
	logical := int64(0)
	for _, p := range points {
		machines[p.Machine.Key] = true
		for _, o := range p.Objects {
			logical += o.Size
		}
	}
	a.warnings(repository.Warnings())
	if a.json {
		return a.printJSON(struct {
			repositoryJSON
			Points     int   `json:"points"`
			Machines   int   `json:"machines"`
			Unfinished int   `json:"unfinishedCopies"`
			LogEntries int64 `json:"logEntries"`
			Packs      int   `json:"packs"`
			Stored     int64 `json:"storedBytes"`
			Logical    int64 `json:"logicalBytes"`
		}{describeRepository(repository), usage.Points, len(machines), usage.Unfinished, int64(usage.Entries), usage.Packs, usage.PackBytes, logical})
	}
	d := repository.Description()
	a.table([][]string{
		{"repository", repository.ID()},
		{"location", repository.Location()},
		{"created", when(d.Created)},
		{"ids", d.Hash},
		{"block size", size(repository.BlockSize())},
		{"encrypted", map[bool]string{true: "yes", false: "no"}[d.Encrypted]},
	})
	a.line("")
	rows := [][]string{
		{"machines", count(len(machines))},
		{"points", count(usage.Points)},
		{"size of all points", size(logical)},
		{"stored", size(usage.PackBytes) + " in " + count(usage.Packs) + " packs"},
	}
	if usage.Unfinished > 0 {
		rows = append(rows, []string{"unfinished copies", count(usage.Unfinished)})
	}
	a.table(rows)
	return nil
}

func (a *app) adoptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "adopt REPOSITORY",
		Short: "Go on with a repository whose history is not the one seen before",
		Long: `This machine remembers the last state of every repository it has used. One that was rolled back to an older state, or
that is another copy with a history of its own, can be read, but is not written to: something may be lost. After adopt
this machine goes on with the repository as it is.`,
		Example: "  ferry adopt /mnt/usb/vault",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, err := a.openRepository(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer repository.Close()
			if repository.Diverged() == nil {
				a.line("nothing to do: %s has the history that was seen before", args[0])
				return nil
			}
			if err := repository.Adopt(); err != nil {
				return err
			}
			a.line("adopted %s as it is", args[0])
			return nil
		},
	}
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify REPOSITORY",
		Short: "Prove that everything stored is what was copied",
		Long: `Read the whole repository: the log from its first entry, every byte of every pack, every block by its id, and every
point down to its last block. What is damaged is listed by machine, point, disk and offset; then the exit code is 5.`,
		Example: "  ferry verify /mnt/usb/vault",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0]) },
	}
}

type damageJSON struct {
	Machine string `json:"machine"`
	Point   string `json:"point"`
	Object  string `json:"object"`
	Offset  int64  `json:"offset"`
	Length  int64  `json:"length"`
	File    string `json:"file"`
	Reason  string `json:"reason"`
}

func (a *app) verify(ctx context.Context, path string) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	shown := a.newBars()
	end := func() {}
	report, err := repository.Verify(ctx, func(p *repo.VerifyProgress) {
		end = shown.add("verifying", p.TotalBytes.Load, p.Bytes.Load)
	})
	end()
	shown.done()
	if err != nil {
		return err
	}
	a.warnings(report.Warnings)
	if a.json {
		damage := []damageJSON{}
		for _, d := range report.Damage {
			damage = append(damage, damageJSON{printable(d.Machine), d.Point, printable(d.Object), d.Offset, d.Length, d.File, printable(d.Reason)})
		}
		err = a.printJSON(map[string]any{
			"repository": map[string]string{"id": repository.ID(), "location": repository.Location()}, "logEntries": report.Entries, "packs": report.Packs,
			"points": report.Points, "frames": report.Frames, "bytes": report.Bytes, "pendingPacks": report.Pending, "damage": damage,
		})
	} else {
		a.printVerified(report)
	}
	if err == nil && len(report.Damage) > 0 {
		return &exitError{code: ExitDamaged, err: errors.New("damaged data found")}
	}
	return err
}

func (a *app) printVerified(report *repo.VerifyReport) {
	for _, d := range report.Damage {
		if d.Machine == "" {
			a.line("DAMAGED  file %s: %s", d.File, printable(d.Reason))
			continue
		}
		where := "the point's file"
		if d.Object != "" {
			where = printable(d.Object) + " bytes " + count(int(d.Offset)) + " to " + count(int(d.Offset+d.Length))
		}
		a.line("DAMAGED  machine %s, point %s, %s: %s", printable(d.Machine), d.Point[:min(12, len(d.Point))], where, printable(d.Reason))
	}
	a.line("verified %s points, %s packs, %s blocks and nodes, %s", count(report.Points), count(report.Packs), count(int(report.Frames)), size(report.Bytes))
	if report.Pending > 0 {
		a.line("%d packs belong to no commit: of a copy that runs now or was interrupted", report.Pending)
	}
	if len(report.Damage) == 0 {
		a.line("everything is what was copied")
	}
}
