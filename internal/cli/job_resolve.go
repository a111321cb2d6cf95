package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
)

func (a *app) jobResolveCommand(at *asked) *cobra.Command {
	var file string
	command := &cobra.Command{
		Use: "resolve [NAME]", Short: "Say which machines a job copies, and why, and what it keeps of each",
		Long: `List a job's sources, as ferry points does, and say of every machine in them whether
the job copies it and why, from which source its newest complete point would come,
and by which retention it is kept. Machines that the job names and no source has are
"not found". The order is that of processing; machines that are out come last.
Nothing is read but what listing reads, and nothing is changed. Without -f FILE the job
is the server's; the sources are listed by this command all the same, with your rights.`,
		Example:           "  ferry job resolve offsite\n  ferry job resolve -f jobs.yaml offsite --json",
		Args:              arguments("[NAME]"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := a.servedJob(cmd.Context(), at, file, args)
			if err != nil {
				return err
			}
			return a.jobResolve(cmd.Context(), chosen)
		},
	}
	jobFileFlag(command, &file)
	return command
}

func (a *app) jobResolve(ctx context.Context, chosen chosenJob) (err error) {
	target, _ := chosen.target()
	resolved := resolution{job: chosen.Job, target: target, targetID: a.targetID(ctx, target)}
	var failure error // of the first source that cannot be listed
	for _, origin := range chosen.resources.Origins(chosen.Job) {
		origin.Repository = chosen.located(origin.Repository)
		if err := a.resolveSource(ctx, &resolved, origin); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.warnings([]string{fmt.Sprintf("source %s: %v", origin.Repository.Name, err)})
			resolved.failed++
			failure = err
		}
	}
	if resolved.failed == len(resolved.sources) {
		return &exitError{code: codeOf(ctx, failure), err: fmt.Errorf("job %s: no source can be listed", chosen.Name)}
	}
	resolved.selection = chosen.Choose(resolved.offers, resolved.targetID)
	resolved.mappings = a.mappingsOf(ctx, chosen)
	if a.json {
		err = a.printJSON(resolved.describe())
	} else {
		a.printResolution(resolved)
	}
	switch {
	case err != nil:
		return err
	case resolved.failed > 0:
		return exitWith(ExitSomeFailed, "of %s, %d cannot be listed", counted(len(resolved.sources), "source"), resolved.failed)
	case resolved.in() == 0:
		return exitWith(ExitNothing, "job %s copies no machine", chosen.Name)
	}
	return nil
}

// resolution is what a job makes of its sources as they are now.
type resolution struct {
	job       policy.Job
	target    policy.Repository
	targetID  string // empty if it is not known
	sources   []sourceSeen
	failed    int
	offers    []policy.Offer
	selection policy.Selection
	mappings  []mappingSeen
}

// sourceSeen is a source that was listed, or not.
type sourceSeen struct {
	repository policy.Repository
	points     int // that it offers the job
	reason     string
}

func (r resolution) in() int {
	in := 0
	for _, m := range r.selection.Machines {
		if m.In {
			in++
		}
	}
	return in
}

// resolveSource lists a source and adds what it offers the job.
func (a *app) resolveSource(ctx context.Context, into *resolution, origin policy.Origin) error {
	into.sources = append(into.sources, sourceSeen{repository: origin.Repository})
	seen := &into.sources[len(into.sources)-1]
	opened, err := a.asResource(origin.Repository).openSource(ctx)
	if err != nil {
		seen.reason = err.Error()
		return err
	}
	defer opened.Close()
	for i := range opened.Points {
		p := &opened.Points[i]
		if origin.Offers(p.Machine, claimersOf(*p)) {
			into.offers = append(into.offers, policy.Offer{Point: p.Brief(), Source: origin.Repository.Name, Via: p.Via})
			seen.points++
		}
	}
	return nil
}

// targetID is the id that the target's resource states, or else that of the repository which is there; empty if none is.
func (a *app) targetID(ctx context.Context, target policy.Repository) string {
	if target.ID != "" {
		return target.ID
	}
	there := a.asResource(target)
	there.app.completing = true // an id needs no key, and nothing is to be asked for one
	repository, err := there.openTarget(ctx)
	if err != nil {
		return ""
	}
	defer repository.Close()
	return repository.ID()
}

func (a *app) printResolution(r resolution) {
	for _, s := range r.sources {
		if s.reason == "" {
			a.say("source %s: %s of the job's in %s", s.repository.Name, counted(s.points, "point"), printable(s.repository.Location))
		}
	}
	rows := [][]string{{"", "machine", "id", "newest complete point", "from", "retention", "why"}}
	for _, m := range r.selection.Machines {
		state, newest, from, keeps := "in", "none", "", ""
		if m.Offered {
			newest, from = when(m.Newest.Point.Created), m.Newest.Source
		}
		if !m.In {
			state = "out"
		} else {
			keeps = m.Retention.String()
		}
		rows = append(rows, []string{state, printable(m.Machine.Name), m.Machine.Key.String(), newest, from, keeps, readable(r.why(m))})
	}
	for _, n := range r.selection.NotFound {
		rows = append(rows, []string{"not found", printable(string(n.Selector)), "", "", "", "", readable(n.Hint)})
	}
	if len(rows) > 1 {
		a.table(rows)
	}
	for _, idle := range r.selection.Idle {
		a.say("matches nothing: %s", readable(idle))
	}
	a.printMappings(r.mappings)
	a.say("job %s copies %d of %s to %s; times are local", r.job.Name, r.in(), counted(len(r.selection.Machines), "machine"), r.target.Name)
}

