package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

// on makes good points at the days given, at three in the morning UTC.
func on(days ...string) []Candidate {
	var points []Candidate
	for i, day := range days {
		at, err := time.Parse("2006-01-02 15:04", day+" 03:00")
		if err != nil {
			panic(err)
		}
		points = append(points, Candidate{ID: backup.PointID{byte(i + 1)}, Created: at, Good: true})
	}
	return points
}

// everyDay makes n good points, the last on the day given.
func everyDay(n int, last string) []Candidate {
	at, err := time.Parse("2006-01-02 15:04", last+" 03:00")
	if err != nil {
		panic(err)
	}
	var points []Candidate
	for i := range n {
		points = append(points, Candidate{ID: backup.PointID{byte(i), byte(i >> 8)}, Created: at.AddDate(0, 0, i-n+1), Good: true})
	}
	return points
}

func kept(points []Candidate, verdicts []Verdict) string {
	var days []string
	for i, v := range verdicts {
		if v.Keep {
			days = append(days, points[i].Created.Format(time.DateOnly)[2:])
		}
	}
	return strings.Join(days, " ")
}

// bad makes some of the points damaged.
func bad(points []Candidate, damaged ...int) []Candidate {
	for _, i := range damaged {
		points[i].Good = false
	}
	return points
}

func TestRetention(t *testing.T) {
	clock := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	tiers := func(weekly, monthly, quarterly, yearly int) [tiers]Keep {
		return [tiers]Keep{{Keep: weekly}, {Keep: monthly}, {Keep: quarterly}, {Keep: yearly}}
	}
	damaged := on("2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24")
	damaged[3].Good, damaged[4].Good = false, false
	for _, c := range []struct {
		what   string
		rules  Retention
		points []Candidate
		want   string
	}{
		{"no rules keep everything", Retention{}, everyDay(4, "2026-11-24"), "26-11-21 26-11-22 26-11-23 26-11-24"},
		{"a number that is not reached lets no damaged point go", Retention{Points: 3}, bad(on("2026-11-20", "2026-11-23", "2026-11-24"), 0), "26-11-20 26-11-23 26-11-24"},
		{"a number that is reached lets damaged points go", Retention{Points: 2}, bad(on("2026-11-20", "2026-11-23", "2026-11-24"), 0), "26-11-23 26-11-24"},
		{"days reach back to damaged points", Retention{Days: 4}, bad(on("2026-11-19", "2026-11-20", "2026-11-22", "2026-11-23", "2026-11-24"), 0, 1), "26-11-20 26-11-22 26-11-23 26-11-24"},
		{"points", Retention{Points: 2}, everyDay(5, "2026-11-24"), "26-11-23 26-11-24"},
		// The reference day and 3 before it: four calendar days.
		{"days are calendar days before the newest", Retention{Days: 3}, everyDay(9, "2026-11-24"), "26-11-21 26-11-22 26-11-23 26-11-24"},
		{"days keep three points at least", Retention{Days: 1}, on("2026-08-01", "2026-09-01", "2026-10-01", "2026-11-24"), "26-09-01 26-10-01 26-11-24"},
		{"a source that stopped loses nothing", Retention{Days: 3}, everyDay(5, "2024-01-05"), "24-01-02 24-01-03 24-01-04 24-01-05"},
		{"points and days are a union", Retention{Points: 3, Days: 1}, everyDay(5, "2026-11-24"), "26-11-22 26-11-23 26-11-24"},
		// Sundays: 1, 8, 15, 22 November. The slot from 22nd is filled by 22nd.
		{"weekly", Retention{Points: 1, Tiers: tiers(2, 0, 0, 0)}, everyDay(24, "2026-11-24"), "26-11-15 26-11-22 26-11-24"},
		{"a missed anchor is filled by the next point", Retention{Points: 1, Tiers: tiers(2, 0, 0, 0)}, on("2026-11-14", "2026-11-17", "2026-11-18", "2026-11-24", "2026-11-25"), "26-11-17 26-11-24 26-11-25"},
		{"only filled slots count", Retention{Points: 1, Tiers: tiers(2, 0, 0, 0)}, on("2026-09-01", "2026-09-02", "2026-11-24"), "26-09-01 26-11-24"},
		// Without weekly the month begins on its first day; with weekly on its first Sunday: 6 September, 4 October, 1 November.
		{"monthly", Retention{Tiers: tiers(0, 2, 0, 0)}, everyDay(60, "2026-11-24"), "26-10-01 26-11-01 26-11-24"},
		{"monthly from the weekly anchor", Retention{Tiers: tiers(1, 2, 0, 0)}, everyDay(60, "2026-11-24"), "26-10-04 26-11-01 26-11-22 26-11-24"},
		{"quarterly and yearly", Retention{Tiers: tiers(0, 0, 2, 1)}, everyDay(400, "2026-11-24"), "26-01-01 26-07-01 26-10-01 26-11-24"},
		{"the first point fills every open slot", Retention{Points: 1, Tiers: tiers(1, 1, 1, 1)}, on("2026-11-18", "2026-11-19", "2026-11-20"), "26-11-18 26-11-20"},
		// 23rd and 24th are bad: the newest two good are 21 and 22; the bad ones are younger and stay.
		{"damaged points do not count", Retention{Points: 2}, damaged, "26-11-21 26-11-22 26-11-23 26-11-24"},
		{"damaged points younger than the newest good one stay by any rules", Retention{Tiers: tiers(1, 0, 0, 0)}, bad(on("2026-11-18", "2026-11-23", "2026-11-24", "2026-11-25"), 0, 2, 3), "26-11-23 26-11-24 26-11-25"},
		{"no good point", Retention{Points: 1}, []Candidate{{Created: clock}, {Created: clock.Add(-time.Hour)}}, "26-11-25 26-11-25"},
		{"dated a month ahead", Retention{Points: 1}, append(everyDay(3, "2026-11-24"), on("2026-12-24")...), "26-11-22 26-11-23 26-11-24 26-12-24"},
		{"dated half a day ahead", Retention{Points: 1}, on("2026-11-24", "2026-11-26"), "26-11-26"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if err := c.rules.Check(); err != nil {
				t.Fatal(err)
			}
			if got := kept(c.points, c.rules.Decide(c.points, clock)); got != c.want {
				t.Errorf("kept %s, want %s", got, c.want)
			}
		})
	}
}

