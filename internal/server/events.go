package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"ferry/internal/api"
	"ferry/internal/scheduler"
	"ferry/internal/status"
)

const (
	// heartbeat is how often something is sent where nothing happens: who is there learns that we are, and we that nobody is.
	heartbeat = 15 * time.Second
	// lookAgain is when a session is looked at again that no process carries out, or that one has just let go.
	lookAgain = time.Second
)

var errTooSlow = errors.New("events came faster than they were read")

// follower is who follows a session.
type follower struct {
	http.ResponseWriter
	control *http.ResponseController
}

// eventsOperation registers server-sent events.
func (s *Server) eventsOperation(described huma.API, tags []string) {
	operate(s, described, huma.Operation{
		OperationID: "follow-session", Method: http.MethodGet, Path: api.PathEvents, Tags: tags,
		Summary: "Follow a session, by server-sent events",
		Description: "Each event is named as its kind and is an Event in JSON. The first has the session as it stands, with all phases and tasks; " +
			"the last is \"end\". Whoever reads too slowly is cut off, and so is everybody when the server ends: come again, and begin with how it stands then. " +
			"Where nothing happens a comment is sent now and then.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The events",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: schemaOf[api.Event](described)}},
		}},
	}, func(ctx context.Context, input *sessionInput) (*huma.StreamResponse, error) {
		if _, err := s.Catalog.Sessions.Get(ctx, input.ID); err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(stream huma.Context) {
			_, w := humachi.Unwrap(stream)
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-store")
			to := &follower{w, http.NewResponseController(w)}
			if err := s.follow(stream.Context(), to, input.ID); err != nil && stream.Context().Err() == nil {
				s.Log.Info("somebody no longer follows a session", "session", input.ID, "error", err)
			}
		}}, nil
	})
}

// follow tells somebody of a session until it has ended. The error says why it was no longer told.
//
// The events of the scheduler only tell what is new: each time that they end, or begin, the session is told as it stands in
// the catalog. So what was missed meanwhile does not matter.
func (s *Server) follow(ctx context.Context, to *follower, id int64) error {
	for {
		events, cancel := s.Scheduler.Subscribe(id)
		ended, err := s.tellWhole(ctx, to, id)
		if err == nil && !ended {
			err = s.tellEvents(ctx, to, events)
		}
		cancel()
		if err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ending:
			return nil
		case <-time.After(lookAgain):
		}
	}
}

// tellWhole tells how the session stands, and that it has ended if it has.
func (s *Server) tellWhole(ctx context.Context, to *follower, id int64) (ended bool, err error) {
	session, err := s.session(ctx, id)
	if err != nil {
		return false, err
	}
	if err := to.tell(api.Event{Kind: api.EventSession, Session: &session}); err != nil || session.Ended.IsZero() {
		return false, err
	}
	return true, to.tell(api.Event{Kind: api.EventEnd, Session: &session})
}

// tellEvents tells what happens until the events end.
func (s *Server) tellEvents(ctx context.Context, to *follower, events <-chan scheduler.Event) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ending:
			return nil
		case <-beat.C:
			if err := to.write(": nothing new\n\n"); err != nil {
				return err
			}
		case event, more := <-events:
			switch {
			case !more:
				return nil
			case len(events) > 0 && len(events) >= cap(events)-1: // it was full: something may have been left out
				return errTooSlow
			}
			if err := to.tell(eventOf(event)); err != nil {
				return err
			}
		}
	}
}

func eventOf(e scheduler.Event) api.Event {
	event := api.Event{Kind: string(e.Kind)}
	if e.Session != nil {
		session := status.Session(*e.Session)
		event.Session = &session
	}
	if e.Phase != nil {
		phase := status.Phase(*e.Phase)
		event.Phase = &phase
	}
	if e.Task != nil {
		task := status.Task(*e.Task)
		event.Task = &task
	}
	return event
}

// tell writes an event.
func (f *follower) tell(e api.Event) error {
	content, err := json.Marshal(e) // on one line
	if err != nil {
		return err
	}
	return f.write(fmt.Sprintf("event: %s\ndata: %s\n\n", e.Kind, content))
}

// write has the follower see it now. One who does not take it in time is not waited for, see timedWriter.
func (f *follower) write(text string) error {
	if _, err := f.ResponseWriter.Write([]byte(text)); err != nil {
		return err
	}
	return f.control.Flush()
}
