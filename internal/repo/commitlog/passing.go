package commitlog

import (
	"reflect"
	"slices"
	"time"
)

// PersonHold is the id of the hold that a person has on a point: there is one, and a later one replaces it.
const PersonHold = "person"

// IsPassing is true if an entry has nothing but holds of readers, which end by themselves, and the ends of such. A log that loses it has
// lost nothing that anybody relies on but these readers (docs/format.md section 4).
func (p *Payload) IsPassing() bool {
	if len(p.Holds)+len(p.HoldsReleased) == 0 ||
		slices.ContainsFunc(p.Holds, func(h Hold) bool { return h.ID == PersonHold || h.Until == nil }) ||
		slices.ContainsFunc(p.HoldsReleased, func(h Hold) bool { return h.ID == PersonHold }) {
		return false
	}
	rest := *p
	rest.Time, rest.Writer, rest.Program, rest.Keyless, rest.Generation, rest.Holds, rest.HoldsReleased = time.Time{}, "", "", false, 0, nil, nil
	return reflect.ValueOf(rest).IsZero()
}
