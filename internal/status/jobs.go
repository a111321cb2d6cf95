package status

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

const (
	// lookedBack is how many of a job's sessions are looked at: for the last that ran, and since when it has been failing; and how
	// many of those that copied, for their pace.
	lookedBack = 10
	// grace is how late an interval may begin before that is an alarm.
	grace = 10 * time.Minute
)

// past is what a job's last sessions came to.
type past struct {
	// last is the newest session that has ended, ran the newest that ran, tried the newest of those that says how machines fare; nil:
	// there is none. One whose time ended before it copied anything, as with a closed window, does not.
	last, ran, tried *catalog.Session
	// failing counts the sessions in a row, up to tried, that ended as it did, since the first of them ended.
	failing int
	since   time.Time
	// report is that of ran; nil: there is none.
	report *report
	// copied are the bytes of points that the last sessions which copied anything have copied, copying how long they were at it.
	copied  int64
	copying time.Duration
}

// report is what is read of a session's report.
type report struct {
	Ended   time.Time         `json:"ended"`
	Result  job.Result        `json:"result"`
	Reason  string            `json:"reason"`
	Target  job.TargetState   `json:"target"`
	Sources []job.SourceState `json:"sources"`
	Alarms  []job.Alarm       `json:"alarms"`
	Tasks   []struct {
		Machine job.TaskMachine `json:"machine"`
		Behind  string          `json:"behind"`
		Mapped  *job.MappedCopy `json:"mapped"`
	} `json:"tasks"`
}

// behind says by machine's id what helps those that are always one interval behind.
func (r *report) behind() map[string]string {
	behind := map[string]string{}
	if r != nil {
		for _, task := range r.Tasks {
			behind[task.Machine.ID] = task.Behind
		}
	}
	return behind
}

// mapped says by machine's id which copies machines have that target.map links with others.
func (r *report) mapped() map[string]job.MappedCopy {
	mapped := map[string]job.MappedCopy{}
	if r != nil {
		for _, task := range r.Tasks {
			if task.Mapped != nil {
				mapped[task.Machine.ID] = *task.Mapped
			}
		}
	}
	return mapped
}

// past looks at a job's last sessions.
func (l *looker) past(ctx context.Context, name string) (p past, err error) {
	sessions, err := l.catalog.Sessions.Of(ctx, name, 0, lookedBack)
	if err != nil {
		return p, err
	}
	paced, err := l.catalog.Sessions.Copied(ctx, name, lookedBack) // hours may pass in which there is nothing to copy
	if err != nil {
		return p, err
	}
	for _, session := range paced {
		p.copied += session.Counts["pointBytes"]
		p.copying += time.Duration(session.Counts["copyMilliseconds"]) * time.Millisecond
	}
	for _, session := range sessions {
		if session.Ended.IsZero() {
			continue
		}
		if p.last == nil {
			p.last = &session
		}
		if session.State == catalog.SessionNotRun {
			continue
		}
		if p.ran == nil {
			p.ran = &session
		}
		switch {
		case session.State == catalog.SessionExpired && session.Counts["copied"]+session.Counts["claimed"] == 0:
			continue
		case p.tried == nil:
			p.tried = &session
		case p.tried.State != session.State:
			return l.reported(ctx, p)
		}
		p.failing++
		p.since = session.Ended
	}
	return l.reported(ctx, p)
}

// reported is the past with its report.
func (l *looker) reported(ctx context.Context, p past) (past, error) {
	if p.ran == nil {
		return p, nil
	}
	text, err := l.catalog.Sessions.Report(ctx, p.ran.ID)
	if err != nil || len(text) == 0 {
		return p, err
	}
	p.report = &report{}
	if err := json.Unmarshal(text, p.report); err != nil {
		return p, fmt.Errorf("the report of session %d: %w", p.ran.ID, err)
	}
	return p, nil
}

// lastOf is the newest session of a job that has ended; nil: none has.
func (l *looker) lastOf(ctx context.Context, name string) (*catalog.Session, error) {
	sessions, err := l.catalog.Sessions.Of(ctx, name, 0, 2) // one of them may not have ended
	if err != nil {
		return nil, err
	}
	for _, session := range sessions {
		if !session.Ended.IsZero() {
			return &session, nil
		}
	}
	return nil, nil
}

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
	if p.tried != nil {
		l.judgeResult(j, p)
	}
	if p.report != nil {
		l.judgeReport(j, p)
	}
}

