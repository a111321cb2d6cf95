package scheduler

import (
	"sync"

	"ferry/internal/catalog"
)

// EventKind says what an event is about.
type EventKind string

// The kinds of events.
const (
	// EventSession: the session's state, phase or reason is another one.
	EventSession EventKind = "session"
	// EventPhase: a phase began or ended.
	EventPhase EventKind = "phase"
	// EventTask: a machine's work began, came on or ended.
	EventTask EventKind = "task"
)

// Event is something that happened in a session. What belongs to its kind is set.
type Event struct {
	Kind    EventKind
	Session *catalog.Session
	Phase   *catalog.Phase
	Task    *catalog.Task
}

// eventsKept is how many events wait for a subscriber. One who is slower misses some, never the end.
const eventsKept = 256

// broker hands events to those who subscribed to a session.
type broker struct {
	mu          sync.Mutex
	subscribers map[int64]map[chan Event]bool
}

// Subscribe gives the events of a session from now on. The channel is closed when the session has ended, or is carried out by
// another process; what it came to is in the catalog then. cancel ends the subscription.
func (s *Scheduler) Subscribe(session int64) (events <-chan Event, cancel func()) {
	channel := make(chan Event, eventsKept)
	b := &s.events
	s.mu.Lock() // so that no session ends between the two
	defer s.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	live := false
	for _, r := range s.running {
		live = live || r.session.ID == session
	}
	if !live {
		close(channel)
		return channel, func() {}
	}
	if b.subscribers == nil {
		b.subscribers = map[int64]map[chan Event]bool{}
	}
	if b.subscribers[session] == nil {
		b.subscribers[session] = map[chan Event]bool{}
	}
	b.subscribers[session][channel] = true
	return channel, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.subscribers[session][channel] {
			delete(b.subscribers[session], channel)
			close(channel)
		}
	}
}

// publish hands an event to all who want it and have room.
func (b *broker) publish(session int64, e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for channel := range b.subscribers[session] {
		select {
		case channel <- e:
		default:
		}
	}
}

// wanted is true if somebody subscribed to a session.
func (b *broker) wanted(session int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers[session]) > 0
}

// end closes the channels of a session.
func (b *broker) end(session int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for channel := range b.subscribers[session] {
		close(channel)
	}
	delete(b.subscribers, session)
}
