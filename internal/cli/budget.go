package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// budgetFlags are --max-time and --max-bytes, of every command that works within a budget.
func budgetFlags(flags *pflag.FlagSet, maxTime *time.Duration, maxBytes *int64) {
	flags.Var((*span)(maxTime), "max-time", "begin nothing more after this `TIME`, such as 2h; the next run goes on")
	flags.Var((*byteCount)(maxBytes), "max-bytes", "stop after so many `BYTES`, such as 500GB; the next run goes on")
}

// span is a length of time as people type it: 90m, 2h30m, 30d, 4w.
type span time.Duration

func (s *span) String() string {
	switch day := span(24 * time.Hour); {
	case *s == 0:
		return ""
	case *s%day == 0:
		return strconv.FormatInt(int64(*s/day), 10) + "d"
	}
	return time.Duration(*s).String()
}

func (*span) Type() string { return "time" }

func (s *span) Set(text string) error {
	parsed, err := parseSpan(text)
	if err == nil {
		*s = span(parsed)
	}
	return err
}

func parseSpan(text string) (time.Duration, error) {
	wrong := errors.New("it is not a time such as 90m, 2h, 30d or 4w")
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 || n > int(math.MaxInt64/length) {
				return 0, wrong
			}
			return time.Duration(n) * length, nil
		}
	}
	parsed, err := time.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return 0, wrong
	}
	return parsed, nil
}

// graceSpan is a length of time that can be none.
type graceSpan time.Duration

func (g *graceSpan) String() string {
	if *g == 0 {
		return "0"
	}
	return (*span)(g).String()
}

func (*graceSpan) Type() string { return "time" }

func (g *graceSpan) Set(text string) error {
	if strings.TrimRight(text, "hms") == "0" {
		*g = 0
		return nil
	}
	return (*span)(g).Set(text)
}

// byteCount is a number of bytes as people type it.
type byteCount int64

func (b *byteCount) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*b))
}

func (*byteCount) Type() string { return "bytes" }

func (b *byteCount) Set(text string) error {
	parsed, err := humanize.ParseBytes(text)
	if err != nil || parsed < 1 || parsed > math.MaxInt64 {
		return errors.New("it is not a number of bytes such as 500GB")
	}
	*b = byteCount(parsed)
	return nil
}
