package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A point that a person holds stays, whatever is said of it, until it is released: then the next reclaim removes what no job claims.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	vault := filepath.Join(dir, "vault")
	ferry := func(want int, args ...string) string {
		t.Helper()
		out, errOut := run(t, want, append(args, "--cache-dir", filepath.Join(dir, "cache"))...)
		return out + errOut
	}
	wants := func(what, want string) {
		t.Helper()
		if !strings.Contains(what, want) {
			t.Errorf("no %q in\n%s", want, what)
		}
	}
	ferry(ExitDone, "copy", vzdumpSamples, vault, "--create", "--all")
	point := oldestPoint(t, ferry(ExitDone, "points", vault, "--json"))[:12]
	for _, args := range [][]string{
		{"hold", vault}, {"hold", vault, point}, {"hold", vault, point, "--reason", " "}, {"hold", vault, point, "--reason", "x", "--until", "soon"},
		{"hold", vault, point, "--reason", "x", "--until", "2020-01-01"}, {"hold", vault, point, "--reason", strings.Repeat("x", 1001)},
		{"hold", vault, "abc", "--reason", "x"}, {"release", vault},
	} {
		ferry(ExitUsage, args...)
	}
	ferry(ExitNothing, "hold", vault, point, "ffffffffffff", "--reason", "x")
	if held := ferry(ExitDone, "points", vault); strings.Contains(held, "held: ") {
		t.Errorf("one that is not there, and the other is held all the same:\n%s", held)
	}
	wants(ferry(ExitDone, "hold", vault, point, "--reason", "a mistake", "--until", "2999-01-01"), point+"  held until 2999-01-01 23:59:59")
	wants(ferry(ExitDone, "hold", vault, point, point, "--reason", "audit"), point+"  held until ferry release")
	listed := ferry(ExitDone, "points", vault)
	wants(listed, "; held: audit\n")
	if strings.Contains(listed, "a mistake") || strings.Count(listed, "held: ") != 1 {
		t.Errorf("held again:\n%s", listed)
	}
	wants(ferry(ExitDone, "forget", vault, "--point", point, "--newest"), "held: audit")
	ferry(ExitDone, "reclaim", vault)
	wants(ferry(ExitDone, "points", vault), point)
	wants(ferry(ExitDone, "release", vault, point), "released; no job claims it, and the next ferry reclaim removes it")
	wants(ferry(ExitDone, "release", vault, point), "ferry hold does not hold it")
	ferry(ExitDone, "reclaim", vault)
	if listed := ferry(ExitDone, "points", vault); strings.Contains(listed, point) {
		t.Errorf("after reclaim:\n%s", listed)
	}
}

func TestHoldUntilTheEndOfADay(t *testing.T) {
	now := time.Date(2027, 3, 31, 12, 0, 0, 0, time.Local)
	if until, err := holdUntil("2027-03-31", now); err != nil || !until.After(now.Add(11*time.Hour)) {
		t.Errorf("%v, %v", until, err)
	}
	for _, text := range []string{"2027-03-31 14:30", "2027-03-31T14:30:00"} {
		if until, err := holdUntil(text, now); err != nil || !until.Equal(now.Add(150*time.Minute)) {
			t.Errorf("%s: %v, %v", text, until, err)
		}
	}
	if _, err := holdUntil("2027-03-31 12:00", now); err == nil {
		t.Error("a minute that has begun")
	}
	if _, err := holdUntil("2027-03-31 11:00", now); err == nil {
		t.Error("a time that has passed")
	}
}
