package plan_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/plan"
)

func anyPoints(t *rapid.T) []backup.Point {
	states := []backup.State{backup.StateComplete, backup.StateComplete, backup.StateLocked, backup.StateBroken, backup.StateUnsupported, backup.StateEncrypted}
	var points []backup.Point
	for i := range rapid.IntRange(0, 12).Draw(t, "points") {
		name := rapid.SampledFrom([]string{"web", "db", "test-1"}).Draw(t, "machine")
		key := backup.NewMachineKey(backup.PlatformProxmox, name, "", "dump")
		points = append(points, backup.Point{
			ID: backup.NewPointID(key, string(rune('a'+i))), Machine: backup.Machine{Key: key, Name: name},
			Created: time.Unix(rapid.Int64Range(0, 5).Draw(t, "created"), 0), State: rapid.SampledFrom(states).Draw(t, "state"),
		})
	}
	return points
}

// Carrying a plan out leaves nothing to do; what is copied is complete, in order of time, and no more than was asked for.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := anyPoints(t)
		there := map[backup.PointID]bool{}
		for _, p := range points {
			there[p.ID] = rapid.Bool().Draw(t, "there")
		}
		has := func(id backup.PointID) bool { return there[id] }
		request := plan.Request{All: rapid.Bool().Draw(t, "all")}
		if rapid.Bool().Draw(t, "some") {
			request.Machines = []string{rapid.SampledFrom([]string{"web", "*", "test-*", "proxmox/dump/db", "none"}).Draw(t, "glob")}
		}
		made := plan.Make(points, has, request)
		newest := map[backup.MachineKey]time.Time{}
		for _, step := range made.Copies() {
			p := step.Point
			if p.State != backup.StateComplete || there[p.ID] || !plan.Selected(p.Machine, request.Machines) {
				t.Fatalf("%+v is copied", p)
			}
			before, seen := newest[p.Machine.Key]
			if seen && (!request.All || p.Created.Before(before)) {
				t.Fatalf("%v of %s is copied behind %v", p.Created, p.Machine.Name, before)
			}
			newest[p.Machine.Key] = p.Created
			there[p.ID] = true
		}
		for _, p := range points {
			taken, any := newest[p.Machine.Key]
			if any && !request.All && p.State == backup.StateComplete && p.Created.After(taken) && plan.Selected(p.Machine, request.Machines) {
				t.Fatalf("%v of %s is newer than %v, which is taken", p.Created, p.Machine.Name, taken)
			}
		}
		if rest := plan.Make(points, has, request).Copies(); len(rest) > 0 {
			t.Fatalf("after the plan there is still %+v", rest)
		}
	})
}

// Each row lists the points of one machine, oldest first, as state and, behind a slash, "held" if the target has it, "forgotten" if it gave it up; and
// what becomes of each, with "!" where that is a failure of the machine.
func TestWhatBecomesOfEachPoint(t *testing.T) {
	for _, c := range []struct {
		what     string
		points   string
		request  plan.Request
		expected string
	}{
		{"the newest complete point is taken", "complete complete", plan.Request{}, "older,copy"},
		{"all, oldest first", "complete complete/held complete", plan.Request{All: true}, "copy,already there,copy"},
		{"nothing to do", "complete/held complete/held", plan.Request{}, "already there,already there"},
		{"a locked point is waited for, the one before is taken", "complete locked", plan.Request{}, "copy,locked"},
		{"an older broken point is only mentioned", "broken complete", plan.Request{}, "broken,copy"},
		{"a broken point that is newer than what is taken fails", "complete broken", plan.Request{}, "copy,broken!"},
		{"a broken point that was asked for fails", "broken complete", plan.Request{All: true}, "broken!,copy"},
		{"so does one of a machine that was named", "broken complete", plan.Request{Machines: []string{"vm"}}, "broken!,copy"},
		{"a machine with nothing else fails", "broken", plan.Request{}, "broken!"},
		{"unsupported and encrypted never fail", "unsupported encrypted", plan.Request{All: true}, "unsupported,encrypted"},
		{"nothing older than what is held is taken", "complete broken/held", plan.Request{}, "older,already there"},
		{"what is held does not hide what is newer", "complete complete/held complete", plan.Request{}, "older,already there,copy"},
		{"what was given up does not come back", "complete/forgotten complete complete/forgotten", plan.Request{All: true}, "forgotten,copy,forgotten"},
		{"nothing older than what was given up is taken", "complete complete/forgotten", plan.Request{}, "older,forgotten"},
		{"a broken file of a point that was given up is no failure", "complete broken/forgotten", plan.Request{}, "older,forgotten"},
	} {
		key := backup.NewMachineKey(backup.PlatformProxmox, "vm", "", "dump")
		held, forgotten := map[backup.PointID]bool{}, map[backup.PointID]bool{}
		var points []backup.Point
		for i, word := range strings.Fields(c.points) {
			word, isForgotten := strings.CutSuffix(word, "/forgotten")
			state, isHeld := strings.CutSuffix(word, "/held")
			p := backup.Point{
				ID: backup.NewPointID(key, string(rune('a'+i))), Machine: backup.Machine{Key: key, Name: "vm"},
				Created: time.Unix(int64(i), 0), State: backup.State(state),
			}
			held[p.ID], forgotten[p.ID] = isHeld, isForgotten
			points = append(points, p)
		}
		var became []string
		c.request.Forgotten = func(id backup.PointID) bool { return forgotten[id] }
		for _, step := range plan.Make(points, func(id backup.PointID) bool { return held[id] }, c.request).Steps {
			word := string(step.Action)
			if step.Failure {
				word += "!"
			}
			became = append(became, word)
		}
		if got := strings.Join(became, ","); got != c.expected {
			t.Errorf("%s: %s, want %s", c.what, got, c.expected)
		}
	}
}

func TestOfPointsAtOneTimeTheFirstIsTaken(t *testing.T) {
	key := backup.NewMachineKey(backup.PlatformProxmox, "100", "u", "")
	var points []backup.Point
	for _, native := range []string{"first source", "second source"} {
		points = append(points, backup.Point{
			ID: backup.NewPointID(key, native), Machine: backup.Machine{Key: key}, Created: time.Unix(7, 0), State: backup.StateComplete,
		})
	}
	copies := plan.Make(points, func(backup.PointID) bool { return false }, plan.Request{}).Copies()
	if len(copies) != 1 || copies[0].Point.ID != points[0].ID {
		t.Fatalf("copies %+v", copies)
	}
}
