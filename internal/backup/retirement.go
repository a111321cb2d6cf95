package backup

import "time"

// Retirement is what a person has said last of whether a machine has gone for good. The zero value: nobody has said anything.
type Retirement struct {
	// Since is when it was first said to have gone; zero: it has not, or is back.
	Since time.Time `json:"since,omitzero"`
	// Decided is when that was said. Of what several places know, what was decided last holds.
	Decided time.Time `json:"decided"`
}

// After is true if the retirement was decided after another one.
func (r Retirement) After(other Retirement) bool { return r.Decided.After(other.Decided) }

// Decide is what holds once a person has said that the machine has gone, or is back. To say again what holds changes nothing. It
// is decided after what held before, also by a clock that is behind.
func (r Retirement) Decide(gone bool, now time.Time) Retirement {
	if gone == !r.Since.IsZero() {
		return r
	}
	decided := now.UTC()
	if !decided.After(r.Decided) {
		decided = r.Decided.Add(1)
	}
	if !gone {
		return Retirement{Decided: decided}
	}
	return Retirement{Since: now.UTC(), Decided: decided}
}
