package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/storage/s3"
)

type adoptFlags struct {
	as, file string
	also     bool
}

func (a *app) adoptCommand() *cobra.Command {
	var f adoptFlags
	command := &cobra.Command{
		Use:   "adopt REPOSITORY",
		Short: "Take up a repository that was carried here, or whose history is not the one seen before",
		Long: `Check a repository that was carried here: is every file there that its log names?
Make what is missing of its index, list its backups, as target.map names them, and
say what of it is known to be damaged. With --as, print it as the resource that jobs
name, or add that to a FILE of resources; what was found stands before it as comments
(docs/seeding.md).

This machine remembers the last state of every repository it has used. One that
was rolled back to an older state, or that is another copy with a history of its
own, can be read, but is not written to: something may be lost. After adopt this
machine goes on with the repository as it is.`,
		Example: `  ferry adopt /mnt/usb/vault
  ferry adopt /srv/vault --as vault > vault.yaml
  ferry adopt /srv/vault --as vault -f jobs.yaml --passphrase-file /etc/ferry/vault`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.adopt(cmd.Context(), args[0], f) },
	}
	flags := command.Flags()
	flags.StringVar(&f.as, "as", "", "print the repository as a resource of this `NAME`")
	flags.StringVarP(&f.file, "file", "f", "", "with --as: add the resource to `FILE`, which may be new")
	flags.BoolVar(&f.also, "also", false, "with --as: also if the repository is known at another place, where it is still")
	register(command, "as", nothingToComplete)
	register(command, "file", completeFile)
	return command
}

func (a *app) adopt(ctx context.Context, path string, f adoptFlags) error {
	if f.as == "" && (f.file != "" || f.also) {
		return usage("--file and --also go with --as NAME")
	}
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	resource, err := a.resourceOf(repository, path, f.as)
	if err != nil {
		return err
	}
	var added []byte // to the file
	if f.as != "" {
		if added, err = withResource(f.file, resource); err != nil {
			return err
		}
		if err := a.onlyHere(ctx, repository, resource.Location, f); err != nil {
			return err
		}
	}
	diverged := repository.Diverged() != nil
	if diverged {
		if err := repository.Adopt(); err != nil {
			return err
		}
	}
	found, err := a.inspect(ctx, repository)
	if err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	if f.file != "" {
		if err := appendTo(f.file, added); err != nil {
			return err
		}
	}
	if a.json {
		described := adoptJSON{Repository: describePlace(repository), Adopted: diverged, inspectionJSON: found.describe()}
		if f.as != "" {
			described.Document = string(resource.YAML())
		}
		err = a.printJSON(described)
	} else {
		a.printAdopted(found, resource, path, f, diverged)
	}
	if err != nil {
		return err
	}
	return found.exit()
}

// adoptJSON is the output of adopt.
type adoptJSON struct {
	Repository placeJSON `json:"repository"`
	// Adopted is true if the history was another than this machine had seen.
	Adopted bool `json:"adopted"`
	inspectionJSON
	// Document is the resource as YAML; empty without a name.
	Document string `json:"document"`
}

func (a *app) printAdopted(found *inspection, resource policy.Repository, path string, f adoptFlags, diverged bool) {
	comment := ""
	if f.as != "" && f.file == "" {
		comment = "# "
	}
	for _, line := range found.lines() {
		a.say("%s%s", comment, line)
	}
	if diverged {
		a.say("%sadopted %s as it is", comment, printable(path))
	}
	switch {
	case f.as == "" && !diverged:
		a.say("nothing to do: %s has the history that was seen before", printable(path))
	case f.as != "" && f.file == "":
		a.line("%s", strings.TrimSuffix(readableLines(string(resource.YAML())), "\n"))
	case f.as != "":
		a.say("added repository %s to %s", f.as, printable(f.file))
	}
	if resource.Name != "" && found.repository.Description().Encrypted && !resource.Passphrase.IsSet() && !resource.Identity.IsSet() {
		a.warnings([]string{"the resource does not say where the key is: give adopt --passphrase-file, --passphrase-command or --identity, or add it (docs/jobs.md)"})
	}
}

