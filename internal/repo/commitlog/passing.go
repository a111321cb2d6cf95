package commitlog

import (
	"reflect"
	"slices"
)

// PersonHold is the id of the hold that a person has on a point: there is one, and a later one replaces it.
const PersonHold = "person"

// passingMay are the members of a passing entry's payload.
var passingMay = map[string]bool{"Time": true, "Writer": true, "Program": true, "Keyless": true, "Generation": true, "Holds": true, "HoldsReleased": true}

// IsPassing is true if an entry has nothing but holds of readers, which end by themselves, and the ends of such. A log that loses it has
// lost nothing that anybody relies on but these readers (docs/format.md section 4).
func (p *Payload) IsPassing() bool {
	value := reflect.ValueOf(*p)
	for i := range value.NumField() {
		field := value.Field(i)
		if !passingMay[value.Type().Field(i).Name] && !field.IsZero() && (field.Kind() != reflect.Slice || field.Len() > 0) {
			return false
		}
	}
	return len(p.Holds)+len(p.HoldsReleased) > 0 &&
		!slices.ContainsFunc(p.Holds, func(h Hold) bool { return h.ID == PersonHold || h.Until == nil }) &&
		!slices.ContainsFunc(p.HoldsReleased, func(h Hold) bool { return h.ID == PersonHold })
}
