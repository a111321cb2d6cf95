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
)

// Allowed are folders in which files and programs may lie that resources name: secrets, programs that print secrets, scripts
// of jobs. Their paths are whole. None allows nothing. It is asked when resources are applied, and again before they are used, since links change.
type Allowed []string

// plainCommand is a command that the shell takes word by word: nothing in it is replaced, chained or sent elsewhere.
var plainCommand = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]+( +[A-Za-z0-9_./:@%+,=-]+)*$`)

// Repository returns what is wrong with the files and programs that a repository names. Their paths must be whole: a server
// has a folder of its own.
func (a Allowed) Repository(r policy.Repository) []policy.Problem {
	var problems []policy.Problem
	if !filepath.IsAbs(r.Location) && !strings.Contains(r.Location, "://") {
		problems = append(problems, policy.Problem{Path: "location", Text: "a server takes no relative path", Hint: "write the whole path, from / on"})
	}
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
	if err := a.file(file); err != nil {
		return append(problems, policy.Problem{Path: path, Text: err.Error(), Hint: a.hint()})
	}
	return problems
}

func (a Allowed) hint() string {
	if len(a) == 0 {
		return "ferry serve --allow DIR allows a folder"
	}
	return "allowed are " + strings.Join(a, ", ") + "; ferry serve --allow DIR allows another"
}

// file returns an error unless a file lies in an allowed folder, all links followed. It need not be there yet.
func (a Allowed) file(name string) error {
	if !filepath.IsAbs(name) {
		return errors.New("a server takes no relative path")
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("a server takes no path with .. in it: behind a link, %s is another place than it seems", name)
	}
	seems := slices.ContainsFunc(a, func(dir string) bool { return isBelow(filepath.Clean(name), filepath.Clean(dir)) })
	real, err := resolve(name)
	if err == nil && slices.ContainsFunc(a, func(dir string) bool {
		within, err := resolve(dir)
		return err == nil && isBelow(real, within) // a folder that cannot be looked at allows nothing
	}) {
		return nil
	}
	switch {
	case !seems: // of other places nothing is told: neither what is there, nor where it leads
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
