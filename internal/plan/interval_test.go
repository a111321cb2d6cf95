package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

var noon = time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)

// made is a complete point of a machine, made on a day of March 2026 at noon.
func made(machine string, day int) backup.Point {
	m := backup.Machine{Name: machine, Key: backup.MachineKey{Platform: "image", NativeID: machine, SourceName: "s"}}
	at := time.Date(2026, 3, day, 12, 0, 0, 0, time.UTC)
	return backup.Point{ID: backup.NewPointID(m.Key, fmt.Sprint(day)), Machine: m, Created: at, State: backup.StateComplete}
}

// backedUp is what a job looks like: points that a source offers, points that the target has.
func brief(p backup.Point) *backup.Brief { return p.Brief() }

func backedUp(offers []backup.Point, held ...backup.Point) Situation {
	s := Situation{
		Mode: policy.Periodic, Interval: policy.Interval{Begins: noon.Add(-time.Hour), Ends: noon.Add(23 * time.Hour)}, Now: noon,
		Retention: func(backup.Machine) policy.Retention { return policy.Retention{} }, TargetID: "target",
	}
	for _, p := range offers {
		s.Offers = append(s.Offers, Offer{Brief: brief(p)})
		s.Selected = append(s.Selected, p.Machine.Key)
	}
	for _, p := range held {
		s.Held = append(s.Held, Held{Brief: brief(p), Claimed: true})
	}
	return s
}

func keeping(r policy.Retention) func(backup.Machine) policy.Retention {
	return func(backup.Machine) policy.Retention { return r }
}

// told is a plan in short: machine, day and action of each step.
func told(p IntervalPlan) string {
	var steps []string
	for _, m := range p.Machines {
		for _, step := range m.Steps {
			steps = append(steps, fmt.Sprintf("%s%d %s", m.Machine.Name, step.Point.Created.Day(), step.Action))
		}
	}
	return strings.Join(steps, ", ")
}

func wantPlan(t *testing.T, what string, s Situation, want string) IntervalPlan {
	t.Helper()
	p := Interval(s)
	if got := told(p); got != want {
		t.Errorf("%s: %s; want %s", what, got, want)
	}
	for _, m := range p.Machines {
		for _, step := range m.Steps {
			if len(step.Reasons) == 0 || slices.Contains(step.Reasons, "") {
				t.Errorf("%s: %s of %s has no reason", what, step.Action, step.Point.Created)
			}
		}
	}
	return p
}

func TestIntervalTakesTheNewest(t *testing.T) {
	offers := []backup.Point{made("a", 1), made("a", 2), made("b", 1)}
	wantPlan(t, "nothing is there", backedUp(offers), "a1 older, a2 copy, b1 copy")
	wantPlan(t, "one is there", backedUp(offers, made("a", 1)), "a1 keep, a2 copy, b1 copy")
	wantPlan(t, "all is there", backedUp(offers, made("a", 2), made("b", 1)), "a1 older, a2 keep, b1 keep")
	s := backedUp(offers)
	s.Selected = s.Selected[2:]
	wantPlan(t, "only b is selected", s, "b1 copy, a1 not selected, a2 not selected")
	s = backedUp(offers)
	s.Selected = []backup.MachineKey{made("b", 1).Machine.Key, made("a", 1).Machine.Key}
	wantPlan(t, "the order of the selection", s, "b1 copy, a1 older, a2 copy")
}

// Of two sources that have the same point the first that has it complete is read; the newest of both is taken.
func TestIntervalOverSources(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 1), made("a", 2), made("a", 2), made("a", 3)})
	s.Offers[1].State, s.Offers[1].Reason = backup.StateBroken, "cut off"
	s.Offers[2].Source, s.Offers[3].Source = 1, 1
	p := wantPlan(t, "newest of both", s, "a1 older, a2 older, a3 copy")
	if step := p.Steps(ActionCopy)[0]; step.Source != 1 {
		t.Errorf("read from source %d", step.Source)
	}
	s.Offers = s.Offers[:3]
	if step := wantPlan(t, "complete in the second", s, "a1 older, a2 copy").Steps(ActionCopy)[0]; step.Source != 1 {
		t.Errorf("read from source %d", step.Source)
	}
}

