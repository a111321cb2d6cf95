package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bandwidth is how many bytes may cross the network in a second, by the calendar. Of limits that hold at the same time the
// lowest counts. The zero value is no limit.
type Bandwidth []Limit

// Limit is one limit and when it holds.
type Limit struct {
	Rate Rate
	// When it holds; the zero value is always.
	When Window
}

// Rate is bytes per second; 0 is no limit.
type Rate int64

// rateUnits are what a rate may be written in: bits in powers of ten, as links are sold; bytes in powers of ten or of two.
var rateUnits = []struct {
	name  string
	bytes float64
}{
	{"kbit/s", 1e3 / 8}, {"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8},
	{"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"KiB/s", 1 << 10}, {"MiB/s", 1 << 20}, {"GiB/s", 1 << 30},
}

const (
	slowest = 1 << 10 // bytes per second
	fastest = 1 << 50
)

// ParseRate reads a number with its unit: kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s. The case of
// the first letters does not count; "Mb/s" is refused, because it means bits to some and bytes to others.
func ParseRate(text string) (Rate, error) {
	trimmed := strings.TrimSpace(text)
	number := strings.TrimSpace(strings.TrimRight(trimmed, "kKMGmgibtBITs/"))
	unit := strings.TrimSpace(trimmed[len(number):])
	for _, u := range rateUnits {
		if !strings.EqualFold(unit, u.name) {
			continue
		}
		if strings.HasSuffix(unit, "b/s") {
			return 0, fmt.Errorf("%q may mean bits or bytes: write %sbit/s or %sB/s", text, unit[:len(unit)-len("b/s")], unit[:len(unit)-len("b/s")])
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(n) || strings.Trim(number, "0123456789.") != "" {
			break
		}
		if bytes := math.Round(n * u.bytes); bytes >= slowest && bytes <= fastest {
			return Rate(bytes), nil
		}
		return 0, fmt.Errorf("%q is not between 1 KiB/s and 1 PiB/s; a closed window stops a job altogether", text)
	}
	return 0, fmt.Errorf("%q is not a rate such as 50Mbit/s or 10MB/s", text)
}

// ParseLimit reads a rate, or a rate and behind a space when it holds: "50Mbit/s mon-fri 08:00-18:00".
func ParseLimit(text string, zone *time.Location) (limit Limit, err error) {
	rate, when, limited := strings.Cut(strings.TrimSpace(text), " ")
	if limit.Rate, err = ParseRate(rate); err == nil && limited {
		limit.When, err = ParseWindow([]string{strings.TrimSpace(when)}, zone)
	}
	return limit, err
}

// String is the rate in the largest unit that shows it exactly, bits first: "50Mbit/s". It is what ParseRate reads.
func (r Rate) String() string {
	if r == 0 {
		return "no limit"
	}
	for _, name := range []string{"Gbit/s", "Mbit/s", "GiB/s", "MiB/s", "kbit/s", "KiB/s"} {
		for _, u := range rateUnits {
			if n := float64(r) / u.bytes; u.name == name && n == math.Trunc(n) {
				return strconv.FormatFloat(n, 'f', -1, 64) + name
			}
		}
	}
	return strconv.FormatFloat(float64(r)*8/1e3, 'f', -1, 64) + "kbit/s"
}

// LimitAt is the lowest limit at an instant; 0 is none.
func (b Bandwidth) LimitAt(at time.Time) Rate {
	var lowest Rate
	for _, l := range b {
		if l.When.Open(at) && (lowest == 0 || l.Rate < lowest) {
			lowest = l.Rate
		}
	}
	return lowest
}

// BucketRate is the lowest limit that a bucket can be kept to: parts that take longer than their time are sent again.
const BucketRate Rate = 4e6 / 8

// BelowBucket returns what is wrong with the limits of a setting for what lies in a bucket, which is called what.
func (b Bandwidth) BelowBucket(setting, what string) []Problem {
	var f faults
	for i, limit := range b {
		if limit.Rate < BucketRate {
			f.add(fmt.Sprintf("%s[%d]", setting, i), "at least "+BucketRate.String(), "%s is lower than %s can be kept to", limit.Rate, what)
		}
	}
	return f.problems
}

// Change is the next instant after at when LimitAt changes; ok is false if it never does.
func (b Bandwidth) Change(at time.Time) (next time.Time, ok bool) {
	now := b.LimitAt(at)
	for next = at; ; {
		var nearest time.Time
		for _, l := range b {
			if change, changes := l.When.Change(next); changes && (nearest.IsZero() || change.Before(nearest)) {
				nearest = change
			}
		}
		if nearest.IsZero() || nearest.Sub(at) > changeHorizon {
			return time.Time{}, false
		}
		if b.LimitAt(nearest) != now {
			return nearest, true
		}
		next = nearest
	}
}
