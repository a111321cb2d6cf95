package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

func (a *app) jobExplainCommand(at *asked) *cobra.Command {
	var file string
	command := &cobra.Command{
		Use: "explain [NAME]", Short: "Say what a job would do with every point, why, and when each will go",
		Long: `Say of every point in the job's sources and in its target what an interval that
begins now would do with it, and why: it is the plan that ferry job run carries
out. Of what the job keeps it says when it goes at the earliest by the rules, which
count from the newest point, not from the clock. Nothing is copied or removed.
The server looks at its job; with -f FILE this command does.`,
		Example:           "  ferry job explain offsite\n  ferry job explain -f offsite.yaml --json",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return a.jobExplainServed(cmd.Context(), at, args)
			}
			return a.jobExplain(cmd.Context(), file, args)
		},
	}
	jobFileFlag(command, &file)
	return command
}

// lookingGarbage is how much garbage the collector lets grow while a job is looked at, in hundredths of what is in use: all points of its
// sources and its target. Twice as much saves a twentieth of the time, and takes a fourth more memory.
const lookingGarbage = 50

func (a *app) jobExplain(ctx context.Context, file string, names []string) error {
	if os.Getenv("GOGC") == "" { // else an administrator has said it
		defer debug.SetGCPercent(debug.SetGCPercent(lookingGarbage))
	}
	chosen, err := a.readJob(file, names)
	if err != nil {
		return err
	}
	setup, err := a.setup(chosen)
	if err != nil {
		return err
	}
	e, err := a.explained(ctx, setup)
	if err != nil {
		return err
	}
	return a.showExplanation(describeExplanation(chosen.Job, e))
}

func (a *app) showExplanation(e explanationJSON) error {
	if a.json {
		return a.printJSON(e)
	}
	a.printExplanation(e)
	return nil
}

// explained plans an interval that begins now. An error tells the state of the target.
func (a *app) explained(ctx context.Context, setup job.Setup) (*job.Explanation, error) {
	e, err := job.Explain(ctx, setup)
	a.warnings(e.Warnings)
	if err == nil {
		return e, nil
	}
	return nil, targetError(e.Target, err)
}

// targetError is the error of looking at a job's target: what state it is in, if that is the reason.
func targetError(target job.TargetState, err error) error {
	var exit *exitError
	if target.State == job.StateReady || errors.As(err, &exit) && target.State != job.StateNeedsKey {
		return err
	}
	code := ExitFailed
	switch target.State {
	case job.StateOther:
		code = ExitUsage
	case job.StateNeedsKey:
		code = ExitKey
	}
	return exitWith(code, "target %s: %s", target.State, readable(target.Reason))
}

func (a *app) printExplanation(e explanationJSON) {
	for _, source := range e.Sources {
		if source.State != job.StateReady {
			a.line("source %s is %s: %s", source.Name, source.State, readable(source.Reason))
		}
	}
	for _, alarm := range e.Alarms {
		a.line("ALARM  %s", readable(alarm))
	}
	for _, warning := range e.Warnings {
		a.line("warning: %s", readable(warning))
	}
	for _, m := range e.Machines {
		a.line("%s", m.Machine.title())
		a.line("  %s", readable(m.Reason))
		if m.Behind != "" {
			a.line("  always one interval behind: %s", readable(m.Behind))
		}
		for _, mapped := range m.Mapped {
			a.line("  %s", readable(mapped.text(m.Machine.ID)))
		}
		for _, alarm := range m.Alarms {
			a.line("  ALARM  %s", readable(alarm))
		}
		for _, warning := range m.Warnings {
			a.line("  warning: %s", readable(warning))
		}
		var rows [][]string
		for _, step := range m.Points {
			rows = append(rows, []string{"  " + shortID(step.Point), when(step.Created), string(step.Action), readable(step.text(e.TimeZone))})
		}
		a.table(rows)
		a.line("")
	}
	a.line("%s to copy, %d to claim, %d to remove; nothing was changed", counted(e.Copies, "point"), e.Claims, e.Removals)
}

// text is why a step is taken, and what comes of the point.
func (s explainedStepJSON) text(zone string) string {
	text := joined(s.Reasons)
	switch s.Action {
	case plan.ActionCopy, plan.ActionClaim, plan.ActionKeep:
		if s.Goes != nil {
			text += "; " + s.Goes.text(zone)
		}
	case plan.ActionRemove:
		switch {
		case s.Stays != "":
			text += "; it stays: " + s.Stays
		case s.LockedUntil != nil:
			text += "; removed now; its space stays locked until " + when(*s.LockedUntil)
		}
	}
	return text
}

// text says when a point goes at the earliest, by days of a time zone.
func (g goesJSON) text(zone string) string {
	from := ""
	if g.From != nil {
		at, err := policy.ParseZone(zone)
		if err != nil {
			at = time.UTC
		}
		from = g.From.In(at).Format(time.DateOnly)
	}
	switch {
	case g.Never:
		return "stays for good"
	case from == "" && g.Points == 1:
		return "goes when one more point comes"
	case from == "":
		return fmt.Sprintf("goes when %d more points come", g.Points)
	case g.Points == 1:
		return "goes with the first point made from " + from + " on"
	}
	return fmt.Sprintf("goes with a point made from %s on, not before %d more points come", from, g.Points)
}

