package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// left is a job whose machine a has left its source: it holds a1, and a source goes on making points of b and c.
func left() (Situation, backup.MachineKey) {
	a, b := made("a", 1), made("b", 20)
	s := backedUp([]backup.Point{b, made("c", 20)}, a, b, made("c", 20))
	s.PurgeAfter = 7 * 24 * time.Hour
	s.Missing = map[backup.MachineKey]time.Time{a.Machine.Key: noon.AddDate(-1, 0, 0)}
	return s, a.Machine.Key
}

// retire retires the machine for a time until now.
func retire(s *Situation, key backup.MachineKey, ago time.Duration) {
	s.Retired = map[backup.MachineKey]time.Time{key: s.Now.Add(-ago)}
}

const (
	aStays = "b20 keep, c20 keep, a1 keep"
	aGoes  = "b20 keep, c20 keep, a1 remove"
)

// A machine that has left its source keeps its copies. They go only by purgeAfter, and when a person says that it has gone.
func TestPurgeNeedsEvidence(t *testing.T) {
	s, a := left()
	if p := wantPlan(t, "missing for a year", s, aStays); !p.Machines[2].Purge.IsZero() || !p.Machines[2].Retired.IsZero() {
		t.Errorf("missing is taken for retired: %+v", p.Machines[2])
	}
	retire(&s, a, s.PurgeAfter-1)
	p := wantPlan(t, "retired not long ago", s, aStays)
	if m := p.Machines[2]; !m.Purge.Equal(noon.Add(1)) || !m.Retired.Equal(s.Retired[a]) || !strings.HasPrefix(m.Reason, "retired 2026-03-13 12:00 UTC; its points are removed 2026-03-20 12:00 UTC") ||
		!strings.HasPrefix(m.Steps[0].Reasons[0], "the machine is retired 2026-03-13 12:00 UTC: removed 2026-03-20 12:00 UTC") || m.Steps[0].Outlook != (policy.Outlook{}) {
		t.Errorf("not told when its points go: %+v", m)
	}
	retire(&s, a, s.PurgeAfter)
	p = wantPlan(t, "retired long ago", s, aGoes)
	if reason := p.Machines[2].Steps[0].Reasons[0]; reason != policy.Purged {
		t.Errorf("removed because %q", reason)
	}
	s.Held[0].Holds = []string{"being read"}
	if p := Interval(s); p.Machines[2].Steps[0].Stays == "" {
		t.Error("what else keeps the point is not told")
	}
	s.Doubt = "source pve is missing"
	wantPlan(t, "a source is missing", s, aStays)
	s.Doubt, s.Offers = "", append(s.Offers, Offer{Brief: brief(made("a", 1))})
	wantPlan(t, "retired, and there", s, aStays)
	s.Offers, s.PurgeAfter = s.Offers[:2], 0
	wantPlan(t, "never to be purged", s, aStays)
}

// A clock that is wrong removes nothing: neither one that jumps ahead, nor one by which a machine was retired long ago.
func TestPurgeNotByClockAlone(t *testing.T) {
	s, a := left()
	retire(&s, a, 0)
	s.Now = s.Now.AddDate(0, 0, 400)
	p := wantPlan(t, "a year later by the clock", s, aStays)
	if m := p.Machines[2]; !strings.HasSuffix(m.Reason, "once a point of another machine is as new") {
		t.Errorf("not told what is waited for: %s", m.Reason)
	}
	s.Held[1].Created = s.Now.AddDate(0, 0, 2) // dated ahead even of that
	wantPlan(t, "a point in the future is no evidence", s, aStays)
	s.Held[1].Created = s.Retired[a].Add(s.PurgeAfter)
	s.Held[1].State = backup.StateBroken
	wantPlan(t, "nor is one that is damaged", s, "b20 copy, c20 keep, a1 keep")
	s.Held[1].State = backup.StateComplete
	s.Offers = s.Offers[1:]
	wantPlan(t, "another machine has a point of then", s, "b27 keep, c20 keep, a1 remove")

	s, a = left()
	s.Retired = map[backup.MachineKey]time.Time{a: time.Unix(0, 0)}
	s.Held[0].Created = noon.Add(-s.PurgeAfter + 1)
	wantPlan(t, "retired in 1970, with a point of this week", s, "b20 keep, c20 keep, a13 keep")
	s.Held[0].Created = noon.Add(-s.PurgeAfter)
	wantPlan(t, "with an older one", s, "b20 keep, c20 keep, a13 remove")
}