func TestFlagsNeverMove(t *testing.T) {
	rules := Retention{Points: 1, Tiers: [tiers]Keep{{Keep: 4}}}
	points := on("2026-11-16", "2026-11-18", "2026-11-24")
	// Monday's copy was stored second and has no flag; the slot belongs to Wednesday's.
	points[0].Flagged = true
	points[1].Flagged, points[1].Flags = true, []string{"weekly:2026-11-15"}
	verdicts := rules.Decide(points, points[2].Created)
	if got := kept(points, verdicts); got != "26-11-18 26-11-24" {
		t.Errorf("kept %s", got)
	}
	if got := verdicts[2].Slots; !slices.Equal(got, []string{"weekly:2026-11-22"}) {
		t.Errorf("the new point fills %v", got)
	}
	// What a policy no longer names does no harm.
	points[1].Flags = []string{"weekly:2026-11-15", "fortnightly:2026-11-15", "weekly:never"}
	if got := kept(points, rules.Decide(points, points[2].Created)); got != "26-11-18 26-11-24" {
		t.Errorf("with foreign flags kept %s", got)
	}
}

// What is admitted and then stored stays, whatever else of the points came with it.
func TestWhatIsAdmittedStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetention(t)
		now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
		var held, coming []Candidate
		for i := range rapid.IntRange(1, 40).Draw(t, "n") {
			p := Candidate{ID: backup.PointID{byte(i)}, Good: true, Created: now.Add(-time.Duration(rapid.IntRange(0, 500*24).Draw(t, "hours")) * time.Hour)}
			if rapid.Bool().Draw(t, "held") {
				held = append(held, p)
			} else {
				coming = append(coming, p)
			}
		}
		store := func(points []Candidate) (stay []Candidate) {
			for i, v := range r.Decide(points, now) {
				if v.Keep {
					points[i].Flags, points[i].Flagged = v.Slots, true
					stay = append(stay, points[i])
				}
			}
			return stay
		}
		held = store(held)
		want := len(held)
		for i, v := range r.Admit(held, coming, now) {
			if v.Keep {
				held = append(held, coming[i])
			}
		}
		admitted := held[want:]
		stay := store(slices.Clone(held))
		for _, p := range admitted {
			if !slices.ContainsFunc(stay, func(other Candidate) bool { return other.ID == p.ID }) {
				t.Fatalf("the point of %s was admitted, and then goes", p.Created)
			}
		}
	})
}