func joined(reasons []string) string { return strings.Join(reasons, "; ") }

// explanationJSON is the output of job explain.
type explanationJSON struct {
	Job string `json:"job"`
	// TimeZone is the job's: the days of its rules begin there.
	TimeZone string            `json:"timeZone"`
	Target   job.TargetState   `json:"target"`
	Sources  []job.SourceState `json:"sources"`
	Frozen   string            `json:"frozen"`
	Alarms   []string          `json:"alarms"`
	Warnings []string          `json:"warnings"`
	Machines []explainedJSON   `json:"machines"`
	Copies   int               `json:"copies"`
	Claims   int               `json:"claims"`
	Removals int               `json:"removals"`
}

type explainedJSON struct {
	Machine      machineJSON `json:"machine"`
	Selected     bool        `json:"selected"`
	Reason       string      `json:"reason"`
	Waits        bool        `json:"waits"`
	MissingSince *time.Time  `json:"missingSince,omitempty"`
	// RetiredSince is left out unless a person says that the machine has gone for good, PurgeFrom unless its points go by that.
	RetiredSince *time.Time          `json:"retiredSince,omitempty"`
	PurgeFrom    *time.Time          `json:"purgeFrom,omitempty"`
	Behind       string              `json:"behind"`
	Mapped       []mappedJSON        `json:"mapped"`
	Alarms       []string            `json:"alarms"`
	Warnings     []string            `json:"warnings"`
	Points       []explainedStepJSON `json:"points"`
}

type explainedStepJSON struct {
	Point    string      `json:"point"`
	Created  time.Time   `json:"created"`
	Source   string      `json:"source"`
	OnTarget bool        `json:"onTarget"`
	Action   plan.Action `json:"action"`
	Reasons  []string    `json:"reasons"`
	Slots    []string    `json:"slots"`
	// Goes is when a point that is kept goes at the earliest; left out for others.
	Goes *goesJSON `json:"goes,omitempty"`
	// Stays says what keeps a point that the job gives up.
	Stays string `json:"stays"`
	// LockedUntil is until when the storage keeps the space of a point that is removed; left out if it does not.
	LockedUntil *time.Time `json:"lockedUntil,omitempty"`
	Failure     bool       `json:"failure"`
}

type goesJSON struct {
	Never  bool       `json:"never"`
	From   *time.Time `json:"from,omitempty"`
	Points int        `json:"points"`
}

func describeExplanation(j policy.Job, e *job.Explanation) explanationJSON {
	described := explanationJSON{
		Job: printable(j.Name), TimeZone: cmp.Or(j.Schedule.Zone, time.UTC).String(), Target: e.Target, Sources: append([]job.SourceState{}, e.Sources...), Frozen: readable(e.Plan.Frozen), Alarms: readableList(e.Plan.Alarms),
		Warnings: readableList(e.Plan.Warnings), Machines: []explainedJSON{}, Copies: len(e.Plan.Steps(plan.ActionCopy)), Claims: len(e.Plan.Steps(plan.ActionClaim)), Removals: len(e.Plan.Steps(plan.ActionRemove)),
	}
	for _, m := range e.Plan.Machines {
		row := explainedJSON{
			Machine: describeMachine(m.Machine), Selected: m.Selected, Reason: readable(m.Reason), Waits: m.Waits, Behind: readable(m.Behind),
			Mapped: describeMapped(m.Mapped), Alarms: readableList(m.Alarms), Warnings: readableList(m.Warnings), Points: []explainedStepJSON{},
		}
		row.MissingSince, row.RetiredSince, row.PurgeFrom = timeOrNone(m.Missing), timeOrNone(m.Retired), timeOrNone(m.Purge)
		for _, step := range m.Steps {
			row.Points = append(row.Points, describeIntervalStep(e, step))
		}
		described.Machines = append(described.Machines, row)
	}
	return described
}

// timeOrNone is a time as JSON has it that leaves it out where there is none.
func timeOrNone(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func describeIntervalStep(e *job.Explanation, step plan.IntervalStep) explainedStepJSON {
	described := explainedStepJSON{
		Point: step.Point.ID.String(), Created: step.Point.Created.UTC(), OnTarget: step.OnTarget, Action: step.Action, Reasons: readableList(step.Reasons),
		Slots: append([]string{}, step.Slots...), Stays: readable(step.Stays), Failure: step.Failure,
	}
	if step.Source >= 0 && step.Source < len(e.Sources) {
		described.Source = printable(e.Sources[step.Source].Name)
	}
	if step.Action == plan.ActionRemove && step.Stays == "" {
		described.LockedUntil = timeOrNone(e.Locked)
	}
	if o := step.Outlook; o.Never || o.Points > 0 {
		described.Goes = &goesJSON{Never: o.Never, Points: o.Points}
		described.Goes.From = timeOrNone(o.From)
	}
	return described
}
