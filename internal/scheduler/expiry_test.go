package scheduler_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/policy"
	"ferry/internal/scheduler"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/status"
)

const (
	slowBlock = 4096
	slowRead  = 2 * time.Second
	slowPiece = 10 * time.Second
)

// addSlow adds a point of so many blocks, each of which takes slowRead, whoever reads.
func (l *lab) addSlow(machine string, reads int) *sourcetest.Point {
	p := l.addSized(machine, reads*2*slowBlock)
	var extents []backup.Extent
	for i := range reads {
		at := int64(i * 2 * slowBlock)
		binary.LittleEndian.PutUint64(p.Objects[0].Data[at:], uint64(i)<<16|uint64(len(l.points["pve"])))
		extents = append(extents, backup.Extent{Offset: at, Length: slowBlock, Kind: backup.ExtentData}, backup.Extent{Offset: at + slowBlock, Length: slowBlock, Kind: backup.ExtentZero})
	}
	turn := make(chan struct{}, 1)
	l.with(func() {
		p.Objects[0].Extents = func(*backup.Base) []backup.Extent { return extents }
		p.OnRead = func(_ int, _ int64, n int) (int, error) {
			turn <- struct{}{}
			time.Sleep(slowRead)
			<-turn
			return n, nil
		}
	})
	return p
}

// addSlowStream adds a point that can only be read from its beginning, in so many pieces of slowPiece each.
func (l *lab) addSlowStream(machine string, pieces int) *sourcetest.Point {
	p := l.addSized(machine, pieces*source.SinkGrain)
	for at := 0; at < len(p.Objects[0].Data); at += slowBlock {
		binary.LittleEndian.PutUint64(p.Objects[0].Data[at:], uint64(at)<<16|uint64(len(l.points["pve"])))
	}
	l.with(func() {
		p.Objects[0].Access = source.AccessOnePass
		p.OnPiece = func(sourcetest.Piece) error {
			time.Sleep(slowPiece)
			return nil
		}
	})
	return p
}

// story is what the sessions of a job came to: "10m expired 2 copied 2 removed".
func (l *lab) story(of string, start time.Time) (told []string) {
	l.t.Helper()
	for _, s := range l.sessions(of) {
		text := fmt.Sprintf("%s %s %d copied %d removed", s.Boundary.Sub(start), s.State, s.Counts["copied"], s.Counts["removed"])
		if s.Ended.IsZero() {
			text = fmt.Sprintf("%s %s", s.Boundary.Sub(start), s.State)
		}
		told = append(told, strings.Replace(text, "m0s", "m", 1))
	}
	return told
}

func (l *lab) wantStory(of string, start time.Time, want ...string) {
	l.t.Helper()
	if got := l.story(of, start); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		l.t.Errorf("sessions:\n%s\nwant first:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// copies counts how often the copy of a point has come to its end, and how often it has begun.
func (l *lab) copies(of string, p *sourcetest.Point) (done, begun int) {
	l.t.Helper()
	for _, session := range l.sessions(of) {
		tasks, err := l.catalog.Tasks.Of(l.t.Context(), session.ID)
		l.must(err)
		for _, task := range tasks {
			if task.Point != nil && *task.Point == p.ID() && task.Progress.Done > 0 {
				begun++
				if task.State == catalog.TaskDone {
					done++
				}
			}
		}
	}
	return done, begun
}

// alarms are those of the jobs as `ferry status` tells them, beside that they fall behind.
func (l *lab) alarms() (told []string) {
	l.t.Helper()
	var files []policy.File
	for _, kind := range []string{"Repository", "Job"} {
		list, err := l.catalog.Resources.List(l.t.Context(), false, kind)
		l.must(err)
		for _, r := range list {
			files = append(files, policy.File{Name: r.Name, Content: []byte(r.Document)})
		}
	}
	resources, err := policy.Parse(files...)
	l.must(err)
	now, err := status.Of(l.t.Context(), l.catalog, resources, l.now(), status.Options{Machines: -1})
	l.must(err)
	for _, a := range now.Alarms {
		if a.Kind == "lag" {
			continue
		}
		told = append(told, fmt.Sprintf("%s %s: %s", a.Level, a.Kind, a.Text))
	}
	return told
}

// Of a machine whose copy takes longer than an interval the others do not wait: each has its point in its interval, retention runs at each
// boundary, and the long copy goes on in the next interval, is read once and finished once. With one slot the others have theirs first.
func TestNoMachineWaitsForAnother(t *testing.T) {
	for _, c := range []struct {
		slots int
		want  []string
	}{
		{2, []string{"0s expired 2 copied 0 removed", "10m expired 2 copied 2 removed", "20m done 3 copied 2 removed"}},
		{1, []string{"0s expired 0 copied 0 removed", "10m expired 2 copied 0 removed", "20m done 3 copied 2 removed"}},
	} {
		t.Run(fmt.Sprint(c.slots, " slots"), func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.slots = c.slots
				huge := l.addSlow("a", 750) // the first in the job's order
				l.add("b")
				l.add("c")
				l.job("offsite", "schedule: {every: 10m}\nretention: {points: 1}")
				start := time.Now()
				l.begin()
				for range 2 {
					l.pass(9 * time.Minute)
					if told := l.alarms(); len(told) > 0 {
						l.t.Errorf("alarms after %s: %s", time.Since(start), told)
					}
					l.pass(30 * time.Second)
					l.add("b")
					l.add("c")
					l.pass(30 * time.Second)
				}
				l.pass(9 * time.Minute)
				l.wantStory("offsite", start, c.want...)
				if done, begun := l.copies("offsite", huge); done != 1 || begun != 3 {
					l.t.Errorf("the long copy came %d times to its end and began %d times", done, begun)
				}
				// What was being read at a boundary is read again: by four readers, and what was read and not stored yet.
				if read, whole := huge.Read.Load(), int64(750*slowBlock); read > whole+2*10*slowBlock || read < whole {
					l.t.Errorf("%d bytes of %d were read", read, whole)
				}
				if points, err := l.catalog.Mirror.All(l.t.Context(), "vault"); err != nil || len(points) != 3 {
					l.t.Errorf("the target has %d points, %v", len(points), err)
				}
				if told := l.alarms(); len(told) > 0 {
					l.t.Errorf("alarms: %s", told)
				}
			})
		})
	}
}