// All of a plan tells times by the clock of the job's zone.
func TestIntervalTellsTimesInTheZoneOfTheJob(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	locked := made("a", 20)
	locked.State = backup.StateLocked
	for zone, want := range map[*time.Location]string{nil: "the point of 2026-03-20 12:00 UTC is locked; it is waited for", berlin: "the point of 2026-03-20 13:00 CET is locked; it is waited for"} {
		s := backedUp([]backup.Point{locked})
		s.Zone, s.Offers[0].Grew = zone, noon
		if got := Interval(s).Machines[0].Reason; got != want {
			t.Errorf("%v: %q", zone, got)
		}
	}
}

// Nothing is copied that the rules would remove at once.
func TestNothingIsCopiedThatWouldBeRemoved(t *testing.T) {
	offers := []backup.Point{made("a", 1), made("a", 10), made("a", 19), made("a", 20)}
	s := backedUp(offers)
	s.Lookup.Backfill = policy.BackfillAll
	s.Retention = keeping(policy.Retention{Points: 2})
	wantPlan(t, "two newest", s, "a1 not kept, a10 not kept, a19 copy, a20 copy")
	var weekly policy.Retention
	weekly.Points = 1
	weekly.Tiers[policy.Weekly].Keep = 2
	s.Retention = keeping(weekly)
	p := wantPlan(t, "two weeks", s, "a1 not kept, a10 copy, a19 copy, a20 copy")
	if slots := p.Steps(ActionCopy)[1].Slots; len(slots) != 1 || slots[0] != "weekly:2026-03-15" {
		t.Errorf("slots %v", slots)
	}
}

func TestRulesRemove(t *testing.T) {
	all := []backup.Point{made("a", 1), made("a", 2), made("a", 3)}
	s := backedUp(all, all[0], all[1])
	s.Retention = keeping(policy.Retention{Points: 2})
	p := wantPlan(t, "two newest", s, "a1 remove, a2 keep, a3 copy")
	if o := p.Steps(ActionKeep)[0].Outlook; o.Points != 1 {
		t.Errorf("outlook %+v", o)
	}
	s.Held[0].Others, s.Held[0].Holds = []string{"second"}, []string{"by a person"}
	if stays := wantPlan(t, "others keep it", s, "a1 remove, a2 keep, a3 copy").Steps(ActionRemove)[0].Stays; stays != "claimed by second; held: by a person" {
		t.Errorf("stays: %s", stays)
	}
	// What the job does not claim is none of its business.
	s.Held[0].Claimed = false
	s.Offers = s.Offers[1:]
	wantPlan(t, "of another job", s, "a1 not selected, a2 keep, a3 copy")
}

// A machine's rules go by its newest complete point. One that is being written, or is broken, may lack what a label goes by.
func TestRulesGoByTheNewestCompletePoint(t *testing.T) {
	labelled := func(day int) backup.Point {
		p := made("a", day)
		p.Machine.Labels = []string{"big"}
		return p
	}
	rules := func(m backup.Machine) policy.Retention {
		if slices.Contains(m.Labels, "big") {
			return policy.Retention{Points: 10}
		}
		return policy.Retention{Points: 1}
	}
	one, two, three := labelled(1), labelled(2), labelled(3)
	for _, state := range []backup.State{backup.StateLocked, backup.StateBroken, backup.StateUnsupported, backup.StateEncrypted} {
		bare := made("a", 20)
		bare.State = state
		s := backedUp([]backup.Point{one, two, three, bare}, one, two, three)
		s.Retention = rules
		if p := Interval(s); len(p.Steps(ActionKeep)) != 3 || !slices.Contains(p.Machines[0].Machine.Labels, "big") {
			t.Errorf("a newer point is %s: %s", state, told(p))
		}
		s.Offers = s.Offers[3:]
		if p := Interval(s); len(p.Steps(ActionKeep)) != 3 {
			t.Errorf("all that the source has is %s: %s", state, told(p))
		}
		for i := range s.Held {
			s.Held[i].State = backup.StateBroken
		}
		if p := Interval(s); len(p.Steps(ActionKeep)) != 3 || !slices.Contains(p.Machines[0].Machine.Labels, "big") {
			t.Errorf("all that the source has is %s, and what the target has is damaged: %s", state, told(p))
		}
		s.Held = nil
		if p := Interval(s); len(p.Machines[0].Machine.Labels) != 0 {
			t.Errorf("there is nothing but a point that is %s: labels %v", state, p.Machines[0].Machine.Labels)
		}
	}
	// What the source says now counts before what was stored with the same point.
	s := backedUp([]backup.Point{made("a", 3)}, one, two, three)
	s.Retention = rules
	wantPlan(t, "the label has gone", s, "a1 remove, a2 remove, a3 keep")
}

