package policy

import (
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// cand is a good point created at an instant; its id is its number.
func cand(n int, created time.Time) Candidate {
	c := Candidate{Created: created, Good: true}
	binary.BigEndian.PutUint32(c.ID[:], uint32(n))
	return c
}

// What the outlook says is the earliest: no series of new points makes a point go before, and the one that it names does.
func TestOutlookIsTheEarliest(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		r := Retention{Zone: rapid.SampledFrom([]*time.Location{time.UTC, berlin}).Draw(t, "zone")}
		r.Points = rapid.SampledFrom([]int{0, 1, 4}).Draw(t, "points")
		r.Days = rapid.SampledFrom([]int{0, 1, 5}).Draw(t, "days")
		for tier := range tiers {
			r.Tiers[tier].Keep = rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, tier.String())
		}
		r.Tiers[Weekly].On = OnWeekday(time.Weekday(rapid.IntRange(0, 6).Draw(t, "weekday")))
		if r.Empty() {
			r.Points = 2
		}
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		at := start.Add(time.Duration(rapid.IntRange(0, 700*24).Draw(t, "start")) * time.Hour)
		var points []Candidate
		for n := range rapid.IntRange(1, 9).Draw(t, "n") {
			at = at.Add(time.Duration(rapid.IntRange(1, 30*24).Draw(t, "step")) * time.Hour)
			points = append(points, cand(n, at))
		}
		decide := func(all []Candidate) []Verdict { return r.Decide(all, at.AddDate(20, 0, 0)) }
		verdicts := decide(points)
		for i := range points { // what Decide found is decided from now on
			points[i].Flags, points[i].Flagged = verdicts[i].Slots, true
		}
		for i, o := range r.Outlook(points, verdicts) {
			if !verdicts[i].Keep {
				if o != (Outlook{}) {
					t.Fatalf("point %d goes now, and its outlook is %+v", i, o)
				}
				continue
			}
			gone := func(coming []time.Time) bool {
				all := points
				for k, created := range coming {
					all = append(all[:len(all):len(all)], cand(100+k, created))
				}
				return !decide(all)[i].Keep
			}
			var few, early []time.Time // too few, however late; many, but too early
			for k := range o.Points - 1 {
				few = append(few, at.AddDate(5+3*k, 0, 0))
			}
			for k := range 40 {
				early = append(early, at.Add(o.From.Sub(at)/40*time.Duration(k)+1))
			}
			if gone(few) {
				t.Fatalf("point %d went after %d points, its outlook is %+v; %+v", i, len(few), o, r)
			}
			if !o.From.IsZero() && gone(early) {
				t.Fatalf("point %d went before %s, its outlook is %+v; %+v", i, o.From, o, r)
			}
			// A point in every hour that begins a day until then, and as many as are needed after it.
			var coming []time.Time
			for day := dateOf(at, r.zone()).add(1); !o.From.IsZero() && day.begin(r.zone()).Before(o.From); day = day.add(1) {
				coming = append(coming, day.begin(r.zone()))
			}
			last := at
			if !o.From.IsZero() {
				last = o.From
			}
			for k := range o.Points {
				coming = append(coming, last.Add(time.Duration(k+1)*time.Nanosecond))
			}
			if !gone(coming) {
				t.Fatalf("point %d of %s stays after %d points until %s, its outlook is %+v; %+v", i, points[i].Created, len(coming), last, o, r)
			}
		}
	})
}

func TestOutlookWithoutRules(t *testing.T) {
	points := []Candidate{cand(1, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	var r Retention
	if o := r.Outlook(points, r.Decide(points, points[0].Created)); !o[0].Never {
		t.Errorf("%+v", o)
	}
}