// why a machine is in or out, kept by what, and why nothing of it can be copied.
func (r resolution) why(m policy.Selected) string {
	why := m.Reason
	if m.In && m.Override >= 0 {
		why += "; retention by override " + selectorsText(r.job.Overrides[m.Override].Match)
	}
	if m.Why != "" {
		why += "; " + m.Why
	}
	return why
}

func selectorsText(selectors []policy.Selector) string {
	text := ""
	for i, s := range selectors {
		if i > 0 {
			text += ", "
		}
		text += string(s)
	}
	return text
}

// resolutionJSON is the output of job resolve.
type resolutionJSON struct {
	Job      string               `json:"job"`
	Target   resourcePlaceJSON    `json:"target"`
	Sources  []sourceSeenJSON     `json:"sources"`
	Machines []machineChoiceJSON  `json:"machines"`
	NotFound []machineMissingJSON `json:"notFound"`
	// Idle are settings that match nothing: "exclude db2".
	Idle []string `json:"matchesNothing"`
	// Mappings are what target.map comes to.
	Mappings []mappingJSON `json:"mappings"`
}

// resourcePlaceJSON is a repository by its resource: its id is empty if it is not known.
type resourcePlaceJSON struct {
	Name     string `json:"name"`
	Location string `json:"location"`
	ID       string `json:"id"`
}

type sourceSeenJSON struct {
	Name     string `json:"name"`
	Location string `json:"location"`
	Points   int    `json:"points"`
	Error    string `json:"error"`
}

type machineChoiceJSON struct {
	Machine machineJSON `json:"machine"`
	In      bool        `json:"in"`
	Reason  string      `json:"reason"`
	Points  int         `json:"points"`
	// Newest complete point that may be copied; its id and source are empty if there is none, and Nothing says why.
	Newest    newestJSON    `json:"newest"`
	Nothing   string        `json:"nothing"`
	Retention retentionJSON `json:"retention"`
	// Override is its number from 0; -1: the job's retention.
	Override int `json:"override"`
}

type newestJSON struct {
	Point   string    `json:"point"`
	Created time.Time `json:"created"`
	Source  string    `json:"source"`
}

type machineMissingJSON struct {
	Name string `json:"name"`
	Hint string `json:"hint"`
}

// retentionJSON is how much is kept by each rule; 0 is no such rule. Without any, every point is kept.
type retentionJSON struct {
	Points    int      `json:"points"`
	Days      int      `json:"days"`
	Weekly    tierJSON `json:"weekly"`
	Monthly   tierJSON `json:"monthly"`
	Quarterly tierJSON `json:"quarterly"`
	Yearly    tierJSON `json:"yearly"`
}

type tierJSON struct {
	Keep int    `json:"keep"`
	On   string `json:"on"`
}

func describeRetention(r policy.Retention) retentionJSON {
	tier := func(t policy.Tier) tierJSON { return tierJSON{r.Tiers[t].Keep, r.Tiers[t].On.String()} }
	return retentionJSON{r.Points, r.Days, tier(policy.Weekly), tier(policy.Monthly), tier(policy.Quarterly), tier(policy.Yearly)}
}

func (r resolution) describe() resolutionJSON {
	described := resolutionJSON{
		Job: r.job.Name, Target: resourcePlaceJSON{r.target.Name, printable(r.target.Location), r.targetID},
		Sources: []sourceSeenJSON{}, Machines: []machineChoiceJSON{}, NotFound: []machineMissingJSON{}, Idle: []string{}, Mappings: describeMappings(r.mappings),
	}
	for _, s := range r.sources {
		described.Sources = append(described.Sources, sourceSeenJSON{s.repository.Name, printable(s.repository.Location), s.points, readable(s.reason)})
	}
	for _, m := range r.selection.Machines {
		choice := machineChoiceJSON{
			Machine: describeMachine(m.Machine), In: m.In, Reason: readable(m.Reason), Points: m.Points, Nothing: readable(m.Why),
			Retention: describeRetention(m.Retention), Override: m.Override,
		}
		if m.Offered {
			choice.Newest = newestJSON{m.Newest.Point.ID.String(), m.Newest.Point.Created.UTC(), m.Newest.Source}
		}
		described.Machines = append(described.Machines, choice)
	}
	for _, n := range r.selection.NotFound {
		described.NotFound = append(described.NotFound, machineMissingJSON{printable(string(n.Selector)), readable(n.Hint)})
	}
	for _, idle := range r.selection.Idle {
		described.Idle = append(described.Idle, readable(idle))
	}
	return described
}
