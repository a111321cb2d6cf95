package status

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
)

// lookedBack is how many of a job's sessions are looked at: of those that say how machines fare, for since when they have been failing; and
// of those that copied, for their pace.
const lookedBack = 10

// past is what a job's last sessions came to. What one of them did not look at, another one says that did: sessions whose window is closed
// end every hour, or minute, and say nothing of sources and machines.
type past struct {
	// last is the newest session that has ended; nil: there is none.
	last *catalog.Session
	// ran is the newest that ran, told the newest that says how machines fare: not one whose time ended, or that was stopped, before it had
	// copied anything, or had come to the machines that failed in the one before.
	ran, told *session
	// failing counts those in a row, up to told, that ended as it did, since the first of them ended. between: others ran meanwhile.
	failing int
	since   time.Time
	between bool
	// looked is the newest that looked at the sources, listed the newest that could read one of them at least, and atTarget the newest that
	// could read the target as it ended, so that it says what is damaged and verified there.
	looked, listed, atTarget *session
	// copied are the bytes of points that the last sessions which copied anything have copied, copying how long they were at it.
	copied  int64
	copying time.Duration
}

// session is one that has ended, and its report.
type session struct {
	catalog.Session
	report report
}

// after is true if a session is newer than another. That there is none is older than any.
func (s *session) after(other *session) bool {
	return s != nil && (other == nil || s.ID > other.ID)
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
		State   job.TaskState   `json:"state"`
		Behind  string          `json:"behind"`
		Mapped  *job.MappedCopy `json:"mapped"`
	} `json:"tasks"`
}

// behind says by machine's id what helps those that are always one interval behind.
func (s *session) behind() map[string]string {
	behind := map[string]string{}
	if s != nil {
		for _, task := range s.report.Tasks {
			behind[task.Machine.ID] = task.Behind
		}
	}
	return behind
}

// mapped says by machine's id which copies machines have that target.map links with others.
func (s *session) mapped() map[string]job.MappedCopy {
	mapped := map[string]job.MappedCopy{}
	if s != nil {
		for _, task := range s.report.Tasks {
			if task.Mapped != nil {
				mapped[task.Machine.ID] = *task.Mapped
			}
		}
	}
	return mapped
}

// readAll is true if the session could read all sources.
func (s *session) readAll() bool {
	return s != nil && !slices.ContainsFunc(s.report.Sources, func(of job.SourceState) bool { return of.State != job.StateReady })
}

// readSource is true if the session could read a source.
func (s *session) readSource() bool {
	return slices.ContainsFunc(s.report.Sources, func(of job.SourceState) bool { return of.State == job.StateReady })
}

// lacked is true if the session could not read a source of a name.
func (s *session) lacked(name string) bool {
	return s != nil && slices.ContainsFunc(s.report.Sources, func(of job.SourceState) bool { return of.Name == name && of.State != job.StateReady })
}

// cameToTarget is the newest session that came to its target, whatever it found there; nil: there is none.
func (p past) cameToTarget() *session {
	for _, s := range []*session{p.ran, p.told} {
		if s != nil && s.report.Target.State != "" {
			return s
		}
	}
	return nil
}

// lacksTarget is true if the session that says last how machines fare could not do without its target.
func (p past) lacksTarget() bool {
	r := p.told.report
	return (r.Result == job.ResultWaits || r.Result == job.ResultRefused) && r.Target.State != job.StateReady
}

// past looks at a job's last sessions.
func (l *looker) past(ctx context.Context, name string) (p past, err error) {
	newest, err := l.catalog.Sessions.Of(ctx, name, 0, lookedBack+1) // one of them may not have ended
	if err != nil {
		return p, err
	}
	standing, err := l.catalog.Sessions.Standing(ctx, name, lookedBack)
	if err != nil {
		return p, err
	}
	paced, err := l.catalog.Sessions.Copied(ctx, name, lookedBack) // hours may pass in which there is nothing to copy
	if err != nil {
		return p, err
	}
	for _, of := range paced {
		p.copied += of.Counts["pointBytes"]
		p.copying += time.Duration(of.Counts["copyMilliseconds"]) * time.Millisecond
	}
	p.last = newestEnded(newest)
	if standing.Told, err = l.unanswered(ctx, standing.Told); err != nil {
		return p, err
	}
	p.countFailing(newest, standing.Told)
	var told *catalog.Session
	if len(standing.Told) > 0 {
		told = &standing.Told[0]
	}
	read := map[int64]*session{}
	for _, one := range []struct {
		of *catalog.Session
		to **session
	}{{standing.Ran, &p.ran}, {told, &p.told}, {standing.Looked, &p.looked}, {standing.Listed, &p.listed}, {standing.AtTarget, &p.atTarget}} {
		if one.of == nil {
			continue
		}
		if read[one.of.ID] == nil {
			if read[one.of.ID], err = l.reported(ctx, *one.of); err != nil {
				return p, err
			}
		}
		*one.to = read[one.of.ID]
	}
	return p, nil
}

// unanswered leaves out of sessions that say how machines fare the newest ones that ended early, if they did not come to a machine that had
// failed in the one before them: a session that was stopped after its first machine says nothing of the others.
func (l *looker) unanswered(ctx context.Context, told []catalog.Session) ([]catalog.Session, error) {
	ended := slices.IndexFunc(told, func(of catalog.Session) bool {
		return of.State != catalog.SessionStopped && of.State != catalog.SessionExpired
	})
	if ended <= 0 || told[ended].State == catalog.SessionDone {
		return told, nil
	}
	waits := map[string]bool{} // machines that the newest session has, and none that ended early was done with
	for i, of := range told[:ended] {
		s, err := l.reported(ctx, of)
		if err != nil {
			return nil, err
		}
		for _, task := range s.report.Tasks {
			if task.State == job.TaskCopied || task.State == job.TaskUpToDate {
				delete(waits, task.Machine.ID)
			} else if i == 0 {
				waits[task.Machine.ID] = true
			}
		}
	}
	before, err := l.reported(ctx, told[ended])
	if err != nil {
		return nil, err
	}
	for _, task := range before.report.Tasks {
		if task.State == job.TaskFailed && waits[task.Machine.ID] {
			return told[ended:], nil
		}
	}
	return told, nil
}

// countFailing counts the sessions in a row that ended as the newest of those did that say how machines fare.
func (p *past) countFailing(newest, told []catalog.Session) {
	counted := map[int64]bool{}
	for _, of := range told {
		if of.State != told[0].State {
			break
		}
		counted[of.ID] = true
		p.failing++
		p.since = of.Ended
	}
	p.between = slices.ContainsFunc(newest, func(of catalog.Session) bool {
		return of.Ended.After(p.since) && of.State != catalog.SessionNotRun && !counted[of.ID]
	})
}

// reported is a session with its report; one that has none says nothing.
func (l *looker) reported(ctx context.Context, of catalog.Session) (*session, error) {
	s := &session{Session: of}
	text, err := l.catalog.Sessions.Report(ctx, of.ID)
	if err != nil || len(text) == 0 {
		return s, err
	}
	if err := json.Unmarshal(text, &s.report); err != nil {
		return nil, fmt.Errorf("the report of session %d: %w", of.ID, err)
	}
	return s, nil
}

// newestEnded is the first of a job's sessions, newest first, that has ended; nil: none has.
func newestEnded(sessions []catalog.Session) *catalog.Session {
	for i := range sessions {
		if !sessions[i].Ended.IsZero() {
			return &sessions[i]
		}
	}
	return nil
}
