package cli

import (
	"context"
	"fmt"
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
	var at asked
	command := &cobra.Command{
		Use:   "adopt REPOSITORY",
		Short: "Take up a repository that was carried here, or whose history is not the one seen before",
		Long: `Check a repository that was carried here: is every file there that its log names?
Make what is missing of its index, list its backups, as target.map names them, and
say what of it is known to be damaged. With --as, give it to the server as the
resource that jobs name, or add that to a FILE of resources (docs/seeding.md). Where
no server runs, or with -f -, it is printed, behind comments that say what was found.

This machine remembers the last state of every repository it has used. One that
was rolled back to an older state, or that is another copy with a history of its
own, can be read, but is not written to: something may be lost. After adopt this
machine goes on with the repository as it is, and so does a server that runs here
and has it as a job's target. Else who goes on is the one of --cache-dir.`,
		Example: `  ferry adopt /mnt/usb/vault
  ferry adopt /srv/vault --as vault
  ferry adopt /srv/vault --as vault -f jobs.yaml --passphrase-file /etc/ferry/vault`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.adopt(cmd.Context(), args[0], f, &at) },
	}
	flags := command.Flags()
	flags.StringVar(&f.as, "as", "", "make a resource of this `NAME` of it")
	flags.StringVarP(&f.file, "file", "f", "", "with --as: add the resource to `FILE`, which may be new, instead of giving it to the server; - prints it")
	flags.BoolVar(&f.also, "also", false, "with --as: also if the repository is known at another place, where it is still")
	at.serverFlags(command)
	register(command, "as", nothingToComplete)
	register(command, "file", completeFile)
	return command
}

func (a *app) adopt(ctx context.Context, path string, f adoptFlags, at *asked) error {
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
	to, err := shelfOf(ctx, f, at)
	if err != nil {
		return err
	}
	if f.as != "" {
		if err := to.fits(resource); err != nil {
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
	served, err := at.adopt(ctx, resource)
	if err == nil {
		err = to.put(ctx, resource)
	}
	if err != nil {
		return err
	}
	diverged = diverged || served != ""
	if a.json {
		described := adoptJSON{Repository: describePlace(repository), Adopted: diverged, inspectionJSON: found.describe()}
		if f.as != "" {
			described.Document = string(resource.YAML())
		}
		err = a.printJSON(described)
	} else {
		a.printAdopted(found, resource, path, to, diverged, served)
	}
	if err != nil {
		return err
	}
	return found.exit()
}

// adoptJSON is the output of adopt.
type adoptJSON struct {
	Repository placeJSON `json:"repository"`
	// Adopted is true if the history was another than this machine had seen, or the server that runs here.
	Adopted bool `json:"adopted"`
	inspectionJSON
	// Document is the resource as YAML; empty without a name.
	Document string `json:"document"`
}

func (a *app) printAdopted(found *inspection, resource policy.Repository, path string, to *shelf, diverged bool, served string) {
	comment := ""
	if prints := resource.Name != "" && to.name == ""; prints {
		comment = "# "
		defer func() { a.line("%s", strings.TrimSuffix(readableLines(string(resource.YAML())), "\n")) }()
	}
	for _, line := range found.lines() {
		a.say("%s%s", comment, line)
	}
	switch {
	case diverged:
		a.say("%sadopted %s as it is", comment, printable(path))
	case resource.Name == "":
		a.say("nothing to do: %s has the history that was seen before", printable(path))
	}
	if served != "" {
		a.say("%sthe server goes on with its repository %s, too", comment, printable(served))
	}
	if resource.Name != "" && to.name != "" {
		a.say("added repository %s to %s", resource.Name, printable(to.name))
	}
	if resource.Name != "" && found.repository.Description().Encrypted && !resource.Passphrase.IsSet() && !resource.Identity.IsSet() {
		a.warnings([]string{"the resource does not say where the key is: give adopt --passphrase-file, --passphrase-command or --identity, or add it (docs/jobs.md)"})
	}
}

// adopt has the server that runs here go on with a repository that is the target of a job, as it is: what it has seen is not in this
// program's cache. It returns the name of the resource whose history was another for the server, empty if none was.
func (s *asked) adopt(ctx context.Context, repository policy.Repository) (adopted string, err error) {
	if !s.client().Running(ctx) {
		return "", nil
	}
	known, err := s.known(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range known.Repositories {
		isTarget := slices.ContainsFunc(known.Jobs, func(j policy.Job) bool { return j.Target.Repository == r.Name })
		if !isTarget || r.ID != "" && r.ID != repository.ID || !samePlace(r.Location, repository.Location) {
			continue
		}
		answer, err := s.client().Adopt(ctx, r.Name)
		if err != nil {
			return adopted, s.failed(err)
		}
		if answer.Adopted {
			adopted = r.Name
		}
	}
	return adopted, nil
}

// samePlace is true of two ways to say where one repository lies.
func samePlace(one, other string) bool {
	if s3.IsLocation(one) && s3.IsLocation(other) {
		first, errFirst := s3.ParseLocation(one)
		second, errSecond := s3.ParseLocation(other)
		return errFirst == nil && errSecond == nil && first.Covers(second) && second.Covers(first)
	}
	first, errFirst := os.Stat(one)
	second, errSecond := os.Stat(other)
	return one == other || errFirst == nil && errSecond == nil && os.SameFile(first, second)
}

// resourceOf is the repository as a resource: where it is, its id, and where its key is, as far as that was given as a reference.
func (a *app) resourceOf(repository *repo.Repository, path, name string) (policy.Repository, error) {
	r := policy.Repository{Name: name, Location: wherever(path), ID: repository.ID()}
	if !repository.Description().Encrypted {
		return r, nil
	}
	var err error
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

// onlyHere refuses a repository that lies at another place too that this machine knows, unless that was said to be right: of
// copies of one repository only one can be written to.
func (a *app) onlyHere(ctx context.Context, repository *repo.Repository, location string, f adoptFlags) error {
	for _, place := range a.placesOf(repository.ID()) {
		if samePlace(place, location) || !a.liesAt(ctx, place, repository.ID()) {
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
