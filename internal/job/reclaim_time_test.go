package job

import (
	"testing"
	"time"

	"ferry/internal/policy"
)

// Giving space back keeps no copies waiting whose window has opened.
func TestReclaimEndsWhenTheWindowOpens(t *testing.T) {
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for clock, want := range map[string]time.Duration{"12:00": reclaimBudget, "19:00": time.Hour, "19:59": time.Minute, "20:00": reclaimBudget, "06:00": reclaimBudget} {
		now, err := time.Parse("15:04", clock)
		if err != nil {
			t.Fatal(err)
		}
		r := newRunner(Setup{Job: policy.Job{Window: window}, Wait: 24 * time.Hour, Now: func() time.Time { return now }})
		if got := r.reclaimTime(); got != want {
			t.Errorf("%s: %s, not %s", clock, got, want)
		}
	}
}
