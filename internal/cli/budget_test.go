package cli

import (
	"testing"
	"time"
)

func TestBudgetsAreTypedAsPeopleDo(t *testing.T) {
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "2h30m": 150 * time.Minute, "1d12h": 36 * time.Hour, "30d": 720 * time.Hour, "4w": 672 * time.Hour} {
		var s, again span
		if err := s.Set(text); err != nil || time.Duration(s) != want {
			t.Errorf("%s is taken for %v, %v", text, time.Duration(s), err)
		}
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s is shown as %s, which is taken for %v, %v", text, &s, time.Duration(again), err)
		}
	}
	for _, text := range []string{"", "30", "0d", "-1d", "1.5d", "-2h", "0s", "200000000000d", "d"} {
		var s span
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken for %v", text, time.Duration(s))
		}
	}
	var b byteCount
	if err := b.Set("1.5GiB"); err != nil || b != 3<<29 || b.String() != "1.5 GiB" {
		t.Errorf("1.5GiB is taken for %d, shown as %s, %v", b, &b, err)
	}
	for _, text := range []string{"", "0", "-1", "much", "20EB"} {
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, b)
		}
	}
}