func TestClaimsWhatIsThere(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 1)}, made("a", 1))
	s.Held[0].Claimed, s.Held[0].Others = false, []string{"manual"}
	wantPlan(t, "another job has it", s, "a1 claim")
	s.Held[0].State = backup.StateBroken
	wantPlan(t, "and it is damaged", s, "a1 copy")
	s.Held[0].Claimed = true
	wantPlan(t, "the job's own is damaged", s, "a1 copy")
}

// A point that came to the source through the target is not copied back.
func TestNeverCopiedBack(t *testing.T) {
	back := made("a", 2)
	back.Hops = []backup.Hop{{RepositoryID: "elsewhere"}, {RepositoryID: "target"}}
	s := backedUp([]backup.Point{made("a", 1), back})
	wantPlan(t, "by its hops", s, "a1 copy, a2 not copied back")
	s.Offers[1].Hops, s.Offers[1].Via = nil, "target"
	wantPlan(t, "the source is the target", s, "a1 copy, a2 not copied back")
}

// What a person gave up stays given up. What a rule removed comes back when the rules widen, and the lookup asks for it.
func TestForgotten(t *testing.T) {
	all := []backup.Point{made("a", 1), made("a", 2), made("a", 3)}
	s := backedUp(all)
	reason := "named"
	own := false
	s.Forgotten = func(id backup.PointID) (Tombstone, bool) { return Tombstone{Reason: reason, Own: own}, id != all[2].ID }
	wantPlan(t, "named", s, "a1 forgotten, a2 forgotten, a3 copy")
	s.Lookup.Backfill = policy.BackfillAll
	wantPlan(t, "named, with backfill", s, "a1 forgotten, a2 forgotten, a3 copy")
	reason = policy.NoRuleKeeps
	s.Retention = keeping(policy.Retention{Points: 1})
	s.Held = []Held{{Brief: brief(all[2]), Claimed: true}}
	wantPlan(t, "the rules are as they were", s, "a1 forgotten, a2 forgotten, a3 keep")
	s.Retention = keeping(policy.Retention{Points: 5})
	wantPlan(t, "the rules have widened, and another job gave them up", s, "a1 older, a2 older, a3 keep")
	own = true
	p := wantPlan(t, "the rules have widened", s, "a1 copy, a2 copy, a3 keep")
	for _, step := range p.Steps(ActionCopy) {
		if !step.Again || !strings.Contains(step.Reasons[0], "widened") {
			t.Errorf("%+v", step)
		}
	}
	if m := p.Machines[0]; !m.Waits || m.Locked || !strings.Contains(m.Reason, "2 given up before") {
		t.Errorf("%+v", m)
	}
	s.Retention = keeping(policy.Retention{Points: 2})
	wantPlan(t, "by one", s, "a1 not kept, a2 copy, a3 keep")
	s.Retention = keeping(policy.Retention{Points: 5})
	s.Lookup.Backfill = 1
	wantPlan(t, "as far as backfill reaches", s, "a1 older, a2 copy, a3 keep")
	s.Lookup.Backfill = 0
	wantPlan(t, "without backfill", s, "a1 older, a2 older, a3 keep")
	reason, s.Lookup.Backfill = "named", policy.BackfillAll
	wantPlan(t, "named, and the rules have widened", s, "a1 forgotten, a2 forgotten, a3 keep")
	reason, s.Held = policy.NoRuleKeeps, nil
	wantPlan(t, "the rules have widened, and nothing is held", s, "a1 copy, a2 copy, a3 copy")
	// Nothing older than what was given up is taken in its place.
	s = backedUp(all[:2])
	s.Forgotten = func(id backup.PointID) (Tombstone, bool) { return Tombstone{Reason: "named"}, id == all[1].ID }
	wantPlan(t, "the newest was given up", s, "a1 older, a2 forgotten")
}

