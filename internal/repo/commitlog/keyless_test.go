package commitlog

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// Without the key an entry may say what the specification lists, and no member that anybody adds later.
func TestKeylessMembers(t *testing.T) {
	may := map[string]bool{}
	for name := range keylessMay {
		may[name] = true
	}
	kind := reflect.TypeFor[Payload]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		p := &Payload{}
		field := reflect.ValueOf(p).Elem().Field(i)
		switch field.Kind() {
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.String:
			field.SetString("x")
		case reflect.Uint32:
			field.SetUint(1)
		case reflect.Bool:
			field.SetBool(true)
		default:
			field.Set(reflect.ValueOf(time.Now()))
		}
		if name == "DeletedFiles" {
			continue // below
		}
		err := NewState().CheckKeyless(p)
		if may[name] != (err == nil) || err != nil && (!errors.Is(err, format.ErrForged) || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", name, err)
		}
		delete(may, name)
	}
	delete(may, "DeletedFiles")
	if len(may) > 0 {
		t.Errorf("no such members: %v", may)
	}
	if err := NewState().CheckKeyless(&Payload{Packs: []Pack{}}); err != nil {
		t.Errorf("an empty list says nothing: %v", err)
	}
}

func TestKeylessInState(t *testing.T) {
	now := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	before, after := now.Add(-time.Hour), now.Add(time.Hour)
	free, claimed, held, timed, over, ends := backup.PointID{1}, backup.PointID{2}, backup.PointID{3}, backup.PointID{4}, backup.PointID{5}, backup.PointID{6}
	condemned, live := format.Name{1}, format.Name{2}
	state := NewState()
	state.Apply(&Payload{
		Packs: []Pack{{ID: condemned}, {ID: live}}, Condemned: []format.Name{condemned}, CondemnedFiles: []string{"index/a"},
		Points: []Point{{ID: free}, {ID: claimed}, {ID: held}, {ID: timed}, {ID: over}, {ID: ends}},
		Claims: []Claim{{Point: claimed, Job: "a"}, {Point: claimed, Job: "b"}},
		Holds:  []Hold{{Point: held, ID: "h"}, {Point: timed, ID: "t", Until: &after}, {Point: over, ID: "o", Until: &before}, {Point: ends, ID: "e", Until: &now}},
	}, Head{N: 1})
	removes := func(id backup.PointID, withdrawn ...Claim) Payload {
		return Payload{Time: now, PointsRemoved: []backup.PointID{id}, ClaimsWithdrawn: withdrawn}
	}
	for _, c := range []struct {
		what string
		p    Payload
		good bool
	}{
		{"nothing", Payload{}, true},
		{"a point without claims", removes(free), true},
		{"a point that is not there", removes(backup.PointID{9}), true},
		{"a claimed point", removes(claimed), false},
		{"a point of which one claim is left", removes(claimed, Claim{Point: claimed, Job: "a"}), false},
		{"a point whose claims go", removes(claimed, Claim{Point: claimed, Job: "b"}, Claim{Point: claimed, Job: "a"}), true},
		{"claims of another point", removes(claimed, Claim{Point: free, Job: "b"}, Claim{Point: free, Job: "a"}), false},
		{"a point held for good", removes(held), false},
		{"a point held for a time", removes(timed), false},
		{"a point held until before", removes(over), true},
		{"a point held until just now", removes(ends), true},
		{"deleting what was condemned", Payload{Deleted: []format.Name{condemned}, DeletedFiles: []string{"index/a"}}, true},
		{"deleting what was not condemned", Payload{Deleted: []format.Name{live}}, false},
		{"condemning and deleting at once", Payload{Condemned: []format.Name{live}, Deleted: []format.Name{live}}, false},
		{"deleting a file that was not condemned", Payload{DeletedFiles: []string{"points/a"}}, false},
		{"condemning", Payload{Condemned: []format.Name{live}}, true},
	} {
		err := state.CheckKeyless(&c.p)
		if c.good != (err == nil) || !c.good && !errors.Is(err, format.ErrForged) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if len(state.Claims.Of(claimed)) != 2 {
		t.Error("checking changed the state")
	}
}
