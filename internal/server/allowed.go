package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/policy"
	"ferry/internal/storage/s3"
)

// Allowed says where may lie what resources name. It is asked when resources are applied, and again before they are used,
// since links change. Paths are whole.
type Allowed struct {
	// Files are the folders of files and programs: secrets, programs that print secrets, scripts of jobs. None allows nothing.
	Files []string
	// Places are those of repositories, sources and targets alike: folders, and buckets as [s3.ParseLocation] takes them, each
	// with what lies below it. None allows every place.
	Places []string
}

// plainCommand is a command that the shell takes word by word: nothing in it is replaced, chained or sent elsewhere.
var plainCommand = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]+( +[A-Za-z0-9_./:@%+,=-]+)*$`)

// Secrets returns what is wrong with the files and programs that a repository names.
func (a Allowed) Secrets(r policy.Repository) []policy.Problem {
	var problems []policy.Problem
	for _, secret := range []struct {
		path string
		policy.SecretRef
	}{{"passphrase", r.Passphrase}, {"identity", r.Identity}, {"credentials", r.Credentials}} {
		if secret.File != "" {
			problems = a.check(problems, secret.path+".file", secret.File)
		}
		switch {
		case secret.Command == "":
		case !plainCommand.MatchString(secret.Command):
			problems = append(problems, policy.Problem{
				Path: secret.path + ".command", Text: "a server runs no command that needs a shell", Hint: "put it into a script, and give the script's path and plain words",
			})
		default:
			program, _, _ := strings.Cut(secret.Command, " ")
			problems = a.check(problems, secret.path+".command", program)
		}
	}
	return problems
}

// Place returns what is wrong with where a repository lies. A folder's path must be whole: a server has a folder of its own.
func (a Allowed) Place(r policy.Repository) []policy.Problem {
	err, hint := error(nil), "allowed are "+strings.Join(a.Places, ", ")+"; ferry serve --place PLACE allows another"
	switch {
	case s3.IsLocation(r.Location):
		err = a.bucket(r.Location)
	case !filepath.IsAbs(r.Location):
		err, hint = errRelative, "write the whole path, from / on"
	case len(a.Places) > 0:
		err = within(r.Location, a.Places, func(name, dir string) bool { return name == dir || isBelow(name, dir) })
	}
	if err != nil {
		return []policy.Problem{{Path: "location", Text: err.Error(), Hint: hint}}
	}
	return nil
}

// bucket returns an error unless a location in a bucket is in an allowed place.
func (a Allowed) bucket(location string) error {
	if len(a.Places) == 0 {
		return nil
	}
	asked, err := s3.ParseLocation(location)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(a.Places, func(place string) bool {
		allowed, err := s3.ParseLocation(place)
		return err == nil && allowed.Covers(asked)
	}) {
		return nil
	}
	return fmt.Errorf("%s is in no allowed bucket", location)
}

// Job returns what is wrong with the scripts that a job names.
func (a Allowed) Job(j policy.Job) []policy.Problem {
	var problems []policy.Problem
	for _, script := range []struct {
		path string
		policy.Script
	}{{"scripts.pre.run", j.Scripts.Pre}, {"scripts.post.run", j.Scripts.Post}} {
		if len(script.Run) > 0 {
			problems = a.check(problems, script.path, script.Run[0])
		}
	}
	return problems
}

// check adds a problem if a file is not in an allowed folder.
func (a Allowed) check(problems []policy.Problem, path, file string) []policy.Problem {
	if err := within(file, a.Files, isBelow); err != nil {
		return append(problems, policy.Problem{Path: path, Text: err.Error(), Hint: a.hint()})
	}
	return problems
}

func (a Allowed) hint() string {
	if len(a.Files) == 0 {
		return "ferry serve --allow DIR allows a folder"
	}
	return "allowed are " + strings.Join(a.Files, ", ") + "; ferry serve --allow DIR allows another"
}

var errRelative = errors.New("a server takes no relative path")

// within returns an error unless a folder covers what lies at a path, all links followed. It need not be there yet.
func within(name string, dirs []string, covers func(name, dir string) bool) error {
	if !filepath.IsAbs(name) {
		return errRelative
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("a server takes no path with .. in it: behind a link, %s is another place than it seems", name)
	}
	var likely []string // looked at first: one of the others may be on a share that does not answer
	for _, dir := range dirs {
		if covers(filepath.Clean(name), filepath.Clean(dir)) {
			likely = append(likely, dir)
		}
	}
	real, err := resolve(name)
	allows := func(dir string) bool {
		resolved, err := resolve(dir)
		return err == nil && covers(real, resolved) // a folder that cannot be looked at allows nothing
	}
	switch {
	case err == nil && (slices.ContainsFunc(likely, allows) || slices.ContainsFunc(dirs, allows)):
		return nil
	case len(likely) == 0: // of other places nothing is told: neither what is there, nor where it leads
		return fmt.Errorf("%s is in no allowed folder", name)
	case err != nil:
		return err
	}
	return fmt.Errorf("%s leads to %s, which is in no allowed folder", name, real)
}

func isBelow(name, dir string) bool {
	return name != dir && strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// resolve follows the links of a path as far as it is there. A link that leads nowhere is an error: what it will lead to is
// not known.
func resolve(name string) (string, error) {
	name = filepath.Clean(name)
	real, err := filepath.EvalSymlinks(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(name); err == nil {
		return "", fmt.Errorf("%s is a link that leads nowhere", name)
	}
	parent, err := resolve(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(name)), nil
}
