package job

import "testing"

// The reason of a full target is true in each case, also where the copies take more than was expected of them.
func TestRoomText(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		free, kept, expected int64
		want                 string
	}{
		{32 * mib, 64 * mib, 57 * mib, "32 MiB left, beside 64 MiB kept in reserve, and the copies are expected to take 57 MiB"},
		{32 * mib, 64 * mib, 29 * mib, "32 MiB left, beside 64 MiB kept in reserve, and the copies did not fit, though they were expected to take only 29 MiB"},
		{32 * mib, 0, 29 * mib, "32 MiB left, 32 MiB of that for the rest of the reserve, and the copies are expected to take 29 MiB"},
		{72 * mib, 60 * mib, 29 * mib, "72 MiB left, 4.0 MiB of that for the rest of the reserve, beside 60 MiB kept in reserve, and the copies did not fit, though they were expected to take only 29 MiB"},
		{0, 0, mib, "0 B left, and the copies are expected to take 1.0 MiB"},
	} {
		if got := roomText(c.free, c.kept, 64*mib, c.expected); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
