package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// stored makes n good points of a machine, a day apart.
func stored(machine string, n int) []backup.Point {
	var points []backup.Point
	for i := range n {
		m := backup.Machine{Name: machine, Key: backup.MachineKey{Platform: "image", NativeID: machine, SourceName: "s"}}
		at := time.Date(2026, 11, 1+i, 3, 0, 0, 0, time.UTC)
		points = append(points, backup.Point{
			ID: backup.NewPointID(m.Key, at.String()), Machine: m, Created: at, State: backup.StateComplete,
		})
	}
	return points
}

func removed(steps []ForgetStep) string {
	var days []string
	for _, step := range steps {
		if step.Remove {
			days = append(days, step.Point.Machine.Name+step.Point.Created.Format(" 02"))
		}
	}
	return strings.Join(days, ", ")
}

func all(backup.PointID) (Claim, bool) { return Claim{}, true }

func TestForgetByRules(t *testing.T) {
	points := slices.Concat(stored("web", 5), stored("db", 3))
	now := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	steps, err := Forget(points, all, ForgetRequest{Rules: policy.Retention{Points: 2}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := removed(steps); got != "web 01, web 02, web 03, db 01" {
		t.Errorf("removed %s", got)
	}
	steps, err = Forget(points, all, ForgetRequest{Rules: policy.Retention{Points: 2}, Machines: []string{"d*"}}, now)
	if err != nil || removed(steps) != "db 01" || len(steps) != 3 {
		t.Errorf("only db: removed %s of %d, %v", removed(steps), len(steps), err)
	}
	// What other jobs claim does not count.
	mine := func(id backup.PointID) (Claim, bool) { return Claim{}, id != points[4].ID }
	steps, err = Forget(points[:5], mine, ForgetRequest{Rules: policy.Retention{Points: 2}}, now)
	if err != nil || removed(steps) != "web 01, web 02" || len(steps) != 4 {
		t.Errorf("of mine: removed %s of %d, %v", removed(steps), len(steps), err)
	}
	// A damaged point is not among the two.
	points[4].State = backup.StateBroken
	steps, err = Forget(points[:5], all, ForgetRequest{Rules: policy.Retention{Points: 2}}, now)
	if err != nil || removed(steps) != "web 01, web 02" {
		t.Errorf("with a damaged one: removed %s, %v", removed(steps), err)
	}
}

func TestForgetByName(t *testing.T) {
	points := slices.Concat(stored("web", 3), stored("db", 2))
	forget := func(request ForgetRequest) ([]ForgetStep, error) { return Forget(points, all, request, time.Time{}) }
	steps, err := forget(ForgetRequest{Points: []string{points[0].ID.String()[:8], strings.ToUpper(points[3].ID.String())}})
	if err != nil || removed(steps) != "web 01, db 01" {
		t.Errorf("removed %s, %v", removed(steps), err)
	}
	newest := points[2].ID.String()
	for _, c := range []struct {
		names []string
		want  error
	}{
		{[]string{newest}, ErrNewest},
		{[]string{"ffffffffffff"}, ErrNotFound},
		{[]string{"abc"}, nil},
		{[]string{"latest"}, nil},
	} {
		steps, err := forget(ForgetRequest{Points: c.names})
		if err == nil || steps != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.names, err, c.want)
		}
	}
	if steps, err := forget(ForgetRequest{Points: []string{newest}, Newest: true}); err != nil || removed(steps) != "web 03" {
		t.Errorf("the newest: removed %s, %v", removed(steps), err)
	}
	// With the newest two named, the one that is left becomes the newest: naming all of them is asking for it.
	if _, err := forget(ForgetRequest{Points: []string{points[1].ID.String(), newest}}); !errors.Is(err, ErrNewest) {
		t.Errorf("two of three: %v", err)
	}
	// A damaged point may go, however new; the newest before it is the newest good one then.
	points[2].State = backup.StateBroken
	if steps, err := forget(ForgetRequest{Points: []string{newest}}); err != nil || removed(steps) != "web 03" {
		t.Errorf("a damaged one: removed %s, %v", removed(steps), err)
	}
	if _, err := forget(ForgetRequest{Points: []string{points[1].ID.String()}}); !errors.Is(err, ErrNewest) {
		t.Errorf("the newest before a damaged one: %v", err)
	}
}

// Of a point that cannot be read now, and is not known to be damaged, nobody knows whether it is good.
func TestForgetUnread(t *testing.T) {
	points := stored("web", 4)
	points[0].State, points[3].State = backup.StateUnsupported, backup.StateUnsupported
	forget := func(request ForgetRequest) ([]ForgetStep, error) {
		return Forget(points, all, request, time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
	}
	steps, err := forget(ForgetRequest{Rules: policy.Retention{Points: 1}})
	if err != nil || removed(steps) != "web 02" || len(steps) != 4 {
		t.Fatalf("removed %s of %d, %v", removed(steps), len(steps), err)
	}
	for i, want := range []string{"whether it is good is not known", policy.NoRuleKeeps, "the newest", "whether it is good is not known"} {
		if got := strings.Join(steps[i].Reasons, "; "); got != want {
			t.Errorf("step %d: %s", i, got)
		}
	}
	for i, want := range []error{nil, nil, ErrNewest, ErrNewest} {
		if _, err := forget(ForgetRequest{Points: []string{points[i].ID.String()}}); !errors.Is(err, want) {
			t.Errorf("point %d by name: %v", i, err)
		}
	}
}
