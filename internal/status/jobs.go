package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// grace is how late an interval may begin before that is an alarm.
const grace = 10 * time.Minute

// job is where a job stands.
func (l *looker) job(j policy.Job, p past) api.Job {
	state := l.states[j.Name]
	isNew := state.Start.IsZero() // the scheduler enables it when it comes to it
	described := api.Job{Name: j.Name, Enabled: state.Enabled || isNew, Schedule: j.Schedule.String(), Target: j.Target.Repository, Next: state.Next}
	if p.last != nil {
		last := Session(*p.last)
		described.Last = &last
	}
	live, running := l.live[j.Name]
	if running {
		described.Running = live.ID
	}
	switch {
	case isNew:
		described.Waits = "the server to come to it"
	case !state.Enabled:
		described.Next, described.Waits = time.Time{}, "to be enabled"
	case running && live.State == catalog.SessionWaiting:
		described.Waits = live.Reason
	case running:
	default:
		decision := j.Schedule.Due(history(state), l.now)
		if described.Next.IsZero() {
			described.Next = decision.Look
		}
		if described.Next.IsZero() {
			described.Waits = strings.TrimPrefix(decision.Reason, "waits for ")
		}
	}
	return described
}

func history(state catalog.JobState) policy.History {
	return policy.History{Start: state.Start, Last: state.Last, Asked: state.Asked}
}

// judgeJob raises the alarms of a job's sessions.
func (l *looker) judgeJob(j policy.Job, p past) {
	l.judgeSchedule(j, p)
	l.judgeWait(j, p)
	l.judgeResult(j, p)
	l.judgeTarget(j, p)
	l.judgeSources(j, p)
	l.judgeFindings(j, p)
}

// judgeResult raises the alarm of sessions that failed. One whose time ended, while machines waited, or that was stopped, raises none: the
// ages of the copies tell what has waited for too long. Nor does it end that of one before it, unless it has copied something, or has read a
// source where that one came to none.
func (l *looker) judgeResult(j policy.Job, p past) {
	if p.told == nil || p.lacksTarget() {
		return // which is an alarm of its own
	}
	alarm := api.Alarm{Kind: "failed", Job: j.Name, Since: p.since, Text: failedText(p)}
	switch p.told.State {
	case catalog.SessionFailed:
		if !p.listed.after(p.told) || p.told.readSource() {
			l.alarm(critical, alarm)
		}
	case catalog.SessionPartial:
		l.alarm(warning, alarm)
	}
}

// failedText says how the last sessions ended, and why the last of them did.
func failedText(p past) string {
	one, several, result := "session", "sessions", "failed"
	if p.between {
		one, several = "session that came to its end", "sessions that came to their end"
	}
	switch {
	case p.told.State == catalog.SessionPartial:
		result = "did not succeed with all machines"
	case p.told.report.Result == job.ResultAborted && p.failing > 1:
		result = "were aborted"
	case p.told.report.Result == job.ResultAborted:
		result = "was aborted"
	}
	reason := cmp.Or(p.told.Reason, p.told.report.Reason, "no reason was given")
	if p.failing > 1 {
		return fmt.Sprintf("the last %s %s %s; the last: %s", numbered(p.failing), several, result, reason)
	}
	return fmt.Sprintf("the last %s %s: %s", one, result, reason)
}

// numbered is how many sessions in a row were looked at, which may be all that were.
func numbered(n int) string {
	if n == lookedBack {
		return fmt.Sprint(n, " or more")
	}
	return fmt.Sprint(n)
}

// judgeSchedule raises an alarm if the job has not run when it should have.
func (l *looker) judgeSchedule(j policy.Job, p past) {
	state := l.states[j.Name]
	if _, running := l.live[j.Name]; !running && state.Enabled {
		if due := l.dueSince(j, state); !due.IsZero() && l.now.Sub(due) > grace {
			l.alarm(critical, api.Alarm{Kind: "not-run", Job: j.Name, Since: due.UTC(), Text: "its interval has not begun"})
			return
		}
	}
	if p.last != nil && p.last.State == catalog.SessionNotRun {
		l.alarm(warning, api.Alarm{Kind: "not-run", Job: j.Name, Since: p.last.Boundary, Text: "its last interval was not run: " + p.last.Reason})
	}
}

// dueSince is since when an interval of a job should have begun, by its schedule or because it was asked for; zero: none should.
func (l *looker) dueSince(j policy.Job, state catalog.JobState) time.Time {
	unasked := history(state)
	unasked.Asked = time.Time{}
	switch d := j.Schedule.Due(unasked, l.now); {
	case d.Action != policy.Begin:
		return state.Asked
	case d.Missed.Count > 0:
		return d.Missed.First
	default:
		return d.Begins
	}
}

// judgeWait raises the alarm of a target or of sources that a session waits for, unless one before it has told of that already.
// It is a warning: a disk that is brought in the morning fails nothing. What has waited for too long the ages of the copies tell.
func (l *looker) judgeWait(j policy.Job, p past) {
	live := l.live[j.Name]
	switch waitKind(live.Wait) {
	case job.WaitTarget:
		if s := p.cameToTarget(); s == nil || s.report.Target.State == job.StateReady || s.report.Target.Name != j.Target.Repository {
			l.alarm(warning, api.Alarm{
				Kind: "target", Job: j.Name, Since: live.Started.UTC(), Text: placeText("target", j.Target.Repository, job.PlaceState(live.Wait.State), live.Wait.Reason),
			})
		}
	case job.WaitSource:
		if slices.ContainsFunc(l.awaited(j), func(name string) bool { return !p.looked.lacked(name) }) {
			l.alarm(warning, api.Alarm{Kind: "source", Job: j.Name, Since: live.Started.UTC(), Text: live.Reason})
		}
	}
}