// What comes back because the rules have widened is no other than what they would keep had they always been so, beside what is new; it keeps
// nothing newer waiting, and does not use the interval up.
func TestWidened(t *testing.T) {
	var all []backup.Point
	for day := range 20 {
		all = append(all, made("a", day+1))
	}
	widened := func(offered []backup.Point) Situation {
		s := backedUp(offered, all[11:19]...)
		s.Lookup.Backfill = policy.BackfillAll
		s.Forgotten = func(id backup.PointID) (Tombstone, bool) {
			return Tombstone{Reason: policy.NoRuleKeeps, Own: true}, slices.ContainsFunc(all[:11], func(p backup.Point) bool { return p.ID == id })
		}
		s.Retention = keeping(policy.Retention{Days: 30})
		return s
	}
	again := func(p IntervalPlan) (n int) {
		for _, step := range p.Steps(ActionCopy) {
			if step.Again {
				n++
			}
		}
		return n
	}
	for _, mode := range []policy.Mode{policy.Periodic, policy.Immediate, policy.Manual} {
		s := widened(all[:19])
		s.Mode = mode
		if p := Interval(s); len(p.Steps(ActionCopy)) != 11 || again(p) != 11 || !p.Machines[0].Waits {
			t.Errorf("%v: %s", mode, told(p))
		}
		s = widened(all)
		s.Mode = mode
		if p := Interval(s); len(p.Steps(ActionCopy)) != 12 || again(p) != 11 {
			t.Errorf("%v, and a new one: %s", mode, told(p))
		}
		s.Offers[19].State, s.Offers[19].Grew = backup.StateLocked, noon
		if p := Interval(s); len(p.Steps(ActionCopy)) != 11 || !p.Machines[0].Locked || len(p.Steps(ActionWait)) != 1 {
			t.Errorf("%v, and a new one that is locked: %s", mode, told(p))
		}
	}
	s := widened(all)
	s.Stored = map[backup.MachineKey]bool{all[0].Machine.Key: true}
	if p := Interval(s); len(p.Steps(ActionCopy)) != 11 || p.Machines[0].Waits {
		t.Errorf("the interval has had its point: %s", told(p))
	}
	s.Stored, s.Pinned = nil, map[backup.PointID]bool{all[19].ID: true}
	if p := Interval(s); len(p.Steps(ActionCopy)) != 1 || again(p) != 0 {
		t.Errorf("a copy has begun: %s", told(p))
	}
}

// A point dated more than a day ahead is copied, and suspends removal of its machine with an alarm. It keeps nothing else
// from being copied.
func TestPointFromTheFuture(t *testing.T) {
	ahead := made("a", 25)
	s := backedUp([]backup.Point{made("a", 18), made("a", 19), ahead}, made("a", 17), made("a", 18))
	s.Retention = keeping(policy.Retention{Points: 1})
	p := wantPlan(t, "ahead", s, "a17 keep, a18 keep, a19 passed over, a25 copy")
	if len(p.Machines[0].Alarms) != 1 || p.Steps(ActionKeep)[0].Outlook != (policy.Outlook{}) {
		t.Errorf("alarms %v, outlook %+v", p.Machines[0].Alarms, p.Steps(ActionKeep)[0].Outlook)
	}
	s.Held = append(s.Held, Held{Brief: brief(ahead), Claimed: true})
	p = wantPlan(t, "once it is held", s, "a17 keep, a18 keep, a19 copy, a25 keep")
	if len(p.Machines[0].Alarms) != 1 {
		t.Errorf("alarms %v", p.Machines[0].Alarms)
	}
}

