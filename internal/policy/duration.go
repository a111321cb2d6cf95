package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// dayLength is that of a day without a clock change, which counts where no calendar is asked.
	dayLength = 24 * time.Hour
	// longest is the longest time that can be written: a century. It keeps sums of times far from overflowing.
	longest = 36525 * dayLength
)

// ParseDuration reads a length of time such as "2h", "26h", "90m", "1h30m", "30d" or "2w". A day has 24 hours, a week seven
// days. Units are w, d, h, m and s, each at most once, the longer first; the sum is more than nothing and at most a
// century.
func ParseDuration(text string) (time.Duration, error) {
	parts, err := parseParts(text)
	if err != nil {
		return 0, err
	}
	return parts.days*dayLength + parts.elapsed, nil
}

// FormatDuration is what ParseDuration reads: whole days in days, everything else in hours, minutes and seconds. A part of
// a second is left out.
func FormatDuration(d time.Duration) string {
	if days := d / dayLength; days > 0 && d%dayLength == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return formatElapsed(d)
}

// formatElapsed is FormatDuration without days, for where those are something else.
func formatElapsed(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
		}
		d %= unit.length
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// parts is a length of time whose days are apart, for those who count them by a calendar.
type parts struct {
	days    time.Duration // how many
	elapsed time.Duration
}

func parseParts(text string) (parts, error) {
	bad := func(why string) (parts, error) {
		return parts{}, fmt.Errorf("%q is not a length of time such as 30m, 2h or 7d: %s", text, why)
	}
	units := []struct {
		name   byte
		length time.Duration
	}{{'w', 7 * dayLength}, {'d', dayLength}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	var total parts
	rest := strings.TrimSpace(text)
	if rest == "" {
		return bad("it is empty")
	}
	for rest != "" {
		digits := strings.TrimLeft(rest, "0123456789")
		number := rest[:len(rest)-len(digits)]
		if number == "" || digits == "" {
			return bad("it takes whole numbers, each with a unit: w, d, h, m or s")
		}
		at := 0
		for at < len(units) && units[at].name != digits[0] {
			at++
		}
		if at == len(units) {
			return bad("units are w, d, h, m and s, each at most once, the longer first")
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64(longest/units[at].length) {
			return bad("it is longer than a century")
		}
		if units[at].length >= dayLength {
			total.days += time.Duration(n) * (units[at].length / dayLength)
		} else {
			total.elapsed += time.Duration(n) * units[at].length
		}
		units, rest = units[at+1:], digits[1:]
	}
	switch sum := float64(total.days)*float64(dayLength) + float64(total.elapsed); {
	case sum == 0:
		return bad("it is nothing")
	case sum > float64(longest):
		return bad("it is longer than a century")
	}
	return total, nil
}
