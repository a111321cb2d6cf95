package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// faults collects what contradicts itself in one resource.
type faults struct {
	problems []Problem
	// compared is how many pairs of selectors were looked at.
	compared int
}

// maxCompared is how many pairs of selectors of a resource are looked at for what one does to the other: a thousand
// machines that are named and as many exclusions are within it, and a hostile file costs no more.
const maxCompared = 1_000_000

func (f *faults) add(path, hint, format string, args ...any) {
	if len(f.problems) == maxProblems {
		return
	}
	f.problems = append(f.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// check finds what each setting by itself allows and all of them together do not.
func (j Job) check() []Problem {
	var f faults
	if len(j.Source.Repositories)+len(j.Source.Jobs)+len(j.Source.Backups) == 0 {
		f.add("source", "repositories: [NAME] takes all machines of a repository", "it names nothing to copy from")
	}
	twice(&f, "source.repositories", j.Source.Repositories)
	twice(&f, "source.jobs", j.Source.Jobs)
	twice(&f, "source.backups", j.Source.Backups)
	if j.Name == ManualJob {
		f.add("name", "", ManualJob+" is the job of what is copied by hand")
	}
	j.Select.check(&f)
	j.checkLookup(&f)
	j.checkOverrides(&f)
	if j.Schedule.After != "" && j.Schedule.After == j.Name {
		f.add("schedule.after", "", "the job follows itself, so it never begins")
	}
	if schedule := j.Effective().Schedule; j.RPO > 0 && j.RPO < schedule.interval() {
		f.add("rpo", "allow an interval and the time that a copy takes", "%s is shorter than the interval of %s: every copy would be too old before the next one begins",
			FormatDuration(j.RPO), schedule.Every)
	}
	checkScript(&f, "scripts.pre.run", j.Scripts.Pre)
	checkScript(&f, "scripts.post.run", j.Scripts.Post)
	return f.problems
}

// interval is the length of an interval of a periodic schedule, where that is known without a calendar; else 0.
func (s Schedule) interval() time.Duration {
	return s.Every.Elapsed + time.Duration(s.Every.Days)*dayLength
}

// twice finds what is named two times in a list.
func twice[T comparable](f *faults, path string, list []T) {
	seen := map[T]bool{}
	for i, element := range list {
		if seen[element] {
			f.add(fmt.Sprintf("%s[%d]", path, i), "", "%v is there twice", element)
		}
		seen[element] = true
	}
}

// check finds machines that are named and excluded, and a selection of which nothing can be left.
func (s Select) check(f *faults) {
	twice(f, "select.include", s.Include)
	twice(f, "select.exclude", s.Exclude)
	left := len(s.Include) == 0
	for i, in := range s.Include {
		out := f.covering(s.Exclude, in)
		switch {
		case out < 0:
			left = true
		case !in.IsPattern() && s.Exclude[out] != "*":
			f.add(fmt.Sprintf("select.include[%d]", i), "what is excluded is out, whatever includes it", "%s is excluded by %s", in, s.Exclude[out])
			left = true // said already
		}
	}
	if !left || slices.Contains(s.Exclude, "*") {
		f.add("select.exclude", "", "everything that is included is excluded")
	}
}

// covering is the place of the first selector that surely matches all that another one does, or -1.
func (f *faults) covering(selectors []Selector, other Selector) int {
	return slices.IndexFunc(selectors, func(s Selector) bool {
		f.compared++
		return f.compared <= maxCompared && s.covers(other)
	})
}

// covers is true if the selector surely matches all that the other one does.
func (s Selector) covers(other Selector) bool {
	return s == "*" || s == other || !other.IsPattern() && !strings.HasPrefix(string(s), labelPrefix) && Glob(string(s), string(other))
}

func (j Job) checkLookup(f *faults) {
	forward := j.Lookup.Direction == Forward
	periodic := j.Schedule.Mode == Periodic || j.Schedule.Mode == "" // nothing said is once a day
	if forward && !periodic {
		f.add("lookup", "lookup: backward", "forward takes only what is made after an interval began, and this schedule has no intervals: those with every or on do")
	}
	switch {
	case forward && j.Lookup.WithinInterval:
		f.add("lookback", "leave one of them out", "lookback says how far to look backward, and lookup is forward")
	case j.Lookup.WithinInterval && !periodic:
		f.add("lookback", "lookback: any", "there is no interval to look back by: schedules with every or on have them")
	}
	if forward && j.Lookup.Backfill != 0 {
		f.add("backfill", "leave one of them out", "forward takes only what is made after an interval began, so no history")
	}
}

func (j Job) checkOverrides(f *faults) {
	for i, o := range j.Overrides {
		for k, match := range o.Match {
			for before := range i {
				n := f.covering(j.Overrides[before].Match, match)
				if n >= 0 {
					f.add(fmt.Sprintf("overrides[%d].match", i), "the first that matches counts; put the narrower one first",
						"%s is never reached: %s in overrides[%d] matches as much", match, j.Overrides[before].Match[n], before)
					break
				}
			}
			if slices.Contains(o.Match[:k], match) {
				f.add(fmt.Sprintf("overrides[%d].match", i), "", "%s is there twice", match)
			}
		}
	}
}

func checkScript(f *faults, path string, s Script) {
	if len(s.Run) > 0 && !strings.HasPrefix(s.Run[0], "/") {
		f.add(path, "write its whole path", "%q depends on where Ferry runs", s.Run[0])
	}
}

// check finds what each setting of a repository by itself allows and all of them together do not.
func (r Repository) check() []Problem {
	var f faults
	scheme, rest, remote := strings.Cut(r.Location, "://")
	switch {
	case remote && scheme != "s3" && scheme != "s3+http" && scheme != "s3+https":
		f.add("location", "it is a folder, or s3://BUCKET/PREFIX", "there are no repositories at %s://", scheme)
	case remote && strings.Contains(strings.SplitN(rest, "/", 2)[0], "@"):
		f.add("location", "credentials says in which file they are", "keys do not belong into a location")
	case !remote && r.Credentials.IsSet():
		f.add("credentials", "passphrase and identity open an encrypted repository", "a folder needs none: they open buckets")
	case remote:
		f.problems = append(f.problems, r.Bandwidth.BelowBucket("bandwidth", "a bucket")...)
	}
	for i, rule := range r.Labels {
		path := fmt.Sprintf("labels[%d]", i)
		switch {
		case rule.Name == "" && rule.Source == "" && rule.Folder == "" && rule.Size == SizeRange{}:
			f.add(path, "name: \"*\" is for all machines", "it does not say which machines are labelled %s", rule.Label)
		case rule.Size.Below > 0 && rule.Size.AtLeast >= rule.Size.Below:
			f.add(path+".size", "", "nothing is at least %s and below %s", formatSize(rule.Size.AtLeast), formatSize(rule.Size.Below))
		}
	}
	return f.problems
}

// known are the names of the resources that there are.
type known struct {
	names map[string][]string        // by kind, in order
	has   map[string]map[string]bool // by kind and name
}

// check checks the documents that were read without a mistake. The names of the others count as known.
func (r Resources) check(documents []document, rules Rules) []owned {
	var all []owned
	add := func(of document, problems ...Problem) {
		for _, p := range problems {
			if len(all) < maxProblems {
				all = append(all, owned{p, of.owner})
			}
		}
	}
	names := known{map[string][]string{}, map[string]map[string]bool{kindOfJob: {}, kindOfRepository: {}}}
	for _, d := range documents {
		if d.name != "" && names.has[d.owner.kind][d.name] {
			add(d, Problem{Path: "name", Text: "there is a " + describeResource(d.owner.kind, d.name) + " already"})
		}
		names.names[d.owner.kind] = append(names.names[d.owner.kind], d.name)
		names.has[d.owner.kind][d.name] = true
	}
	var whole Resources // those without mistakes
	var jobs []document // of whole.Jobs
	for _, d := range documents {
		switch {
		case !d.good || len(all) == maxProblems:
		case d.owner.kind == kindOfJob:
			job := r.Jobs[d.owner.index]
			add(d, append(job.check(), job.references(names)...)...)
			if rules.Job != nil {
				add(d, rules.Job(job)...)
			}
			whole.Jobs, jobs = append(whole.Jobs, job), append(jobs, d)
		default:
			repository := r.Repositories[d.owner.index]
			add(d, repository.check()...)
			if rules.Repository != nil {
				add(d, rules.Repository(repository)...)
			}
			whole.Repositories = append(whole.Repositories, repository)
		}
	}
	for i, job := range whole.Jobs {
		add(jobs[i], whole.belowBucket(job)...)
	}
	for _, circle := range whole.circles() {
		add(jobs[circle.job], circle.problem)
	}
	return all
}

// belowBucket finds limits of a job that a bucket which it reads or writes cannot be kept to.
func (r Resources) belowBucket(j Job) []Problem {
	if j.Bandwidth.BelowBucket("bandwidth", "") == nil {
		return nil
	}
	for _, of := range append(r.sourcesOf(j), named{name: j.Target.Repository}) {
		if repository, there := r.Repository(of.name); there && repository.InBucket() {
			return j.Bandwidth.BelowBucket("bandwidth", "a bucket, repository "+of.name+",")
		}
	}
	return nil
}

// references finds names that nothing has.
func (j Job) references(known known) []Problem {
	var f faults
	must := func(path, name, kind string) {
		if name != "" && !known.has[kind][name] && len(f.problems) < maxProblems {
			f.add(path, meant(name, known.names[kind]), "there is no %s", describeResource(kind, name))
		}
	}
	for i, name := range j.Source.Repositories {
		must(fmt.Sprintf("source.repositories[%d]", i), name, kindOfRepository)
	}
	for i, ref := range j.Source.Jobs {
		path := fmt.Sprintf("source.jobs[%d]", i)
		switch {
		case ref.Repository != "":
			must(path, ref.Repository, kindOfRepository)
		case !known.has[kindOfJob][ref.Job] && nearest(ref.Job, known.names[kindOfJob]) == "":
			f.add(path, "a job that only a repository knows of is written REPOSITORY/"+ref.Job, "there is no %s", describeResource(kindOfJob, ref.Job))
		default:
			must(path, ref.Job, kindOfJob)
		}
	}
	for i, ref := range j.Source.Backups {
		must(fmt.Sprintf("source.backups[%d]", i), ref.Repository, kindOfRepository)
	}
	must("target.repository", j.Target.Repository, kindOfRepository)
	if j.Schedule.After != j.Name {
		must("schedule.after", j.Schedule.After, kindOfJob)
	}
	return f.problems
}