func TestForwardLooksAfterTheStart(t *testing.T) {
	today := made("a", 20)
	s := backedUp([]backup.Point{made("a", 19), today})
	s.Lookup.Direction = policy.Forward
	wantPlan(t, "one since the start", s, "a19 older, a20 copy")
	s.Offers = s.Offers[:1]
	if p := wantPlan(t, "none since the start", s, "a19 older"); !p.Machines[0].Waits {
		t.Error("it does not wait")
	}
}

// A locked newest point is waited for, not replaced.
func TestLockedIsWaitedFor(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 19), made("a", 20), made("b", 19)})
	s.Offers[1].State, s.Offers[1].Reason, s.Offers[1].Grew = backup.StateLocked, "vzdump writes it", noon.Add(-time.Minute)
	p := wantPlan(t, "locked", s, "a19 passed over, a20 wait, b19 copy")
	if m := p.Machines[0]; !m.Waits || !m.Locked || !m.Look.Equal(noon.Add(2*time.Hour-time.Minute)) {
		t.Errorf("%+v", m)
	}
	s.Now = noon.Add(2 * time.Hour)
	if p := wantPlan(t, "the lock is stale", s, "a19 copy, a20 locked, b19 copy"); len(p.Machines[0].Warnings) != 1 {
		t.Errorf("warnings %v", p.Machines[0].Warnings)
	}
}

// A broken point fails its machine if it is newer than all that the job has or takes.
func TestBrokenIsAFailure(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 18), made("a", 19), made("a", 20)})
	s.Offers[0].State, s.Offers[2].State = backup.StateBroken, backup.StateBroken
	p := wantPlan(t, "two broken", s, "a18 broken, a19 copy, a20 broken")
	if steps := p.Steps(ActionBroken); steps[0].Failure || !steps[1].Failure {
		t.Errorf("%+v", steps)
	}
}

