package cli

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"ferry/internal/policy"
)

// budgetFlags are --max-time and --max-bytes, of every command that works within a budget.
func budgetFlags(flags *pflag.FlagSet, maxTime *time.Duration, maxBytes *int64) {
	flags.Var((*span)(maxTime), "max-time", "begin nothing more after this `TIME`, such as 2h; the next run goes on")
	flags.Var((*byteCount)(maxBytes), "max-bytes", "stop after so many `BYTES`, such as 500GB; the next run goes on")
}

// span is a length of time as people type it here and in jobs: 90m, 2h30m, 1d12h, 30d, 4w.
type span time.Duration

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return policy.FormatDuration(time.Duration(*s))
}

func (*span) Type() string { return "time" }

func (s *span) Set(text string) error {
	parsed, err := policy.ParseDuration(text)
	if err == nil {
		*s = span(parsed)
	}
	return err
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
