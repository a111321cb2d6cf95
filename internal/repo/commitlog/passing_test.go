package commitlog

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"ferry/internal/backup"
)

// Only holds that end by themselves pass: with anything else beside them an entry is one that must not get lost.
func TestPassingEntries(t *testing.T) {
	until := time.Now()
	hold := Hold{Point: backup.PointID{1}, ID: "0123", Reason: "restored", Until: &until}
	for what, c := range map[string]struct {
		payload Payload
		want    bool
	}{
		"a hold":                {Payload{Time: until, Writer: "w", Program: "p", Keyless: true, Generation: 1, Holds: []Hold{hold}}, true},
		"its end":               {Payload{HoldsReleased: []Hold{{Point: hold.Point, ID: hold.ID}}}, true},
		"nothing":               {Payload{}, false},
		"a hold without an end": {Payload{Holds: []Hold{{Point: hold.Point, ID: hold.ID}}}, false},
		"a person's":            {Payload{Holds: []Hold{{Point: hold.Point, ID: PersonHold, Until: &until}}}, false},
		"a person's beside it":  {Payload{Holds: []Hold{hold, {Point: hold.Point, ID: PersonHold, Until: &until}}}, false},
		"a person's end":        {Payload{HoldsReleased: []Hold{{Point: hold.Point, ID: PersonHold}}}, false},
	} {
		if got := c.payload.IsPassing(); got != c.want {
			t.Errorf("%s: passing %v", what, got)
		}
	}
	for i := range reflect.TypeFor[Payload]().NumField() {
		field := reflect.TypeFor[Payload]().Field(i)
		p := Payload{Holds: []Hold{hold}}
		value := reflect.ValueOf(&p).Elem().Field(i)
		switch {
		case slices.Contains([]string{"Time", "Writer", "Program", "Keyless", "Generation", "Holds", "HoldsReleased"}, field.Name):
			continue
		case field.Type.Kind() == reflect.Slice:
			value.Set(reflect.MakeSlice(field.Type, 1, 1))
		case field.Type.Kind() == reflect.Pointer:
			value.Set(reflect.New(field.Type.Elem()))
		default:
			value.SetUint(1)
		}
		if p.IsPassing() {
			t.Errorf("a hold and %s pass", field.Name)
		}
	}
}