// Where most machines have just gone from the sources, the listing is not believed and nothing is removed; after a week it
// is how things are. One of many goes without that.
func TestShrunkListing(t *testing.T) {
	var held []backup.Point
	for _, name := range []string{"a", "b", "c"} {
		held = append(held, made(name, 1), made(name, 2))
	}
	s := backedUp([]backup.Point{made("a", 2)}, held...)
	s.Retention = keeping(policy.Retention{Points: 1})
	p := wantPlan(t, "two of three", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	if p.Frozen == "" || len(p.Alarms) != 1 || !p.Machines[1].Missing.Equal(noon) {
		t.Errorf("frozen %q, alarms %v, missing since %s", p.Frozen, p.Alarms, p.Machines[1].Missing)
	}
	recent := noon.Add(-newlyMissing + 1)
	s.Missing = map[backup.MachineKey]time.Time{held[2].Machine.Key: recent, held[4].Machine.Key: recent}
	wantPlan(t, "not quite a week later", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	since := noon.Add(-newlyMissing)
	s.Missing = map[backup.MachineKey]time.Time{held[2].Machine.Key: since, held[4].Machine.Key: since}
	p = wantPlan(t, "a week later", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
	if !p.Machines[1].Missing.Equal(since) || p.Frozen != "" {
		t.Errorf("missing since %s, frozen %q", p.Machines[1].Missing, p.Frozen)
	}
	s.Missing = nil
	s.Offers = append(s.Offers, Offer{Brief: brief(made("b", 2))})
	wantPlan(t, "one of three", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
}

// A point whose copy has begun is finished before something newer is taken.
func TestPinned(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 19), made("a", 20)})
	s.Pinned = map[backup.PointID]bool{s.Offers[0].ID: true}
	if p := wantPlan(t, "pinned", s, "a19 copy, a20 passed over"); !p.Machines[0].Pinned {
		t.Error("not said to be pinned")
	}
}

// A point whose copy has begun, and that the rules have come to give up, keeps nothing else from being copied.
func TestPinnedIsNotKept(t *testing.T) {
	for _, mode := range []policy.Mode{policy.Periodic, policy.Immediate, policy.Manual} {
		s := backedUp([]backup.Point{made("a", 17), made("a", 18), made("a", 19), made("a", 20)}, made("a", 18))
		s.Mode, s.Retention = mode, keeping(policy.Retention{Points: 1})
		s.Pinned = map[backup.PointID]bool{s.Offers[0].ID: true}
		if p := Interval(s); len(p.Steps(ActionCopy)) != 1 || p.Steps(ActionCopy)[0].Point.ID != s.Offers[3].ID || p.Machines[0].Pinned {
			t.Errorf("mode %v: %s, pinned %t", mode, told(p), p.Machines[0].Pinned)
		}
		// Of several that have begun those that are kept go first.
		s.Pinned[s.Offers[2].ID] = true
		if p := wantPlan(t, "two are pinned", s, "a17 not kept, a18 remove, a19 copy, a20 passed over"); !p.Machines[0].Pinned {
			t.Error("not said to be pinned")
		}
	}
	s := backedUp([]backup.Point{made("a", 17)}, made("a", 18))
	s.Retention, s.Pinned = keeping(policy.Retention{Points: 1}), map[backup.PointID]bool{s.Offers[0].ID: true}
	if p := wantPlan(t, "nothing else is there", s, "a17 not kept, a18 keep"); p.Machines[0].Reason != "nothing newer than what the job has" || p.Machines[0].Pinned {
		t.Errorf("reason %q, pinned %t", p.Machines[0].Reason, p.Machines[0].Pinned)
	}
}

func TestFullReadsAgain(t *testing.T) {
	s := backedUp([]backup.Point{made("a", 19), made("a", 20), made("b", 20)}, made("a", 20))
	s.Full = true
	wantPlan(t, "full", s, "a19 older, a20 copy, b20 copy")
}

// Nothing comes to the target by being read whole that would not come there otherwise.
func TestFullTakesWhatMayBeCopied(t *testing.T) {
	all := []backup.Point{made("a", 17), made("a", 18), made("a", 19), made("a", 20)}
	s := backedUp(all)
	s.Full = true
	s.Forgotten = func(id backup.PointID) (Tombstone, bool) { return Tombstone{Reason: "named"}, id == all[3].ID }
	wantPlan(t, "the newest was given up", s, "a17 older, a18 older, a19 older, a20 forgotten")
	s.Held = []Held{{Brief: brief(all[1]), Claimed: true}, {Brief: brief(all[0]), Claimed: true}}
	wantPlan(t, "the newest that the job holds is read", s, "a17 keep, a18 copy, a19 older, a20 forgotten")
	s.Held[0].State = backup.StateBroken
	wantPlan(t, "also if it is damaged", s, "a17 keep, a18 copy, a19 older, a20 forgotten")

	s = backedUp(all)
	s.Full = true
	s.Offers[3].Hops = []backup.Hop{{RepositoryID: "target"}}
	wantPlan(t, "the newest came from the target", s, "a17 older, a18 older, a19 copy, a20 not copied back")
	s.Held = []Held{{Brief: brief(all[3]), Claimed: true}, {Brief: brief(all[2]), Claimed: true}}
	wantPlan(t, "and is there", s, "a17 older, a18 older, a19 copy, a20 keep")
	for i := range s.Offers {
		s.Offers[i].Via = "target"
	}
	if p := wantPlan(t, "the source is the target", s, "a17 not copied back, a18 not copied back, a19 keep, a20 keep"); p.Machines[0].Reason != "nothing newer than what the job has" {
		t.Errorf("reason: %s", p.Machines[0].Reason)
	}

	// What has begun is finished before a newer one is begun.
	s = backedUp(all[:3], all[1])
	s.Full, s.WholeBegun = true, map[backup.PointID]bool{all[1].ID: true}
	wantPlan(t, "an older one has begun", s, "a17 older, a18 copy, a19 passed over")

	// What the rules give up is not read first.
	s = backedUp(all[:2], all[1], all[2])
	s.Full, s.Retention = true, keeping(policy.Retention{Points: 1})
	wantPlan(t, "the rules give it up", s, "a17 older, a18 remove, a19 keep")
}

// A machine of which nothing can be read whole now is copied as in any other interval.
func TestFullKeepsNothingFromBeingCopied(t *testing.T) {
	whole := func(offers []backup.Point, held ...backup.Point) Situation {
		s := backedUp(offers, held...)
		s.Whole = map[backup.MachineKey]bool{offers[0].Machine.Key: true}
		return s
	}
	s := whole([]backup.Point{made("a", 20)}, made("a", 19))
	s.Offers[0].State, s.Offers[0].Grew = backup.StateLocked, noon
	if p := wantPlan(t, "the only one is locked", s, "a19 keep, a20 wait"); !p.Machines[0].Waits || !p.Machines[0].Locked {
		t.Errorf("it is not waited for: %+v", p.Machines[0])
	}
	s = whole([]backup.Point{made("a", 18)}, made("a", 17), made("a", 19))
	s.Mode = policy.Immediate
	wantPlan(t, "every point, also between those that are there", s, "a17 keep, a18 copy, a19 keep")
	s.Mode, s.Pinned = policy.Periodic, map[backup.PointID]bool{s.Offers[0].ID: true}
	wantPlan(t, "it has begun", s, "a17 keep, a18 copy, a19 keep")
	wantPlan(t, "it is dated in the future", whole([]backup.Point{made("a", 25)}, made("a", 19)), "a19 keep, a25 copy")
	s = whole([]backup.Point{made("a", 20)}, made("a", 20))
	s.Held[0].Claimed, s.Offers[0].Via = false, "target"
	wantPlan(t, "it lies in the target for another job", s, "a20 claim")
}

// world is a job that lives through days: what it has, and what its source offers.
type world struct {
	s      Situation
	held   map[backup.PointID]Held
	gaveUp map[backup.PointID]Claim
	tiers  bool // the rules have slots
}

// carryOut does what a plan says, as the runner does.
func (w *world) carryOut(t *rapid.T, p IntervalPlan) {
	for _, m := range p.Machines {
		newest := &backup.Brief{}
		for _, step := range m.Steps {
			switch step.Action {
			case ActionCopy:
				if h, there := w.held[step.Point.ID]; there && h.State == backup.StateComplete {
					t.Fatalf("%s is copied twice", step.Point.ID.Short())
				}
				w.held[step.Point.ID] = Held{Brief: step.Point, Claimed: true, Claim: Claim{Flags: step.Slots, Flagged: w.tiers}}
				delete(w.gaveUp, step.Point.ID)
			case ActionKeep:
				h := w.held[step.Point.ID]
				if !h.Claim.Flagged {
					h.Claim = Claim{Flags: step.Slots, Flagged: w.tiers}
				}
				w.held[step.Point.ID] = h
			case ActionRemove:
				w.gaveUp[step.Point.ID] = w.held[step.Point.ID].Claim
				delete(w.held, step.Point.ID)
			}
			if good := step.Point.State == backup.StateComplete && (step.OnTarget || step.Action == ActionCopy); good && !step.Point.Created.Before(newest.Created) {
				newest = step.Point
			}
		}
		if _, there := w.held[newest.ID]; newest.ID != (backup.PointID{}) && !there {
			t.Fatalf("the newest good point of %s was removed", m.Machine.Name)
		}
	}
	w.s.Held = nil
	for _, h := range w.held {
		w.s.Held = append(w.s.Held, h)
	}
	slices.SortFunc(w.s.Held, func(a, b Held) int { return a.Created.Compare(b.Created) })
}

// Whatever a source offers: the newest good point stays; nothing is copied twice, nor copied and removed in one interval;
// after an interval the next one has nothing to copy and nothing to remove. Rules may change meanwhile: with backfill of all there is
// then nothing that the job gave up, that a source still has, and that the rules would keep.
func TestIntervalInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{s: backedUp(nil), held: map[backup.PointID]Held{}, gaveUp: map[backup.PointID]Claim{}}
		w.s.Forgotten = func(id backup.PointID) (Tombstone, bool) {
			claim, gone := w.gaveUp[id]
			return Tombstone{Reason: policy.NoRuleKeeps, Own: true, Claim: claim}, gone
		}
		var rules policy.Retention
		drawRules := func() {
			rules = policy.Retention{Points: rapid.IntRange(0, 5).Draw(t, "points"), Days: rapid.IntRange(0, 6).Draw(t, "days")}
			rules.Tiers[policy.Weekly].Keep = rapid.IntRange(0, 2).Draw(t, "weeks")
			w.s.Retention, w.tiers = keeping(rules), rules.HasTiers()
		}
		drawRules()
		w.s.Mode = rapid.SampledFrom([]policy.Mode{policy.Periodic, policy.Immediate, policy.Manual}).Draw(t, "mode")
		w.s.Lookup.Backfill = rapid.SampledFrom([]policy.Backfill{0, 2, policy.BackfillAll}).Draw(t, "backfill")
		w.s.Selected = []backup.MachineKey{made("a", 1).Machine.Key, made("b", 1).Machine.Key}
		for day := range rapid.IntRange(2, 25).Draw(t, "intervals") {
			for _, machine := range []string{"a", "b"} {
				if rapid.IntRange(0, 3).Draw(t, "made") > 0 {
					p := made(machine, day+1)
					p.State = rapid.SampledFrom([]backup.State{backup.StateComplete, backup.StateComplete, backup.StateBroken, backup.StateLocked}).Draw(t, "state")
					w.s.Offers = append(w.s.Offers, Offer{Brief: brief(p), Grew: p.Created})
				}
			}
			if rapid.IntRange(0, 5).Draw(t, "change") == 0 {
				drawRules()
			}
			w.s.Now = time.Date(2026, 3, day+1, 13, 0, 0, 0, time.UTC)
			w.s.Interval = policy.Interval{Begins: w.s.Now.Add(-time.Hour), Ends: w.s.Now.Add(23 * time.Hour)}
			w.carryOut(t, Interval(w.s))
			// A second look without anything new.
			if again := Interval(w.s); len(again.Steps(ActionCopy))+len(again.Steps(ActionClaim))+len(again.Steps(ActionRemove)) > 0 {
				t.Fatalf("day %d, then again: %s", day, told(again))
			}
			w.missesNothing(t, rules)
		}
	})
}

