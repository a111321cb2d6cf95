package scheduler_test

import (
	"maps"
	"testing"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/scheduler"
)

// While the window is closed no machine is in progress: what was copied when it closed waits, and says what of it is kept. When it opens the
// copies go on from there, and what they come to is told again, at the pace of that attempt.
func TestNothingIsInProgressAfterTheEndOfTheWindow(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.job("offsite", "schedule: {mode: manual}\nwindow: {allow: [\"00:00-06:00\"]}")
		l.begin()
		var blocked []chan struct{}
		for _, machine := range []string{"a", "b", "c"} {
			_, of := l.slow(machine)
			blocked = append(blocked, of)
		}
		id, err := l.Start(l.t.Context(), "offsite", scheduler.Start{}) // at midnight
		l.must(err)
		states := func() (running, kept, waiting int) {
			l.t.Helper()
			tasks, err := l.catalog.Tasks.Of(l.t.Context(), id)
			l.must(err)
			for _, task := range tasks {
				switch task.State {
				case catalog.TaskRunning:
					running++
				case catalog.TaskWaiting:
					waiting++
					if task.Progress.Kept > 0 && task.Reason == "the window has closed" && task.Attempts == 0 {
						kept++
					}
				}
			}
			return running, kept, waiting
		}
		attempts := map[time.Duration]int{} // of the copies begun last at a time, how many found something kept
		begun := func() {
			tasks, err := l.catalog.Tasks.Of(l.t.Context(), id)
			l.must(err)
			clear(attempts)
			for _, task := range tasks {
				if at := task.Progress.Attempt; !at.IsZero() {
					attempts[at.Sub(task.Queued).Round(time.Hour)] += min(int(task.Progress.Resumed), 1)
				}
			}
		}
		l.pass(time.Hour)
		if begun(); !maps.Equal(attempts, map[time.Duration]int{0: 0}) {
			l.t.Errorf("begun at first: %v", attempts)
		}
		if running, _, waiting := states(); running != 2 || waiting != 1 {
			l.t.Fatalf("while the window is open %d are in progress and %d wait", running, waiting)
		}
		l.pass(5*time.Hour - time.Second)
		go func() {
			time.Sleep(2 * time.Second) // the reads in flight come to their end
			for _, of := range blocked {
				close(of)
			}
		}()
		l.pass(31 * time.Second)
		l.last("offsite", catalog.SessionWaiting)
		if running, kept, waiting := states(); running != 0 || kept != 2 || waiting != 3 {
			l.t.Errorf("after its end %d are in progress, and %d wait, %d of them with what is kept", running, waiting, kept)
		}
		l.pass(19 * time.Hour)
		if last := l.last("offsite", catalog.SessionDone); last.Counts["copied"] != 3 {
			l.t.Errorf("%+v", last)
		}
		if begun(); !maps.Equal(attempts, map[time.Duration]int{24 * time.Hour: 2}) {
			l.t.Errorf("begun when it opened again: %v", attempts)
		}
		if running, _, waiting := states(); running != 0 || waiting != 0 {
			l.t.Errorf("in the end %d are in progress and %d wait", running, waiting)
		}
	})
}