// A good point more never keeps another one that goes without it.
func TestMorePointsKeepNoOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetention(t)
		now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
		var held, more []Candidate
		for i := range rapid.IntRange(1, 40).Draw(t, "n") {
			p := Candidate{ID: backup.PointID{byte(i)}, Good: true, Created: now.Add(-time.Duration(rapid.IntRange(0, 500*24).Draw(t, "hours")) * time.Hour)}
			if more = append(more, p); rapid.Bool().Draw(t, "held") {
				p.Good = rapid.IntRange(0, 3).Draw(t, "good") > 0
				if p.Flagged = rapid.Bool().Draw(t, "flagged"); p.Flagged && rapid.Bool().Draw(t, "fills its month") {
					p.Flags = []string{r.SlotAt(Monthly, p.Created).String()}
				}
				held, more[len(more)-1] = append(held, p), p
			}
		}
		keeps := map[backup.PointID]bool{}
		for i, v := range r.Decide(held, now) {
			keeps[held[i].ID] = v.Keep
		}
		for i, v := range r.Decide(more, now) {
			if kept, is := keeps[more[i].ID]; is && !kept && v.Keep {
				t.Fatalf("the point of %s is kept by others", more[i].Created)
			}
		}
	})
}

func TestCheck(t *testing.T) {
	for _, bad := range []Retention{
		{Points: -1}, {Days: -1}, {Tiers: [tiers]Keep{Monthly: {Keep: -1}}}, {Tiers: [tiers]Keep{Weekly: {Keep: 1, On: OnDay(3)}}},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestSlotNames(t *testing.T) {
	rules := Retention{Zone: zone(t, "Europe/Berlin")}
	for tier, want := range []string{"weekly:2026-11-22", "monthly:2026-11-01", "quarterly:2026-10-01", "yearly:2026-01-01"} {
		slot := rules.SlotAt(Tier(tier), time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC))
		if slot.String() != want {
			t.Errorf("%s, want %s", slot, want)
		}
		if again, err := ParseSlot(want); err != nil || again != slot {
			t.Errorf("%s reads back as %v, %v", want, again, err)
		}
	}
	for _, bad := range []string{"", "weekly", "weekly:", "weekly:2026-13-01", "daily:2026-11-22"} {
		if _, err := ParseSlot(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// Every slot holds its instants: it begins at or before each, the next begins after it, and neighbours meet.
func TestSlotsCoverTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetention(t)
		at := time.Unix(rapid.Int64Range(0, 3_000_000_000).Draw(t, "at"), 0)
		for tier := range tiers {
			slot := r.SlotAt(tier, at)
			begin := slot.anchor.begin(r.zone())
			if begin.After(at) {
				t.Fatalf("%s begins %s, after %s", slot, begin, at)
			}
			if again := r.SlotAt(tier, begin); again != slot {
				t.Fatalf("%s begins in %s", slot, again)
			}
			if before := r.SlotAt(tier, begin.Add(-1)); before == slot || !before.anchor.before(slot.anchor) {
				t.Fatalf("before %s comes %s", slot, before)
			}
		}
	})
}

func drawRetention(t *rapid.T) Retention {
	r := Retention{
		Points: rapid.IntRange(0, 5).Draw(t, "points"), Days: rapid.IntRange(0, 10).Draw(t, "days"),
		Zone: rapid.SampledFrom([]*time.Location{nil, mustZone("Europe/Berlin"), mustZone("America/Havana"), mustZone("Pacific/Apia"), mustZone("Asia/Kathmandu")}).Draw(t, "zone"),
	}
	for tier := range tiers {
		r.Tiers[tier].Keep = rapid.IntRange(0, 3).Draw(t, tier.String())
		if rapid.Bool().Draw(t, "on") {
			r.Tiers[tier].On = OnWeekday(time.Weekday(rapid.IntRange(0, 6).Draw(t, "weekday")))
			if tier != Weekly && rapid.Bool().Draw(t, "by day") {
				r.Tiers[tier].On = OnDay(rapid.IntRange(1, 31).Draw(t, "day"))
			}
		}
	}
	return r
}

func mustZone(name string) *time.Location {
	at, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return at
}

// What is kept is what each rule, written down once more in the plainest way, wants.
func TestRetentionAgainstTheRulesInWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetention(t)
		start := time.Date(2023, 12, 1, 0, 0, 0, 0, time.UTC)
		n := rapid.IntRange(0, 40).Draw(t, "n")
		var points []Candidate
		for i := range n {
			points = append(points, Candidate{
				ID: backup.PointID{byte(i)}, Good: rapid.IntRange(0, 5).Draw(t, "good") > 0,
				Created: start.Add(time.Duration(rapid.IntRange(0, 900*24).Draw(t, "hour")) * time.Hour),
			})
		}
		got := r.Decide(points, start.AddDate(3, 0, 0))
		for i, v := range got {
			if want := wanted(r, points, i); v.Keep != want {
				t.Fatalf("%s good=%v: keep %v (%v), want %v", points[i].Created, points[i].Good, v.Keep, v.Reasons, want)
			}
			if len(v.Reasons) == 0 {
				t.Fatal("a verdict without a reason")
			}
		}
	})
}