// resourceOf is the repository as a resource: where it is, its id, and where its key is, as far as that was given as a reference.
func (a *app) resourceOf(repository *repo.Repository, path, name string) (policy.Repository, error) {
	r := policy.Repository{Name: name, Location: path, ID: repository.ID()}
	var err error
	if !s3.IsLocation(path) {
		r.Location, err = filepath.Abs(path)
	}
	if !repository.Description().Encrypted || err != nil {
		return r, err
	}
	first := func(list []string, variable string) string {
		if len(list) > 0 {
			return list[0]
		}
		return os.Getenv(variable)
	}
	file := func(list []string, variable string) string {
		name := first(list, variable)
		if name != "" && err == nil {
			name, err = filepath.Abs(name)
		}
		return name
	}
	r.Passphrase = policy.SecretRef{File: file(a.keys.files, envPassphraseFile)}
	if r.Passphrase.File == "" {
		r.Passphrase.Command = first(a.keys.commands, envPassphraseCommand)
	}
	if !r.Passphrase.IsSet() && os.Getenv(envPassphrase) != "" {
		r.Passphrase.Environment = envPassphrase
	}
	r.Identity.File = file(a.keys.identityFiles, envIdentity)
	return r, err
}

// withResource is what a file of resources needs at its end to have one more. All of it together is checked.
func withResource(file string, resource policy.Repository) ([]byte, error) {
	added := resource.YAML()
	content := added
	if file != "" {
		before, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, usage("%w", err)
		}
		if len(bytes.TrimSpace(before)) > 0 {
			there, err := policy.Parse(policy.File{Name: file, Content: before})
			if err != nil {
				return nil, &exitError{code: ExitUsage, err: err}
			}
			if i := slices.IndexFunc(there.Repositories, func(r policy.Repository) bool { return r.ID == resource.ID || r.Name == resource.Name }); i >= 0 {
				known := there.Repositories[i]
				return nil, hinted(usage("%s has repository %s already: %s at %s", printable(file), known.Name, cmp.Or(known.ID, "any id"), printable(known.Location)),
					"if it was moved, change its location there to "+printable(resource.Location))
			}
			if added = append([]byte("---\n"), added...); before[len(before)-1] != '\n' {
				added = append([]byte("\n"), added...)
			}
			content = slices.Concat(before, added)
		}
	}
	if _, err := policy.Parse(policy.File{Name: cmp.Or(file, "the resource"), Content: content}); err != nil {
		return nil, &exitError{code: ExitUsage, err: err}
	}
	return added, nil
}

// appendTo adds to the end of a file, or makes it.
func appendTo(name string, added []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(added)
	return errors.Join(err, file.Sync(), file.Close())
}

// onlyHere refuses a repository that lies at another place too that this machine knows, unless that was said to be right: of
// copies of one repository only one can be written to.
func (a *app) onlyHere(ctx context.Context, repository *repo.Repository, location string, f adoptFlags) error {
	for _, place := range a.placesOf(repository.ID()) {
		if place == location || !a.liesAt(ctx, place, repository.ID()) {
			continue
		}
		text := fmt.Sprintf("the same repository lies at %s too, and only one of the two can be written to from now on", printable(place))
		if !f.also {
			return hinted(usage("%s", text), "is this the one to go on with? then add --also")
		}
		a.warnings([]string{text})
	}
	return nil
}

// liesAt is true if the repository of that id is at a place.
func (a *app) liesAt(ctx context.Context, place, id string) bool {
	if s3.IsLocation(place) {
		return false // to ask a server for something that nobody named is not for this
	}
	with := *a
	with.completing, with.cacheDir = true, "" // no key is needed, and what is known of the other place stays
	opened, err := with.openRepository(ctx, place)
	if err != nil {
		return false
	}
	defer opened.Close()
	return opened.ID() == id
}
