package policy

import (
	"path"
	"slices"

	"ferry/internal/backup"
)

// Origin is a repository that a job reads, and what of it is the job's.
type Origin struct {
	Repository Repository
	// whole: all of it is. Else what jobs that match the globs claim, and of backups what is of the machine too.
	whole   bool
	jobs    []string
	backups []BackupRef
}

// Origins are the repositories that a job reads, each once, in the order that decides between equal points: as its source
// names them, first under repositories, then jobs, then backups. The job must be of these resources, and Check have found
// nothing.
func (r Resources) Origins(j Job) []Origin {
	all := make([]Origin, 0, 1)
	at := map[string]int{}
	for _, from := range r.sourcesOf(j) {
		at[from.name] = len(all)
		repository, _ := r.Repository(from.name)
		all = append(all, Origin{Repository: repository})
	}
	for _, name := range j.Source.Repositories {
		all[at[name]].whole = true
	}
	for _, ref := range j.Source.Jobs {
		i := at[r.repositoryOf(ref)]
		all[i].jobs = append(all[i].jobs, ref.Job)
	}
	for _, ref := range j.Source.Backups {
		all[at[ref.Repository]].backups = append(all[at[ref.Repository]].backups, ref)
	}
	return all
}

// Needed are the jobs that a job copies on or comes after, and those that they need, each once and behind those that it needs. It cannot be
// without them; the job itself is not among them.
func (r Resources) Needed(j Job) []Job {
	var all []Job
	seen := map[string]bool{j.Name: true}
	var walk func(Job)
	walk = func(j Job) {
		names := []string{j.Schedule.After}
		for _, ref := range j.Source.Jobs {
			if ref.Repository == "" {
				names = append(names, ref.Job)
			}
		}
		for _, name := range names {
			if needed, there := r.Job(name); there && !seen[name] {
				seen[name] = true
				walk(needed)
				all = append(all, needed)
			}
		}
	}
	walk(j)
	return all
}

// Named are the repositories that a job names, each once: its target first, then those that it reads.
func (r Resources) Named(j Job) []Repository {
	target, there := r.Repository(j.Target.Repository)
	var all []Repository
	if there {
		all = append(all, target)
	}
	for _, from := range r.sourcesOf(j) {
		if repository, there := r.Repository(from.name); there && from.name != target.Name {
			all = append(all, repository)
		}
	}
	return all
}

// Repository is the one of that name.
func (r Resources) Repository(name string) (Repository, bool) {
	i := slices.IndexFunc(r.Repositories, func(of Repository) bool { return of.Name == name })
	if i < 0 {
		return Repository{}, false
	}
	return r.Repositories[i], true
}

// Job is the one of that name.
func (r Resources) Job(name string) (Job, bool) {
	i := slices.IndexFunc(r.Jobs, func(of Job) bool { return of.Name == name })
	if i < 0 {
		return Job{}, false
	}
	return r.Jobs[i], true
}

// Offers is true for a point of the repository that is the job's. jobs are those that claim the point there; none does in
// sources made by others.
func (o Origin) Offers(m backup.Machine, jobs []string) bool {
	claimed := func(glob string) bool {
		return glob == "*" || slices.ContainsFunc(jobs, func(job string) bool { return Glob(glob, job) })
	}
	return o.whole || slices.ContainsFunc(o.jobs, claimed) || slices.ContainsFunc(o.backups, func(ref BackupRef) bool {
		return claimed(ref.Job) && ref.Machine.Matches(m)
	})
}

// Labelled is a point of the repository with the labels of its machine: first those that it has, then those by rule.
func (r Repository) Labelled(p backup.Point) backup.Point {
	labels := slices.Clone(p.Machine.Labels)
	for _, rule := range r.Labels {
		if rule.matches(p) && !slices.Contains(labels, rule.Label) {
			labels = append(labels, rule.Label)
		}
	}
	p.Machine.Labels = labels
	return p
}

func (l LabelRule) matches(p backup.Point) bool {
	if l.Name != "" && !Glob(l.Name, p.Machine.Name) && !Glob(l.Name, backup.EncodeName(p.Machine.Name)) {
		return false
	}
	if l.Source != "" && !Glob(l.Source, p.Origin.Source) {
		return false
	}
	if l.Folder != "" && !Glob(l.Folder, path.Dir(p.Origin.Location)) {
		return false
	}
	size := contentSize(p)
	return size >= l.Size.AtLeast && (l.Size.Below == 0 || size < l.Size.Below)
}

// contentSize is the sum of the sizes of a point's disks and archives, as far as they are known.
func contentSize(p backup.Point) int64 {
	var sum int64
	for _, o := range p.Objects {
		if (o.Role == backup.RoleDisk || o.Role == backup.RoleArchive) && o.Size > 0 {
			sum += o.Size
		}
	}
	return sum
}

// BeenIn is true for a point that lies in a repository already, or came through it: it is never copied back. via is the
// repository that it would be read from; empty for sources made by others.
func BeenIn(p *backup.Brief, via, repository string) bool {
	return repository != "" && (via == repository || slices.ContainsFunc(p.Hops, func(hop backup.Hop) bool { return hop.RepositoryID == repository }))
}