// wanted says whether point i is to be kept. It counts for each rule afresh.
func wanted(r Retention, points []Candidate, i int) bool {
	p := points[i]
	younger := func(than int) (n int) { // good points before it in the order of age
		for k, other := range points {
			if other.Good && (other.Created.After(points[than].Created) || other.Created.Equal(points[than].Created) && k < than) {
				n++
			}
		}
		return n
	}
	var newest time.Time
	for _, other := range points {
		if other.Good && other.Created.After(newest) {
			newest = other.Created
		}
	}
	if newest.IsZero() || r.Empty() {
		return true
	}
	local := func(at time.Time) time.Time {
		y, m, d := at.In(r.zone()).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	}
	within := func(k int) bool {
		return r.Days > 0 && local(newest).Sub(local(points[k].Created)) <= time.Duration(r.Days)*24*time.Hour
	}
	short := func(k int) bool {
		inDays := within(k) || r.Days > 0 && younger(k) < 3
		return points[k].Good && (younger(k) < r.Points || inDays)
	}
	if !p.Good {
		good := 0
		for _, other := range points {
			if other.Good {
				good++
			}
		}
		if good < r.Points || r.Days > 0 && good < 3 || within(i) {
			return true
		}
		for k := range points {
			if (short(k) || points[k].Good && younger(k) == 0) && !points[k].Created.After(p.Created) {
				return true
			}
		}
		return false
	}
	if short(i) || younger(i) == 0 {
		return true
	}
	for tier := range tiers {
		slot := r.SlotAt(tier, p.Created)
		first, newer := true, map[Slot]bool{}
		for k, other := range points {
			if !other.Good {
				continue
			}
			at := r.SlotAt(tier, other.Created)
			if at == slot && (other.Created.Before(p.Created) || other.Created.Equal(p.Created) && k > i) {
				first = false
			}
			if slot.anchor.before(at.anchor) {
				newer[at] = true
			}
		}
		if first && len(newer) < r.Tiers[tier].Keep {
			return true
		}
	}
	return false
}

func ExampleRetention_Decide() {
	rules := Retention{Points: 1, Tiers: [tiers]Keep{Weekly: {Keep: 1}}}
	points := on("2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24")
	for i, v := range rules.Decide(points, points[3].Created) {
		fmt.Println(points[i].Created.Format(time.DateOnly), v.Keep, strings.Join(v.Reasons, ", "))
	}
	// Output:
	// 2026-11-21 false no rule keeps it
	// 2026-11-22 true weekly: the first since 2026-11-22
	// 2026-11-23 false no rule keeps it
	// 2026-11-24 true the newest
}
