package plan

import (
	"slices"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// moved is the point of a machine whose source has another name: another machine by its id, with the same name.
func moved(machine string, day int) backup.Point {
	p := made(machine, day)
	p.Machine.Key.SourceName = "moved"
	p.ID = backup.NewPointID(p.Machine.Key, p.Created.String())
	return p
}

// mapped is a job "offsite" with one entry of target.map, over points that another job has in the target.
func mapped(machine policy.Selector, job string, theirs policy.Selector, offers []backup.Point, held ...backup.Point) Situation {
	s := backedUp(offers, held...)
	s.Job = "offsite"
	for i := range s.Held {
		s.Held[i].Claimed, s.Held[i].Others = false, []string{"manual"}
	}
	s.Map = []policy.Mapping{{Machine: machine, Backup: policy.BackupRef{Job: job, Machine: theirs}}}
	return s
}

// claimed is the situation after the claims of a plan.
func claimed(s Situation, p IntervalPlan) Situation {
	s.Held = slices.Clone(s.Held)
	for _, step := range p.Steps(ActionClaim) {
		for i := range s.Held {
			s.Held[i].Claimed = s.Held[i].Claimed || s.Held[i].ID == step.Point.ID
		}
	}
	return s
}

// The first interval claims what the target has in the backup; then it is the job's, by its rules.
func TestMapClaimsTheBackup(t *testing.T) {
	s := mapped("a", "manual", "a", []backup.Point{made("a", 9)}, made("a", 1), made("a", 2), made("a", 3))
	s.Retention = keeping(policy.Retention{Points: 3})
	p := wantPlan(t, "seeded", s, "a1 not kept, a2 claim, a3 claim, a9 copy")
	if m := p.Machines[0].Mapped; len(m) != 1 || m[0].Backup != "manual/a" || m[0].Points != 3 {
		t.Errorf("mapped %+v", m)
	}
	wantPlan(t, "claimed", claimed(s, p), "a1 not kept, a2 keep, a3 keep, a9 copy")
	s.Map[0].Backup.Job = "other"
	wantPlan(t, "of another job", s, "a1 not selected, a2 not selected, a3 not selected, a9 refused")
	s.Map[0].Backup.Job = "*"
	wantPlan(t, "of any job", s, "a1 not kept, a2 claim, a3 claim, a9 copy")
}

// Without map the job copies anew what it does not find under its machine's id.
func TestMapLinksAMachineWithAnotherId(t *testing.T) {
	offers := []backup.Point{moved("a", 2), moved("a", 3)}
	s := mapped("a", "manual", "a", offers, made("a", 1), made("a", 2))
	s.Retention = keeping(policy.Retention{Points: 2})
	s.Lookup.Backfill = policy.BackfillAll
	p := wantPlan(t, "seeded", s, "a1 not kept, a2 older, a2 claim, a3 copy")
	if links := s.Links()[made("a", 1).Machine.Key]; links != offers[0].Machine.Key {
		t.Errorf("links %v", s.Links())
	}
	for _, m := range p.Machines {
		for _, step := range m.Steps {
			if step.Point.Machine.Key != offers[0].Machine.Key {
				t.Errorf("a step of %s", step.Point.Machine.Key)
			}
		}
	}
	s = claimed(s, p)
	s.Held = append(s.Held, Held{Brief: brief(offers[1]), Claimed: true})
	wantPlan(t, "the rules count both", s, "a1 not kept, a2 older, a2 keep, a3 keep")
	s.Held[1].Others = nil // the other job has given it up
	s.Offers = append(s.Offers, Offer{Brief: brief(moved("a", 4))})
	wantPlan(t, "the link stays", s, "a1 not kept, a2 older, a2 remove, a3 keep, a4 copy")
	s.Held = s.Held[2:]
	wantPlan(t, "the seed has gone", s, "a2 older, a3 keep, a4 copy")
	s.Map = nil
	wantPlan(t, "without map", s, "a2 older, a3 keep, a4 copy")
}

// Who asks for a point whole from the source gets it, though its state is there under the other id.
func TestMapAndWholePoints(t *testing.T) {
	s := mapped("a", "manual", "a", []backup.Point{moved("a", 1), moved("a", 2)}, made("a", 1), made("a", 2))
	s.Full = true
	wantPlan(t, "the newest", s, "a1 older, a1 claim, a2 copy, a2 claim")
}

// In immediate mode too, no state is copied that is there under the other id.
func TestMapInImmediateMode(t *testing.T) {
	s := mapped("a", "manual", "a", []backup.Point{moved("a", 1), moved("a", 2), moved("a", 3)}, made("a", 1), made("a", 2))
	s.Mode = policy.Immediate
	wantPlan(t, "every later point", s, "a1 older, a1 claim, a2 older, a2 claim, a3 copy")
}

// Nothing is copied anew because of a slip in target.map.
func TestMapThatCannotBeFollowedIsRefused(t *testing.T) {
	offers := []backup.Point{moved("a", 2), moved("a", 3), made("b", 3)}
	refused := func(what string, s Situation, want string) {
		t.Helper()
		p := Interval(s)
		if got := told(p); !strings.Contains(got, "a2 refused, a3 refused") || !strings.Contains(got, "b3 copy") {
			t.Errorf("%s: %s", what, got)
		}
		if p.Machines[0].Refused == "" || !strings.Contains(p.Machines[0].Refused, want) {
			t.Errorf("%s: %q", what, p.Machines[0].Refused)
		}
		failures := 0
		for _, step := range p.Machines[0].Steps {
			if step.Failure {
				failures++
			}
		}
		if failures != 1 {
			t.Errorf("%s: %d failures", what, failures)
		}
	}
	refused("no such backup", mapped("a", "manual", "x", offers, made("a", 1)), "the target has no such backup")
	refused("no such job", mapped("a", "first", "a", offers, made("a", 1)), "the target has no such backup")
	twice := mapped("a", "manual", "a", offers, made("a", 1), made("c", 1))
	twice.Held[1].Machine.Name = "a"
	refused("several backups", twice, "several such backups: image/s/a, image/s/c")
	linked := mapped("a", "manual", "a", offers, made("a", 1))
	linked.Map = append(linked.Map, policy.Mapping{Machine: "b", Backup: policy.BackupRef{Job: "manual", Machine: "a"}})
	p := Interval(linked)
	if p.Machines[1].Refused == "" || p.Machines[0].Refused != "" {
		t.Errorf("one backup mapped twice: %+v", p.Machines)
	}
	several := mapped("a", "manual", "x", append(offers, made("a", 5)), made("x", 1))
	if p := Interval(several); p.Machines[0].Refused == "" || !strings.Contains(p.Machines[0].Refused, "image/moved/a, image/s/a") {
		t.Errorf("several machines: %+v", p.Machines[0])
	}
	// A machine that the job holds points of goes on.
	holds := mapped("a", "manual", "x", offers, made("a", 1), moved("a", 2))
	holds.Held[1].Claimed = true
	wantPlan(t, "held already", holds, "a2 keep, a3 copy, b3 copy, a1 not selected")
}

// A pattern links nothing: it only gives the job what the target has under the same id.
func TestMapByPattern(t *testing.T) {
	offers := []backup.Point{made("a", 3), moved("b", 3)}
	s := mapped("*", "manual", "*", offers, made("a", 1), made("b", 1))
	p := wantPlan(t, "all that is the same", s, "a1 claim, a3 copy, b3 copy, b1 not selected")
	if len(p.Warnings) != 0 || len(s.Links()) != 0 {
		t.Errorf("%v, %v", p.Warnings, s.Links())
	}
	s = mapped("*", "manual", "*", offers[1:], made("b", 1))
	if p := wantPlan(t, "one on each side", s, "b3 copy, b1 not selected"); len(p.Warnings) != 1 {
		t.Errorf("%v", p.Warnings)
	}
	s = mapped("x", "manual", "a", offers[:1], made("a", 1))
	if p := wantPlan(t, "no such machine", s, "a1 not selected, a3 copy"); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "no source has such a machine") {
		t.Errorf("%v", p.Warnings)
	}
}

// Machines that are linked, and that a source has both, are one: the newest point of both is taken.
func TestMapOfMachinesThatBothAreInASource(t *testing.T) {
	offers := []backup.Point{made("a", 1), made("a", 2), moved("b", 3)}
	s := mapped("b", "manual", "a", offers, made("a", 1))
	wantPlan(t, "one machine", s, "b1 claim, b2 older, b3 copy")
	s.Selected = s.Selected[2:]
	wantPlan(t, "the old one is not copied", s, "b1 claim, b3 copy, a1 not selected, a2 not selected")
	s = mapped("b", "manual", "a", offers, made("a", 1))
	s.Selected = s.Selected[:1]
	wantPlan(t, "only the old one is copied", s, "a1 older, a2 copy, b3 not selected")
	// Each to the other is no order.
	s = mapped("b", "manual", "a", []backup.Point{made("a", 4), moved("b", 3)}, made("a", 1), moved("b", 1))
	s.Map = append(s.Map, policy.Mapping{Machine: "a", Backup: policy.BackupRef{Job: "manual", Machine: "b"}})
	p := Interval(s)
	if len(p.Machines) != 1 || len(p.Warnings) != 1 {
		t.Errorf("%s; %v", told(p), p.Warnings)
	}
}
