package plan_test

import (
	"regexp"
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

func TestGlobIsItsRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?")), 0, 8, -1).Draw(t, "pattern")
		name := rapid.StringOfN(rapid.SampledFrom([]rune("abc")), 0, 10, -1).Draw(t, "name")
		expression := strings.NewReplacer("*", ".*", "?", ".").Replace(pattern)
		if want := regexp.MustCompile("^" + expression + "$").MatchString(name); plan.Glob(pattern, name) != want {
			t.Fatalf("%q matches %q: %v", pattern, name, !want)
		}
	})
	if plan.Glob(strings.Repeat("*a", 40)+"b", strings.Repeat("a", 100_000)) {
		t.Error("matched what it does not")
	}
}