// judgeResult raises the alarm of sessions that failed. One whose time ended, while machines waited, raises none: the ages of the copies
// tell what has waited for too long. It ends the alarm of one that failed as a whole before, since it came further, and only if it copied
// something that of one which failed with some machines.
func (l *looker) judgeResult(j policy.Job, p past) {
	result, reason := resultOf(p)
	alarm := api.Alarm{Kind: "failed", Job: j.Name, Since: p.since, Text: fmt.Sprintf("the last session %s: %s", result, cmp.Or(reason, "no reason was given"))}
	if p.failing > 1 {
		alarm.Text = fmt.Sprintf("the last %s sessions %s; the last: %s", numbered(p.failing), result, cmp.Or(reason, "no reason was given"))
	}
	newest := p.tried == p.ran
	ofTarget := newest && p.report != nil && (p.report.Result == job.ResultWaits || p.report.Result == job.ResultRefused) && p.report.Target.State != job.StateReady
	switch {
	case ofTarget: // which is an alarm of its own
	case newest && p.tried.State == catalog.SessionFailed:
		l.alarm(critical, alarm)
	case p.tried.State == catalog.SessionPartial:
		l.alarm(warning, alarm)
	}
}

// numbered is how many sessions in a row were looked at, which may be all that were.
func numbered(n int) string {
	if n == lookedBack {
		return fmt.Sprint(n, " or more")
	}
	return fmt.Sprint(n)
}

// resultOf is how the last session ended that tried, in words that follow its name.
func resultOf(p past) (result, reason string) {
	result, reason = "failed", p.tried.Reason
	if p.tried.State == catalog.SessionPartial {
		result = "did not succeed with all machines"
	}
	if p.report == nil || p.tried != p.ran {
		return result, reason
	}
	switch p.report.Result {
	case job.ResultRefused:
		result = "was refused"
	case job.ResultAborted:
		result = "was aborted"
	case job.ResultDone, job.ResultPartly, job.ResultFailed, job.ResultWaits, job.ResultInterrupted:
	}
	return result, cmp.Or(reason, p.report.Reason)
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

// judgeWait raises the alarm of a target or of sources that a session waits for, unless the one before it has told of that already.
// It is a warning: a disk that is brought in the morning fails nothing. What has waited for too long the ages of the copies tell.
func (l *looker) judgeWait(j policy.Job, p past) {
	live := l.live[j.Name]
	last := report{Target: job.TargetState{State: job.StateReady}}
	if p.report != nil {
		last = *p.report
	}
	switch kind := waitKind(live.Wait); {
	case kind == job.WaitTarget && last.Target.State == job.StateReady:
		l.alarm(warning, api.Alarm{
			Kind: "target", Job: j.Name, Since: live.Started.UTC(), Text: placeText("target", j.Target.Repository, job.PlaceState(live.Wait.State), live.Wait.Reason),
		})
	case kind == job.WaitSource && !slices.ContainsFunc(last.Sources, func(s job.SourceState) bool { return s.State != job.StateReady }):
		l.alarm(warning, api.Alarm{Kind: "source", Job: j.Name, Since: live.Started.UTC(), Text: live.Reason})
	}
}

// judgeReport raises what the last session found. What it said of ages is left out: they are counted as of now.
func (l *looker) judgeReport(j policy.Job, p past) {
	r := p.report
	if t := r.Target; t.State != job.StateReady && t.State != "" {
		level := critical
		if p.ran.State == catalog.SessionStopped { // it might have come
			level = warning
		}
		l.alarm(level, api.Alarm{Kind: "target", Job: j.Name, Since: p.since, Text: placeText("target", t.Name, t.State, t.Reason)})
	}
	for _, s := range r.Sources {
		if s.State != job.StateReady {
			l.alarm(warning, api.Alarm{Kind: "source", Job: j.Name, Since: r.Ended, Text: placeText("source", s.Name, s.State, s.Reason)})
		}
	}
	for _, raised := range r.Alarms {
		alarm := api.Alarm{Kind: "session", Job: j.Name, Since: r.Ended, Text: raised.Text}
		switch raised.Kind {
		case job.AlarmAge:
		case job.AlarmDamage:
			alarm.Kind = "damage"
			l.alarm(critical, alarm)
		case job.AlarmOther:
			l.alarm(warning, alarm)
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

// kinds of alarms, those first that say most of what is wrong.
var kinds = map[string]int{"rpo": 0, "not-run": 1, "failed": 2, "target": 3, "damage": 4, "space": 5, "source": 6, "lag": 7, "session": 8}

// rank is the place of an alarm's group.
func rank(a api.Alarm) int {
	if a.Level == critical {
		return kinds[a.Kind]
	}
	return len(kinds) + kinds[a.Kind]
}
