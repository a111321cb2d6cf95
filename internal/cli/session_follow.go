package cli

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"ferry/internal/api"
	"ferry/internal/client"
	"ferry/internal/job"
)

// follow shows the progress of a session until it has ended, then its report. A server that goes meanwhile is waited for: its
// sessions are taken up when it is back.
func (a *app) follow(ctx context.Context, at *asked, id int64) error {
	a.interrupted = fmt.Sprintf("session %d goes on; ferry session follow %d shows it again, ferry job stop ends it", id, id)
	shown := &following{app: a, bars: a.newBars(), tasks: map[int64]*followed{}}
	err := shown.until(ctx, at, id)
	shown.end()
	if err != nil {
		return err
	}
	session, err := at.client().Session(ctx, id)
	if err != nil {
		return at.failed(err)
	}
	return a.outcome(session)
}

// following is a session as it is shown.
type following struct {
	app   *app
	bars  *bars
	tasks map[int64]*followed
	// phase and reason were told last; began is when the phase began.
	phase, reason string
	began         time.Time
}

// say tells something that happened. With --json only the document counts, which comes when the session has ended.
func (f *following) say(format string, args ...any) {
	if !f.app.json {
		f.app.say(format, args...)
	}
}

// followed is a machine of the session.
type followed struct {
	done, total atomic.Int64
	// drawn is true once a bar shows it, which end ends.
	drawn bool
	end   func()
	// told is true once it was said what became of it.
	told bool
}

const (
	// returnsWithin is how long a server that has gone is waited for, and lookAfter when it is asked again.
	returnsWithin = 2 * time.Minute
	lookAfter     = 2 * time.Second
)

// until shows events until the session has ended.
func (f *following) until(ctx context.Context, at *asked, id int64) error {
	for gone := time.Duration(0); ; gone += lookAfter {
		err := at.client().Follow(ctx, id, func(e api.Event) error {
			gone = 0
			f.show(e)
			return nil
		})
		switch {
		case !errors.Is(err, client.ErrNoServer):
			return at.failed(err)
		case gone >= returnsWithin:
			return hinted(exitWith(ExitFailed, "the server has gone"), f.app.interrupted)
		case gone == 0:
			f.say("the server has gone; waiting for it to come back")
		}
		if err := at.pause(ctx, lookAfter); err != nil {
			return err
		}
	}
}

// show shows an event.
func (f *following) show(e api.Event) {
	if e.Session != nil {
		f.whole(e.Session)
		if reason := e.Session.Reason; reason != "" && reason != f.reason && e.Session.State == "waiting" {
			f.say("waits: %s", readable(reason))
		}
		f.reason = e.Session.Reason
	}
	if e.Phase != nil {
		f.enters(*e.Phase)
	}
	if e.Task != nil {
		f.task(*e.Task)
	}
}

// whole tells what a session has come to while it was not followed, in the order in which it happened: so it does not matter
// how soon after its beginning somebody looks.
func (f *following) whole(s *api.Session) {
	tasks := s.Tasks
	for _, phase := range s.Phases {
		for len(tasks) > 0 && !tasks[0].Ended.IsZero() && tasks[0].Ended.Before(phase.Began) {
			f.task(tasks[0])
			tasks = tasks[1:]
		}
		f.enters(phase)
	}
	for _, t := range tasks {
		f.task(t)
	}
}

// enters tells that the session has entered a phase, if it was not told yet. A session is told whole in the midst of its events:
// some of those that come next are older. That its record is written down at the end says nothing to a person.
func (f *following) enters(phase api.Phase) {
	if phase.State == "skipped" || phase.Name == string(job.PhaseReport) || phase.Name == f.phase || phase.Began.Before(f.began) {
		return
	}
	f.phase, f.began = phase.Name, phase.Began
	f.say("phase: %s", readable(phase.Name))
}

// task shows how far a machine is, once its size is known: a bar has to know its end.
func (f *following) task(t api.Task) {
	shown := f.tasks[t.ID]
	if shown == nil {
		shown = &followed{end: func() {}}
		f.tasks[t.ID] = shown
	}
	if shown.told {
		return
	}
	if t.State != "running" && shown.drawn {
		shown.end()
		shown.drawn, shown.end = false, func() {}
	}
	switch {
	case t.State == "done", t.State == "failed":
		shown.told = true
		f.ended(t)
	case t.State == "running" && t.Total > 0:
		shown.total.Store(t.Total)
		shown.done.Store(t.Done)
		if !shown.drawn {
			shown.drawn = true
			shown.end = f.bars.add(machineName(t.Machine), shown.total.Load, shown.done.Load)
		}
	}
}

// ended tells what became of a machine.
func (f *following) ended(t api.Task) {
	if t.State == "done" {
		f.say("copied  %s  %s  %s  read %s  stored %s", machineName(t.Machine), when(t.Created), size(t.Total), size(t.Read), size(t.Written))
	} else if !f.app.json {
		f.app.line("FAILED  %s  %s", machineName(t.Machine), readable(t.Reason))
	}
}

// end ends all bars.
func (f *following) end() {
	for _, t := range f.tasks {
		t.end()
	}
	f.bars.done()
}