// Where there are not slots enough for all, who had no turn is the first of the next interval: a long copy comes to its end though the
// others alone take all the time.
func TestMachinesTakeTurnsWithOneSlot(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.slots = 1
		huge := l.addSlow("a", 400)
		l.job("offsite", "schedule: {every: 10m}")
		l.begin()
		for range 4 {
			l.pass(9*time.Minute + 30*time.Second)
			l.addSlow("b", 160)
			l.addSlow("c", 160)
			l.pass(30 * time.Second)
		}
		if done, begun := l.copies("offsite", huge); done != 1 || begun != 2 {
			l.t.Errorf("the long copy came %d times to its end and began %d times", done, begun)
		}
	})
}

// A stream that can only be read from its beginning is read again when it is taken up. Its copy is not ended at a boundary before it has
// stored as much as it has read again, so it comes to its end; and then it is, so the others have their turn.
func TestStreamIsNotCutBeforeItHasProgressed(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces int
		read   int
		want   []string
	}{
		{"to its end", 90, 60 + 90, []string{"0s expired 1 copied 0 removed", "10m done 2 copied 0 removed", "20m done 0 copied 0 removed"}},
		{"until it is ahead", 160, 60 + 121 + 160, []string{
			"0s expired 1 copied 0 removed", "10m expired 1 copied 0 removed", "20m not run 0 copied 0 removed", "30m done 2 copied 0 removed",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				stream := l.addSlowStream("huge", c.pieces)
				l.add("b")
				l.job("offsite", "schedule: {every: 10m}")
				start := time.Now()
				l.begin()
				l.pass(9 * time.Minute)
				l.add("b")
				l.pass(9 * time.Minute)
				for len(l.sessions("offsite")) < len(c.want) || l.sessions("offsite")[len(c.want)-1].Ended.IsZero() {
					if l.pass(time.Minute); time.Since(start) > 2*time.Hour {
						break
					}
					if len(c.want) == 4 && time.Since(start) == 25*time.Minute {
						l.add("b")
					}
				}
				l.wantStory("offsite", start, c.want...)
				if done, _ := l.copies("offsite", stream); done != 1 {
					l.t.Errorf("the stream came %d times to its end", done)
				}
				if read := stream.Read.Load() / source.SinkGrain; read > int64(c.read)+8 {
					l.t.Errorf("%d pieces were read, want about %d", read, c.read)
				}
			})
		})
	}
}