// A machine that was retired and has new points is copied, and a person is asked.
func TestRetiredAndNotGone(t *testing.T) {
	s, a := left()
	retire(&s, a, 3*24*time.Hour)
	s.Offers, s.Selected = append(s.Offers, Offer{Brief: brief(made("a", 19))}), append(s.Selected, a)
	p := wantPlan(t, "a new point", s, "b20 keep, c20 keep, a1 keep, a19 copy")
	if m := p.Machines[2]; len(m.Warnings) != 1 || !m.Purge.IsZero() {
		t.Errorf("warnings %v, purge %s", m.Warnings, m.Purge)
	}
}

// Machines that were retired are no sign that a listing is wrong, however many they are.
func TestRetiredNotFrozen(t *testing.T) {
	s := backedUp([]backup.Point{made("c", 20)}, made("a", 1), made("b", 1), made("c", 20))
	s.PurgeAfter = 24 * time.Hour
	if p := wantPlan(t, "two of three have gone", s, "c20 keep, a1 keep, b1 keep"); p.Frozen == "" {
		t.Fatal("not frozen")
	}
	s.Retired = map[backup.MachineKey]time.Time{made("a", 1).Machine.Key: noon.AddDate(0, 0, -2), made("b", 1).Machine.Key: noon.AddDate(0, 0, -2)}
	if p := wantPlan(t, "both were retired", s, "c20 keep, a1 remove, b1 remove"); p.Frozen != "" {
		t.Errorf("frozen: %s", p.Frozen)
	}
}

// What was purged is copied again once the machine is back, and not while it is retired.
func TestPurgedComesBack(t *testing.T) {
	s, a := left()
	retire(&s, a, s.PurgeAfter)
	s.Held = s.Held[1:]
	s.Offers, s.Selected = append(s.Offers, Offer{Brief: brief(made("a", 1))}), append(s.Selected, a)
	s.Forgotten = func(id backup.PointID) (Tombstone, bool) {
		return Tombstone{Reason: policy.Purged}, id == made("a", 1).ID
	}
	wantPlan(t, "retired", s, "b20 keep, c20 keep, a1 forgotten")
	s.Retired = nil
	wantPlan(t, "back", s, "b20 keep, c20 keep, a1 copy")
}

// Whatever is held: a machine is purged whole or not at all, and never before its time has passed by its own newest point and by
// that of others.
func TestPurgeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := left()
		days := rapid.SliceOfNDistinct(rapid.IntRange(1, 20), 1, 5, rapid.ID).Draw(t, "days")
		s.Held = nil
		for _, day := range days {
			s.Held = append(s.Held, Held{Brief: brief(made("a", day)), Claimed: true})
		}
		other := rapid.IntRange(1, 28).Draw(t, "the day of another machine")
		s.Held = append(s.Held, Held{Brief: brief(made("b", other)), Claimed: true})
		s.Offers, s.Selected = []Offer{{Brief: brief(made("b", other))}}, nil
		retired := rapid.IntRange(1, 28).Draw(t, "retired")
		s.Now = noon.AddDate(0, 0, rapid.IntRange(-5, 30).Draw(t, "now"))
		s.Retired = map[backup.MachineKey]time.Time{a: made("a", retired).Created}
		purge := made("a", max(retired, slices.Max(days))).Created.Add(s.PurgeAfter)
		latest := s.Now.Add(24 * time.Hour) // of a point that is not dated in the future
		want := !s.Now.Before(purge) && !made("b", other).Created.Before(purge) && !made("b", other).Created.After(latest) && !made("a", slices.Max(days)).Created.After(latest)
		p := Interval(s)
		if n := len(p.Steps(ActionRemove)); n != 0 && n != len(days) || (n > 0) != want {
			t.Fatalf("%d of %d points go, want all: %v", n, len(days), want)
		}
	})
}
