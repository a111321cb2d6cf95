package job

import (
	"cmp"
	"time"

	"ferry/internal/backup"
)

// WaitKind is the kind of what a session waits for.
type WaitKind string

// The kinds of waits.
const (
	// WaitTarget: the target is not ready. That may not pass by itself.
	WaitTarget WaitKind = "target"
	// WaitSource: none of the sources can be read, or one does not answer. Nor may that.
	WaitSource WaitKind = "source"
	WaitWindow WaitKind = "window"
	// WaitLock: the newest points of machines are still being written.
	WaitLock WaitKind = "lock"
	// WaitPoint: the job looks forward, and of machines no point was made since the interval began.
	WaitPoint WaitKind = "point"
	// WaitSlot: other jobs have all slots.
	WaitSlot WaitKind = "slot"
	// WaitRetry: what failed may do better a little later.
	WaitRetry WaitKind = "retry"
)

// Wait is what a session waits for. The zero value: it does not wait.
type Wait struct {
	Kind WaitKind
	// Text says what for, and why.
	Text string
	// State is what the target was found to be, and Reason why; of sources, what all of them are. Empty for other kinds.
	State  PlaceState
	Reason string
	// Source is the one source that does not answer, by its repository; empty: none can be read, or it is no source.
	Source string
	// Until is when the session goes on by itself; zero: that is not known.
	Until time.Time
}

// waitFor is a wait for anything but the target.
func waitFor(kind WaitKind, text string) Wait { return Wait{Kind: kind, Text: backup.SafeText(text)} }

// till is a wait whose end is known.
func (w Wait) till(end time.Time) Wait {
	w.Until = end.UTC().Round(0) // two of the same time are equal
	return w
}

// targetWait is a wait for the target, which is not ready.
func (r *runner) targetWait() Wait {
	target := r.session.Target
	return Wait{Kind: WaitTarget, Text: r.targetReason(), State: target.State, Reason: target.Reason}
}

// waits tells what the session waits for, if that is something else than before.
func (r *runner) waits(wait Wait) { r.tell(func() { r.waiting = wait }) }

// tell changes what the session waits for, and tells that: before all a place that does not answer.
func (r *runner) tell(change func()) {
	r.telling.Lock()
	defer r.telling.Unlock()
	change()
	if wait := cmp.Or(r.silent, r.waiting); r.Host.Waits != nil && wait != r.waitsFor {
		r.waitsFor = wait
		r.Host.Waits(wait)
	}
}

// block notes in a phase that it waits, and for what.
func (r *runner) block(phase *Phase, wait Wait) {
	phase.State, phase.Reason = PhaseWaits, wait.Text
	r.blocked = wait
}
