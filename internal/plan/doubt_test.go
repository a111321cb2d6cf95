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

const unreadable = "source pve is not listed whole: old: permission denied"

// inDoubt is a job of three machines of which the rules give up the older point, and whose source could not be listed whole.
func inDoubt(offers ...backup.Point) Situation {
	var held []backup.Point
	for _, name := range []string{"a", "b", "c"} {
		held = append(held, made(name, 1), made(name, 2))
	}
	s := backedUp(offers, held...)
	s.Retention = keeping(policy.Retention{Points: 1})
	s.AllRules = []policy.Retention{{Points: 1}}
	s.Doubt = unreadable
	return s
}

// wantReason looks for the first reason of the oldest point of a machine.
func wantReason(t *testing.T, p IntervalPlan, machine, want string) {
	t.Helper()
	for _, m := range p.Machines {
		if m.Machine.Name == machine && !strings.HasPrefix(m.Steps[0].Reasons[0], want) {
			t.Errorf("%s: %q, not %q", machine, m.Steps[0].Reasons[0], want)
		}
	}
}

// What is listed is kept by its rules although something else could not be listed. What is not listed at all is left as it is.
func TestDoubtKeepsWhatIsNotListed(t *testing.T) {
	s := inDoubt(made("a", 2), made("b", 2))
	p := wantPlan(t, "one is not listed", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 keep, c2 keep")
	wantReason(t, p, "c", "nothing of it is removed: "+unreadable)
	if p.Frozen != "" || len(p.Alarms) > 0 || !p.Machines[2].Missing.IsZero() {
		t.Errorf("frozen %q, alarms %v, missing since %s", p.Frozen, p.Alarms, p.Machines[2].Missing)
	}
	s.Offers, s.Selected = s.Offers[:1], s.Selected[:1]
	p = wantPlan(t, "two are not listed", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	if p.Frozen != unreadable+", and 2 of 3 machines that the job has copied are not listed" || len(p.Alarms) > 0 {
		t.Errorf("frozen %q, alarms %v", p.Frozen, p.Alarms)
	}
	wantReason(t, p, "a", "nothing is removed: "+p.Frozen)
}

// A point that is not listed may give its machine other rules.
func TestDoubtKeepsByAllRules(t *testing.T) {
	s := inDoubt(made("a", 2), made("b", 2), made("c", 2))
	s.AllRules = append(s.AllRules, policy.Retention{Points: 2})
	p := wantPlan(t, "rules that keep two", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	wantReason(t, p, "a", "other rules of the job keep it")
	if o := p.Steps(ActionKeep)[0].Outlook; o != (policy.Outlook{}) {
		t.Errorf("said to go by rules that give it up already: %+v", o)
	}
	s.AllRules[1] = policy.Retention{}
	wantPlan(t, "rules that keep all", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	s.Doubt = ""
	wantPlan(t, "without doubt", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
}

// A damaged point may be mended from what is not listed.
func TestDoubtKeepsWhatIsDamaged(t *testing.T) {
	s := inDoubt(made("a", 2), made("b", 2), made("c", 2))
	s.Held[0].State = backup.StateBroken
	wantReason(t, wantPlan(t, "damaged", s, "a1 keep, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep"), "a", "it is damaged, and may be whole in what is not listed: ")
	s.Doubt = ""
	wantPlan(t, "without doubt", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
}

// With whom target.map puts a machine's points depends on what the sources have.
func TestDoubtKeepsWhatIsLinked(t *testing.T) {
	s := inDoubt(made("a", 2), made("b", 2))
	s.Map = mapping("a", "job", "c")
	s.Job = "job"
	wantPlan(t, "linked", s, "a1 keep, a1 keep, a2 keep, a2 keep, b1 remove, b2 keep")
	s.Doubt = ""
	wantPlan(t, "without doubt", s, "a1 remove, a1 remove, a2 keep, a2 remove, b1 remove, b2 keep")
}

// While nothing may be listed machines are where they were when all was. Nothing goes by what that does not say.
func TestUnreadGoesByTheLastListing(t *testing.T) {
	s := inDoubt()
	s.Doubt = "the window is closed"
	wantPlan(t, "never listed whole", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	s.Unread = true
	p := wantPlan(t, "listed before", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
	if p.Frozen != "" || len(p.Alarms) > 0 || !p.Machines[0].Missing.IsZero() {
		t.Errorf("frozen %q, alarms %v, missing since %s", p.Frozen, p.Alarms, p.Machines[0].Missing)
	}
	a, b := made("a", 1).Machine.Key, made("b", 1).Machine.Key
	s.Missing = map[backup.MachineKey]time.Time{a: noon.AddDate(0, 0, -1), b: noon.AddDate(0, 0, -1)}
	p = wantPlan(t, "two had just gone", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
	if p.Frozen != "2 of 3 machines that the job has copied are in no source any more" || len(p.Alarms) > 0 {
		t.Errorf("frozen %q, alarms %v", p.Frozen, p.Alarms)
	}
	s.Missing[a], s.Missing[b] = noon.AddDate(0, 0, -8), noon.AddDate(0, 0, -8)
	wantPlan(t, "two had gone long ago", s, "a1 remove, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
	s.Missing, s.Retired, s.PurgeAfter = nil, map[backup.MachineKey]time.Time{a: noon.AddDate(0, 0, -9)}, 24*time.Hour
	wantPlan(t, "one is retired", s, "a1 keep, a2 keep, b1 remove, b2 keep, c1 remove, c2 keep")
	s.Retired, s.Map = nil, mapping("a", "job", "c")
	wantPlan(t, "with target.map", s, "a1 keep, a1 keep, a2 keep, a2 keep, b1 keep, b2 keep")
	s.Map, s.AllRules = nil, append(s.AllRules, policy.Retention{Points: 2})
	wantPlan(t, "rules that keep two", s, "a1 keep, a2 keep, b1 keep, b2 keep, c1 keep, c2 keep")
}

// Whatever it is that was not listed: nothing goes that would not go as well if all was listed, and held and mended what the job
// then would hold and mend.
func TestDoubtProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := map[string]policy.Retention{"": drawRules(t), "web": drawRules(t), "db": drawRules(t)}
		seen := Situation{
			Mode: policy.Periodic, Now: noon.AddDate(0, 0, 2), TargetID: "target", Job: "job", PurgeAfter: 24 * time.Hour,
			Retention: func(m backup.Machine) policy.Retention { return rules[slices.Concat(m.Labels, []string{""})[0]] },
			AllRules:  []policy.Retention{rules[""], rules["web"], rules["db"]},
			Missing:   map[backup.MachineKey]time.Time{}, Retired: map[backup.MachineKey]time.Time{},
		}
		if rapid.Bool().Draw(t, "map") {
			seen.Map = mapping("a", "*", "b")
		}
		whole := seen
		seen.Doubt = unreadable
		for _, name := range []string{"a", "b", "c", "d"} {
			key := made(name, 1).Machine.Key
			if rapid.IntRange(0, 3).Draw(t, "missing") == 0 {
				seen.Missing[key] = noon.AddDate(0, 0, -rapid.IntRange(0, 9).Draw(t, "missing for"))
			}
			if rapid.IntRange(0, 3).Draw(t, "retired") == 0 {
				seen.Retired[key] = noon.AddDate(0, 0, -rapid.IntRange(0, 3).Draw(t, "retired for"))
			}
			places := rapid.SampledFrom([][]string{{"none"}, {"none", "none", "seen", "hidden"}}).Draw(t, "places")
			for day := 1; day <= 20; day++ {
				drawPoint(t, &seen, &whole, name, day, places)
			}
		}
		if rapid.Bool().Draw(t, "unread") { // what is in no source has gone by the last listing
			seen.Offers, seen.Unread = nil, true
			for _, name := range []string{"a", "b", "c", "d"} {
				key := made(name, 1).Machine.Key
				there := slices.ContainsFunc(whole.Offers, func(o Offer) bool { return o.Machine.Key == key })
				if _, known := seen.Missing[key]; !known && !there {
					seen.Missing[key] = seen.Now
				}
			}
		}
		goes := map[backup.PointID]bool{}
		for _, step := range Interval(whole).Steps(ActionRemove) {
			goes[step.Point.ID] = true
		}
		for _, step := range Interval(seen).Steps(ActionRemove) {
			if !goes[step.Point.ID] {
				t.Fatalf("%s of %s is removed, and would not be if all was listed\n%s\n%s", step.Point.Created, step.Point.Machine.Key, told(Interval(seen)), told(Interval(whole)))
			}
		}
	})
}

func drawRules(t *rapid.T) policy.Retention {
	rules := policy.Retention{Points: rapid.IntRange(0, 3).Draw(t, "points"), Days: rapid.IntRange(0, 4).Draw(t, "days")}
	rules.Tiers[policy.Weekly].Keep = rapid.IntRange(0, 2).Draw(t, "weeks")
	return rules
}

// drawPoint draws what there is of a day: in what was listed, only in what there is in all, and held.
func drawPoint(t *rapid.T, seen, whole *Situation, name string, day int, places []string) {
	p := made(name, day)
	if name == "d" { // another machine of the same name as the first
		p.Machine.Name = "a"
	}
	p.Machine.Labels = rapid.SampledFrom([][]string{nil, nil, {"web"}, {"db"}}).Draw(t, "label")
	offered := rapid.SampledFrom(places).Draw(t, "offered")
	if offered != "none" {
		o := Offer{Brief: brief(p)}
		whole.Offers = append(whole.Offers, o)
		if offered == "seen" {
			seen.Offers = append(seen.Offers, o)
		}
	}
	claim := Claim{Flagged: rapid.Bool().Draw(t, "flagged")}
	if claim.Flagged && rapid.Bool().Draw(t, "fills its week") {
		claim.Flags = []string{policy.Retention{}.SlotAt(policy.Weekly, p.Created).String()}
	}
	held := Held{Brief: brief(p), Claimed: true, Claim: claim}
	switch rapid.IntRange(0, 3).Draw(t, "held") {
	case 0: // the job holds it
		whole.Held, seen.Held = append(whole.Held, held), append(seen.Held, held)
	case 1: // it is damaged, and mended if it is offered
		damaged, bad := held, p
		bad.State = backup.StateBroken
		damaged.Brief = brief(bad)
		seen.Held = append(seen.Held, damaged)
		if offered == "none" {
			held = damaged
		}
		whole.Held = append(whole.Held, held)
	case 2:
		if offered == "hidden" { // it would have been copied
			whole.Held = append(whole.Held, held)
		}
	}
}

// mapping maps one machine to a backup of another, by their names.
func mapping(machine, job, of string) []policy.Mapping {
	return []policy.Mapping{{Machine: policy.Selector(machine), Backup: policy.BackupRef{Job: job, Machine: policy.Selector(of)}}}
}
