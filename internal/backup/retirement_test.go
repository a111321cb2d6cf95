package backup

import (
	"testing"
	"time"
)

func TestRetirementWhatWasSaidLastHolds(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	gone := Retirement{}.Decide(true, now)
	if !gone.Since.Equal(now) || !gone.Decided.Equal(now) {
		t.Errorf("%+v", gone)
	}
	if again := gone.Decide(true, now.Add(time.Hour)); again != gone {
		t.Errorf("said twice: %+v", again)
	}
	back := gone.Decide(false, now.Add(-time.Hour)) // by a clock that is behind
	if !back.Since.IsZero() || !back.After(gone) || gone.After(back) {
		t.Errorf("back: %+v", back)
	}
	if again := back.Decide(true, now.Add(-time.Hour)); !again.After(back) || !again.Since.Equal(now.Add(-time.Hour)) {
		t.Errorf("gone again: %+v", again)
	}
	if nothing := (Retirement{}).Decide(false, now); nothing != (Retirement{}) {
		t.Errorf("a machine that nobody said had gone is back: %+v", nothing)
	}
}
