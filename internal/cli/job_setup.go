package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"ferry/internal/job"
	"ferry/internal/pace"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
	filestore "ferry/internal/storage/fs"
	"ferry/internal/storage/s3"
)

// setup is what a session of the job needs of this machine.
func (a *app) setup(c chosenJob) (job.Setup, error) {
	target, there := c.target()
	s := c.bare()
	if !there {
		return s, usage("job %s: there is no repository %s", c.Name, c.Target.Repository)
	}
	s.Copy.TempDir = a.tempDir
	a.listed.Keep() // jobs look again and again
	ofJob := a.limits.Limit("job "+c.Name, c.Bandwidth)
	for _, origin := range c.resources.Origins(c.Job) {
		origin.Repository = c.located(origin.Repository)
		from := a.asResource(origin.Repository)
		from.ofJob = ofJob
		s.Sources = append(s.Sources, job.Place{
			Origin: origin, Jobs: claimersOf, Donors: repositoriesOf,
			Open: func(ctx context.Context) (*registry.Source, error) { return from.openSource(ctx) },
		})
	}
	to := a.asResource(target)
	to.ofJob = ofJob
	s.Target.Open = to.openTarget
	s.Document, s.Needed = c.document(c.Job), c.needed()
	return s, nil
}

// bare is what a session's setup has that needs nothing of this machine: what the job's scripts are told, and what is hidden from
// them.
func (c chosenJob) bare() job.Setup {
	target, _ := c.target()
	s := job.Setup{Job: c.Job, Target: job.Goal{Name: target.Name, Location: target.Location, ID: target.ID, Slots: target.Slots}}
	for _, r := range c.resources.Repositories { // also those of other jobs: the environment has their secrets too
		for _, secret := range []policy.SecretRef{r.Passphrase, r.Identity, r.Credentials} {
			if secret.Environment != "" {
				s.Hidden = append(s.Hidden, secret.Environment)
			}
		}
	}
	return s
}

// target is the repository that the job copies to; false if there is no resource of its name.
func (c chosenJob) target() (policy.Repository, bool) {
	target, there := c.resources.Repository(c.Target.Repository)
	return c.located(target), there
}

// isRemote is true of what lies across a network: the job's limit is for that.
func isRemote(location string) bool { return s3.IsLocation(location) || filestore.IsRemote(location) }

// claimersOf are the jobs that claim a point in the Ferry repository that it is read from.
func claimersOf(p source.Point) []string {
	from := ferry.RepositoryOf(p)
	if from == nil {
		return nil
	}
	var jobs []string
	for _, claim := range from.Claims(p.ID) {
		jobs = append(jobs, claim.Job)
	}
	return jobs
}

// repositoriesOf are the Ferry repositories that a source's points are read from.
func repositoriesOf(opened *registry.Source) []*repo.Repository {
	var all []*repo.Repository
	seen := map[*repo.Repository]bool{}
	for _, p := range opened.Points {
		if of := ferry.RepositoryOf(p); of != nil && !seen[of] {
			seen[of] = true
			all = append(all, of)
		}
	}
	return all
}

// resource opens a repository of a job with the keys of its resource before the program's own. What it names is read when an
// opening needs it, and not again by those that follow.
type resource struct {
	policy.Repository
	app *app // with its keys, and its credentials once they are read
	// ofJob is the limit of the job that it is opened for; nil: for none.
	ofJob *pace.Limit
}

// limits are those of what is read from the repository, or written to it as the target; none if it is opened for no job. Its own
// limit holds wherever it lies, that of the job where it lies across a network.
func (r *resource) limits() []*pace.Limit {
	if r.ofJob == nil {
		return nil
	}
	limits := []*pace.Limit{r.app.limits.Limit("repository "+r.Name, r.Bandwidth)}
	if isRemote(r.Location) {
		limits = append(limits, r.ofJob, r.app.limits.Limit(inAll, nil))
	}
	return limits
}

// pace is the pace of the limits; nil where there are none.
func (r *resource) pace() storage.Pace {
	limits := r.limits()
	if limits == nil {
		return nil
	}
	return pace.Of(limits...)
}

// asResource is the repository with the keys that its resource names.
func (a *app) asResource(r policy.Repository) *resource {
	with := *a
	with.instance, with.ofJob = r.Instance, true
	with.keys = &keys{app: &with, shared: a.keys}
	add := func(list *[]string, value string) {
		if value != "" {
			*list = []string{value}
		}
	}
	add(&with.keys.files, r.Passphrase.File)
	add(&with.keys.commands, r.Passphrase.Command)
	add(&with.keys.variables, r.Passphrase.Environment)
	add(&with.keys.identityFiles, r.Identity.File)
	return &resource{Repository: r, app: &with}
}

// openSource lists the repository as a source.
func (r *resource) openSource(ctx context.Context) (*registry.Source, error) {
	if err := r.readCredentials(ctx); err != nil {
		return nil, err
	}
	if !s3.IsLocation(r.Location) {
		if _, err := os.Stat(r.Location); err != nil {
			return nil, err // a missing folder is a state, not a mistake
		}
	}
	r.app.receive, r.app.receiveRate = r.pace(), pace.Rate(r.limits()...)
	opened, err := r.app.openReadable(ctx, r.Location, r.SourceName)
	if err != nil {
		return nil, err
	}
	for i := range opened.Points { // copies keep the labels, so that retention finds them when the source has gone
		opened.Points[i].Point = r.Labelled(opened.Points[i].Point)
	}
	if r.ID == "" {
		return opened, nil
	}
	for _, of := range repositoriesOf(opened) {
		if of.ID() != r.ID {
			opened.Close()
			return nil, fmt.Errorf("the repository at %s is %s, not %s", r.Location, of.ID(), r.ID)
		}
	}
	return opened, nil
}

func (r *resource) openTarget(ctx context.Context) (*repo.Repository, error) {
	if err := r.readCredentials(ctx); err != nil {
		return nil, err
	}
	r.app.send = r.pace()
	opened, err := r.app.openRepository(ctx, r.Location)
	var exit *exitError
	if errors.As(err, &exit) && !errors.Is(err, job.ErrNoKey) { // a missing folder is a state, not a mistake
		err = fmt.Errorf("%w: %w", repo.ErrNoRepository, exit.err)
	}
	return opened, err
}

// readCredentials reads those of the repository's bucket, once.
func (r *resource) readCredentials(ctx context.Context) error {
	if !r.Credentials.IsSet() || r.app.credentials != nil {
		return nil
	}
	content, err := r.app.secretOf(ctx, r.Credentials)
	if err != nil {
		return &noKeyError{fmt.Errorf("credentials of repository %s: %w", r.Name, err)}
	}
	r.app.credentials = content
	return nil
}

// secretOf reads the credentials that a resource refers to.
func (a *app) secretOf(ctx context.Context, ref policy.SecretRef) ([]byte, error) {
	switch {
	case ref.File != "":
		return a.readSecretFile(ref.File)
	case ref.Environment != "":
		if value := os.Getenv(ref.Environment); value != "" {
			return []byte(value), nil
		}
		return nil, exitWith(ExitKey, "the environment has no %s", ref.Environment)
	}
	return a.runSecretCommand(ctx, "credentials", ref.Command)
}
