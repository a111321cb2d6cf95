package policy

import (
	"cmp"
	"slices"
	"strings"
)

// flow is points going from one repository to another by a job.
type flow struct {
	job      int
	from, to string
	path     string // the setting that says so
}

// circle is a ring of jobs, told of the job that closes it.
type circle struct {
	job     int
	problem Problem
}

// circles finds jobs by which points would come back to a repository where they have been, and jobs that wait for each
// other. Each ring is told once, of its last job.
func (r Resources) circles() []circle {
	place := r.places()
	var flows, waits []flow
	for i, j := range r.Jobs {
		for _, from := range r.sourcesOf(j) {
			flows = append(flows, flow{i, cmp.Or(place[from.name], from.name), cmp.Or(place[j.Target.Repository], j.Target.Repository), from.path})
		}
		if after := j.Schedule.After; after != "" && after != j.Name {
			waits = append(waits, flow{i, after, j.Name, "schedule.after"})
		}
	}
	var all []circle
	for _, ring := range rings(flows) {
		last := ring[len(ring)-1]
		text := "a point would come back to a repository where it has been: " + r.describeRing(ring)
		if len(ring) == 1 {
			text = "it copies " + ring[0].from + " onto itself"
		}
		all = append(all, circle{last.job, Problem{Path: last.path, Text: text, Hint: "a repository is copied from, or to, along a way that has an end"}})
	}
	for _, ring := range rings(waits) {
		var names []string
		for _, w := range ring {
			names = append(names, w.from)
		}
		names = append(names, ring[0].from)
		all = append(all, circle{ring[len(ring)-1].job, Problem{Path: "schedule.after", Text: "jobs wait for each other, so none begins: " + strings.Join(names, " → ")}})
	}
	return all
}

// describeRing is "a → (job one) → b → (job two) → a".
func (r Resources) describeRing(ring []flow) string {
	var b strings.Builder
	for _, f := range ring {
		b.WriteString(f.from + " → (" + describeResource(kindOfJob, r.Jobs[f.job].Name) + ") → ")
	}
	return b.String() + ring[0].from
}

// places maps the names of repositories that are the same place, by id or location, to the first of them.
func (r Resources) places() map[string]string {
	first := map[string]string{} // by what marks a place
	names := map[string]string{}
	for _, repository := range r.Repositories {
		marks := []string{"at " + strings.TrimRight(repository.Location, "/")}
		if repository.ID != "" {
			marks = append(marks, "id "+repository.ID)
		}
		name := repository.Name
		for _, mark := range marks {
			name = cmp.Or(first[mark], name)
		}
		for _, mark := range marks {
			first[mark] = cmp.Or(first[mark], name)
		}
		names[repository.Name] = name
	}
	return names
}

// named is the name of a repository, and the setting that names it.
type named struct{ name, path string }

// sourcesOf are the repositories that a job reads.
func (r Resources) sourcesOf(j Job) []named {
	var all []named
	seen := map[string]bool{}
	add := func(name, path string) {
		if name != "" && !seen[name] {
			seen[name] = true
			all = append(all, named{name, path})
		}
	}
	for _, name := range j.Source.Repositories {
		add(name, "source.repositories")
	}
	for _, ref := range j.Source.Jobs {
		add(r.repositoryOf(ref), "source.jobs")
	}
	for _, ref := range j.Source.Backups {
		add(ref.Repository, "source.backups")
	}
	return all
}

// repositoryOf is the repository that has what a job wrote: the one that the reference names, or else the job's target; empty where
// there is no such job.
func (r Resources) repositoryOf(ref JobRef) string {
	if ref.Repository != "" {
		return ref.Repository
	}
	job, _ := r.Job(ref.Job)
	return job.Target.Repository
}

// maxRings is how many rings are told.
const maxRings = 20

// rings finds rings of flows, depth first: a flow to a place that the way so far came through closes one. If there is a
// ring, one is found.
func rings(flows []flow) [][]flow {
	out := map[string][]flow{}
	for _, f := range flows {
		out[f.from] = append(out[f.from], f)
	}
	var all [][]flow
	var way []flow
	depth := map[string]int{} // of places on the way, from 1
	done := map[string]bool{}
	var walk func(place string)
	walk = func(place string) {
		depth[place] = len(way) + 1
		for _, f := range out[place] {
			switch at := depth[f.to]; {
			case len(all) == maxRings:
			case at > 0:
				all = append(all, append(slices.Clone(way[at-1:]), f))
			case !done[f.to]:
				way = append(way, f)
				walk(f.to)
				way = way[:len(way)-1]
			}
		}
		delete(depth, place)
		done[place] = true
	}
	for _, f := range flows {
		if !done[f.from] {
			walk(f.from)
		}
	}
	return all
}