// A point that is waited for does not wait until all others are copied that were chosen before it: it is copied beside them.
func TestAwaitedPointDoesNotWaitForCopiesInProgress(t *testing.T) {
	for _, lookup := range []string{"forward", "backward"} {
		t.Run(lookup, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.add("b")
				l.job("offsite", "schedule: {every: 1d, at: \"00:00\"}\nlookup: "+lookup)
				l.begin()
				l.pass(23 * time.Hour)
				var huge *sourcetest.Point
				if lookup == "backward" {
					huge = l.addSlow("huge", 1800)
				}
				l.pass(time.Hour + time.Minute) // the day's interval has begun, and of b there is nothing
				if lookup == "forward" {
					huge = l.addSlow("huge", 1800)
				}
				l.pass(10 * time.Minute)
				b := l.add("b")
				l.pass(3 * time.Minute)
				if done, begun := l.copies("offsite", b); done != 1 || begun != 1 {
					l.t.Errorf("the point that came later was copied %d times, begun %d times", done, begun)
				}
				if done, begun := l.copies("offsite", huge); done != 0 || begun != 1 {
					l.t.Errorf("the long copy came %d times to its end, and began %d times", done, begun)
				}
				l.pass(2 * time.Hour)
				if done, _ := l.copies("offsite", huge); done != 1 || huge.Read.Load() > (1800+8)*slowBlock {
					l.t.Errorf("the long copy came %d times to its end, %d bytes were read", done, huge.Read.Load())
				}
			})
		})
	}
}

// In mode immediate there are no boundaries, and the points of other machines do not wait for a long copy either: those that come in an
// hour are copied together.
func TestImmediateDoesNotWaitForALongCopy(t *testing.T) {
	inBubble(t, func(l *lab) {
		huge := l.addSlow("huge", 7200)
		l.add("b")
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		var later []*sourcetest.Point
		for range 6 {
			l.pass(30 * time.Minute)
			later = append(later, l.add("b"))
		}
		l.pass(5 * time.Minute)
		for i, p := range later[:5] {
			if done, begun := l.copies("offsite", p); done != 1 || begun != 1 {
				l.t.Errorf("point %d that came later was copied %d times, begun %d times", i, done, begun)
			}
		}
		if done, begun := l.copies("offsite", huge); done != 0 || begun != 1 {
			l.t.Errorf("the long copy came %d times to its end, and began %d times", done, begun)
		}
		l.pass(2 * time.Hour)
		if done, _ := l.copies("offsite", huge); done != 1 || huge.Read.Load() > (7200+4*8)*slowBlock {
			l.t.Errorf("the long copy came %d times to its end, %d bytes were read", done, huge.Read.Load())
		}
	})
}

// A session that no interval follows is not ended by the schedule: of a job that is disabled, and one that reads all whole because a person
// said so.
func TestSessionThatNothingFollowsIsNotCut(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.addSlow("huge", 750)
		l.job("offsite", "schedule: {every: 10m}")
		l.begin()
		l.must(l.Disable(l.t.Context(), "offsite"))
		l.must(l.Stop(l.t.Context(), "offsite", false))
		l.pass(time.Minute)
		_, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		l.pass(30 * time.Minute)
		if last := l.last("offsite", catalog.SessionDone); last.Counts["copied"] != 1 || len(l.sessions("offsite")) != 2 {
			l.t.Errorf("of a job that is disabled: %+v", last)
		}
		_, err = l.Start(l.t.Context(), "offsite", scheduler.Start{Full: true})
		l.must(err)
		l.must(l.Enable(l.t.Context(), "offsite"))
		l.pass(24 * time.Minute)
		full := slices.IndexFunc(l.sessions("offsite"), func(s catalog.Session) bool { return s.Full })
		if s := l.sessions("offsite")[full]; !s.Ended.IsZero() {
			l.t.Errorf("one that reads whole: %+v", s)
		}
		l.pass(3 * time.Minute)
		if s := l.sessions("offsite")[full]; s.State != catalog.SessionDone {
			l.t.Errorf("one that reads whole: %+v", s)
		}
	})
}

// An interval whose window opens only after its end waits in vain, and that is no alarm.
func TestClosedWindowIsNoAlarm(t *testing.T) {
	inBubble(t, func(l *lab) { // it begins at midnight in UTC
		l.add("a")
		l.job("offsite", "schedule: {every: 4h}\nwindow: {allow: [\"00:00-06:00\"]}")
		l.begin()
		for range 4 {
			l.add("a")
			l.pass(4 * time.Hour)
			if told := l.alarms(); len(told) > 0 {
				l.t.Errorf("alarms: %s", told)
			}
		}
		l.last("offsite", catalog.SessionExpired)
	})
}

// What a session has found wrong with its sources and the selection is told all day, also while the window is closed.
func TestClosedWindowEndsNoAlarm(t *testing.T) {
	inBubble(t, func(l *lab) { // it begins at midnight in UTC
		l.add("a")
		l.job("offsite", "schedule: {every: 1h}\nselect: {include: [\"*\", \"gone\"]}\nwindow: {allow: [\"00:00-02:00\"]}")
		l.begin()
		for range 24 {
			l.pass(time.Hour)
			if told := l.alarms(); len(told) != 1 || !strings.Contains(told[0], "select.include names gone") {
				l.t.Errorf("alarms: %s", told)
			}
		}
		if n := len(l.sessions("offsite")); n < 24 {
			l.t.Errorf("%d sessions", n)
		}
	})
}