// missesNothing wants that with backfill of all nothing is left out that the job gave up and that the rules would keep.
func (w *world) missesNothing(t *rapid.T, rules policy.Retention) {
	if w.s.Lookup.Backfill != policy.BackfillAll {
		return
	}
	for _, o := range w.s.Offers {
		claim, gone := w.gaveUp[o.ID]
		if o.State != backup.StateComplete || !gone {
			continue
		}
		var candidates []policy.Candidate
		for _, h := range w.s.Held {
			if h.Machine.Key == o.Machine.Key {
				candidates = append(candidates, policy.Candidate{ID: h.ID, Created: h.Created, Good: true, Flags: h.Claim.Flags, Flagged: h.Claim.Flagged})
			}
		}
		verdicts := rules.Decide(append(candidates, policy.Candidate{ID: o.ID, Created: o.Created, Good: true, Flags: claim.Flags, Flagged: claim.Flagged}), w.s.Now)
		if len(candidates) > 0 && verdicts[len(candidates)].Keep {
			t.Fatalf("%s of %s does not come back: %v", o.ID.Short(), o.Created, verdicts[len(candidates)].Reasons)
		}
	}
}

// BenchmarkInterval plans an interval of 2,000 machines and 100,000 points, half of them on both sides, with full rules.
func BenchmarkInterval(b *testing.B) {
	rules := policy.Retention{Days: 14}
	for tier, keep := range map[policy.Tier]int{policy.Weekly: 4, policy.Monthly: 12, policy.Quarterly: 4, policy.Yearly: 3} {
		rules.Tiers[tier].Keep = keep
	}
	s := backedUp(nil)
	s.Retention = keeping(rules)
	for machine := range 2000 {
		name := fmt.Sprint("machine", machine)
		s.Selected = append(s.Selected, made(name, 1).Machine.Key)
		for k := range 50 {
			p := made(name, 20-k)
			if k < 25 {
				s.Offers = append(s.Offers, Offer{Brief: brief(p)})
			}
			if k > 0 {
				s.Held = append(s.Held, Held{Brief: brief(p), Claimed: true, Claim: Claim{Flags: []string{"none"}, Flagged: true}})
			}
		}
	}
	for b.Loop() {
		if copies := len(Interval(s).Steps(ActionCopy)); copies != 2000 {
			b.Fatalf("%d copies", copies)
		}
	}
}
