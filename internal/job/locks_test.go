package job_test

import (
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// skews are how far the clock of a source is from the job's.
var skews = map[string]time.Duration{"behind": -3 * time.Hour, "right": 0, "ahead": 3 * time.Hour}

// written is a file that is being written: by a clock that is wrong.
type written struct {
	locked bool
	size   int64
	at     time.Time
}

// writing is a job of a machine with a complete point, and a newer one whose file is locked, and was last written now.
func writing(t *testing.T, skew time.Duration) (*lab, *written) {
	l := newLab(t, day("a", 1), day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	w := &written{locked: true, size: 1, at: l.now}
	l.edit = func(s *registry.Source) {
		if p := &s.Points[1]; w.locked {
			p.State, p.Reason, p.Opener = backup.StateLocked, "vzdump writes it", nil
			p.Files = append(p.Files, source.FileIdentity{Path: "file", Size: w.size, ModTime: w.at.Add(skew)})
		}
	}
	return l, w
}

func (w *written) grow(now time.Time) { w.size, w.at = w.size+1, now }

// A point that grows is waited for as long as it does, whatever its source's clock says of when it was written.
func TestLockThatGrows(t *testing.T) {
	for what, skew := range skews {
		l, w := writing(t, skew)
		l.setup.Wait = 12 * time.Hour
		l.onPause = func() {
			w.grow(l.now)
			w.locked = len(l.pauses) < 300
		}
		s := l.run(job.ResultDone)
		if _, mine := job.ClaimOf(l.target(), "offsite", l.points[1].ID()); !mine || len(s.Warnings) > 0 {
			t.Errorf("%s: after %d looks the point is not copied: warnings %q\n%s", what, len(l.pauses), s.Warnings, l.describe(s))
		}
	}
}

// A point that has grown for an hour, and then does not for two, counts as broken: neither sooner nor later if its source's clock is wrong.
func TestLockThatWasLeft(t *testing.T) {
	for what, skew := range skews {
		l, w := writing(t, skew)
		l.setup.Wait = 12 * time.Hour
		l.onPause = func() {
			if len(l.pauses) <= 60 {
				w.grow(l.now)
			}
		}
		s := l.run(job.ResultDone)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if len(l.pauses) != 180 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "was not seen to grow since 2026-03-02 21:00") {
			t.Errorf("%s: %d looks, a minute apart; warnings %q", what, len(l.pauses), s.Warnings)
		}
	}
}

// Sessions that wait for nothing see a lock one after the other: since when it has not grown is left in the target.
func TestLockIsRememberedBetweenSessions(t *testing.T) {
	for what, skew := range skews {
		l, w := writing(t, skew)
		waits := func() {
			t.Helper()
			l.wantCounts(l.run(job.ResultWaits), "0 copied, 0 claimed, 0 failed, 0 removed")
		}
		waits()
		l.now = l.now.Add(119 * time.Minute)
		w.grow(l.now)
		waits()
		l.now = l.now.Add(119 * time.Minute)
		waits()
		l.now = l.now.Add(time.Minute)
		if s := l.run(job.ResultDone); s.Copied() != 1 || len(s.Warnings) != 1 {
			t.Errorf("%s: warnings %q\n%s", what, s.Warnings, l.describe(s))
		}
	}
	// By a clock that was set back nothing has been so since later than now.
	l, _ := writing(t, 0)
	l.run(job.ResultWaits)
	l.now = l.now.AddDate(0, 0, -1)
	l.run(job.ResultWaits)
	l.now = l.now.Add(2 * time.Hour)
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
}

// What a process sees of a lock between sessions counts in the next one.
func TestLockThatWasSeenBetweenSessions(t *testing.T) {
	l, _ := writing(t, 0)
	l.setup.Host.Locks = &job.Locks{}
	if _, err := job.Look(t.Context(), l.setup); err != nil {
		t.Fatal(err)
	}
	l.now = l.now.Add(2 * time.Hour)
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
}