// awaited are the sources that a job's session waits for: one that does not answer, or all, if none of them can be read.
func (l *looker) awaited(j policy.Job) []string {
	if one := l.live[j.Name].Wait.Source; one != "" {
		return []string{one}
	}
	return l.sources(j)
}

// sources are the repositories that a job copies from.
func (l *looker) sources(j policy.Job) (names []string) {
	for _, origin := range l.resources.Origins(j) {
		names = append(names, origin.Repository.Name)
	}
	return names
}

// judgeTarget raises the alarm of a target that the last session ended without, unless the one that runs has it.
func (l *looker) judgeTarget(j policy.Job, p past) {
	s := p.cameToTarget()
	if s == nil || s.report.Target.State == job.StateReady || s.report.Target.Name != j.Target.Repository || l.hasTarget(j, s.report.Target) {
		return // or the job has another target now
	}
	t, level, since := s.report.Target, critical, s.Ended
	switch {
	case p.told != nil && p.lacksTarget(): // and so did all that failed in a row, as far as anybody knows
		since = p.since
	case s.State == catalog.SessionStopped: // it might have come
		level = warning
	}
	l.alarm(level, api.Alarm{Kind: "target", Job: j.Name, Since: since, Text: placeText("target", t.Name, t.State, t.Reason)})
}

// hasTarget is true if a session of a job runs and has the target which the last one ended without. Whether one that was full, or read
// only, still is so only writing to it says.
func (l *looker) hasTarget(j policy.Job, last job.TargetState) bool {
	live, runs := l.live[j.Name]
	if !runs || last.State == job.StateFull || last.State == job.StateReadOnly || waitKind(live.Wait) == job.WaitTarget {
		return false
	}
	switch job.PhaseName(live.Phase) {
	case job.PhaseHealthCheck, job.PhaseSynchronize, job.PhaseTransform, job.PhaseCompact:
		return true
	}
	return false
}

// judgeSources raises the alarms of sources that could not be read as a session looked last, if they are the job's still.
func (l *looker) judgeSources(j policy.Job, p past) {
	if p.looked == nil {
		return
	}
	are := l.sources(j)
	for _, s := range p.looked.report.Sources {
		if s.State != job.StateReady && slices.Contains(are, s.Name) {
			l.alarm(warning, api.Alarm{Kind: "source", Job: j.Name, Since: p.looked.report.Ended, Text: placeText("source", s.Name, s.State, s.Reason)})
		}
	}
}

// judgeFindings raises what sessions found: of damage the last that could read the target, of machines and what they were selected by the
// last that could read a source, and the last one what else it found. What they said of ages is left out: they are counted as of now.
func (l *looker) judgeFindings(j policy.Job, p past) {
	if s := p.atTarget; s != nil && s.report.Target.Name == j.Target.Repository {
		for _, raised := range s.report.Alarms {
			if raised.Kind == job.AlarmDamage {
				l.tellsDamage[j.Name] = true
				l.alarm(critical, api.Alarm{Kind: "damage", Job: j.Name, Since: s.report.Ended, Text: raised.Text})
			}
		}
	}
	told := map[string]bool{}
	for _, s := range []*session{p.listed, p.ran} {
		if s == nil {
			continue
		}
		for _, raised := range s.report.Alarms {
			if raised.Kind == job.AlarmOther && !told[raised.Text] {
				told[raised.Text] = true
				l.alarm(warning, api.Alarm{Kind: "session", Job: j.Name, Since: s.report.Ended, Text: raised.Text})
			}
		}
	}
}

// placeText says what is wrong with a target or a source.
func placeText(what, name string, state job.PlaceState, reason string) string {
	return fmt.Sprintf("%s %s %s: %s", what, name, state.Is(), reason)
}

// The levels of alarms.
const (
	warning  = "warning"
	critical = "critical"
)

func (l *looker) alarm(level string, alarm api.Alarm) {
	alarm.Level = level
	l.status.Alarms = append(l.status.Alarms, alarm)
}

// judgeTrouble raises the alarm of what keeps the server from its work, or from seeing what a job's sources have, unless a session has told
// that of them.
func (l *looker) judgeTrouble(t Trouble) {
	switch told := func(a api.Alarm) bool { return a.Kind == "source" && a.Job == t.Job }; {
	case t.Job == "":
		l.alarm(critical, api.Alarm{Kind: "server", Since: t.Since, Text: backup.SafeText(t.Text)})
	case !slices.ContainsFunc(l.status.Alarms, told):
		l.alarm(warning, api.Alarm{Kind: "source", Job: t.Job, Since: t.Since, Text: backup.SafeText(t.Text)})
	}
}

// kinds of alarms, those first that say most of what is wrong.
var kinds = map[string]int{"server": 0, "rpo": 1, "not-run": 2, "failed": 3, "target": 4, "damage": 5, "space": 6, "source": 7, "lag": 8, "session": 9}

// rank is the place of an alarm's group.
func rank(a api.Alarm) int {
	if a.Level == critical {
		return kinds[a.Kind]
	}
	return len(kinds) + kinds[a.Kind]
}
