package cli

import (
	"testing"

	"ferry/internal/api"
)

// What holds now is said where that is not the only limit, and in the unit that it was typed in.
func TestDescribeBandwidth(t *testing.T) {
	for _, tc := range []struct {
		limits []string
		now    int64
		want   string
	}{
		{nil, 0, "no limit"},
		{[]string{"20MB/s"}, 20e6, "20MB/s"},
		{[]string{" 160mbit/s"}, 20e6, " 160mbit/s"},
		{[]string{"20MB/s mon-fri 08:00-18:00"}, 20e6, "20MB/s mon-fri 08:00-18:00; now 20MB/s"},
		{[]string{"20MB/s mon-fri 08:00-18:00"}, 0, "20MB/s mon-fri 08:00-18:00; now no limit"},
		{[]string{"200Mbit/s", "6.25MB/s sat,sun 00:00-24:00"}, 6.25e6, "200Mbit/s, 6.25MB/s sat,sun 00:00-24:00; now 6.25MB/s"},
		{[]string{"25MB/s", "50Mbit/s sat,sun 00:00-24:00"}, 25e6, "25MB/s, 50Mbit/s sat,sun 00:00-24:00"},
	} {
		want := "all jobs together: " + tc.want + "; as the server was started"
		if got := describeBandwidth(api.Bandwidth{Limits: tc.limits, Now: tc.now}); got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}
