package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

func TestFold(t *testing.T) {
	text := "one two three four five six seven"
	for _, c := range []struct {
		at, width int
		want      string
	}{
		{10, 0, text},  // no terminal
		{10, 29, text}, // no room to speak of
		{10, 43, text}, // fits
		{10, 42, "one two three four five six\n          seven"},
		{2, 23, "one two three four\n  five six seven"},
	} {
		if got := fold(text, c.at, c.width); got != c.want {
			t.Errorf("fold at %d of %d: %q", c.at, c.width, got)
		}
	}
	if long := "a-word-that-is-longer-than-there-is-room x"; fold(long, 4, 30) != long[:40]+"\n    x" {
		t.Errorf("%q", fold(long, 4, 30))
	}
}

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), errors.New("anything"), ExitFailed},
		{t.Context(), usage("wrong"), ExitUsage},
		{t.Context(), noRepository("there", ""), ExitUsage},
		{t.Context(), fmt.Errorf("machine x %w", plan.ErrNotFound), ExitNothing},
		{t.Context(), fmt.Errorf("machine x %w", plan.ErrAmbiguous), ExitUsage},
		{t.Context(), fmt.Errorf("point x: %w", plan.ErrNoPointName), ExitUsage},
		{t.Context(), &backup.Error{Err: fmt.Errorf("%w: block", backup.ErrDamaged)}, ExitDamaged},
		{t.Context(), fmt.Errorf("log: %w", repo.ErrCorrupt), ExitDamaged},
		{t.Context(), repo.ErrNeedsKey, ExitKey},
		{cancelled, cancelled.Err(), ExitInterrupted},
		{cancelled, exitWith(ExitSomeFailed, "1 point failed"), ExitSomeFailed},
	} {
		if got := codeOf(c.ctx, c.err); got != c.want {
			t.Errorf("%v: %d instead of %d", c.err, got, c.want)
		}
	}
}

// On a narrow terminal the last column, where it has no room, goes below the second.
func TestNarrowTable(t *testing.T) {
	rows := [][]string{{"vault", "last seen 2026-11-26 06:54", "1,234 points of 120 machines", "12 TiB stored, 3.0 TiB free; full in about 9 days"}, {"pve", "ready", "", ""}}
	want := "vault  last seen 2026-11-26 06:54  1,234 points of 120 machines\n       12 TiB stored, 3.0 TiB free; full in about 9 days|pve    ready"
	if got := strings.Join(aligned(rows, 80), "|"); got != want {
		t.Errorf("got\n%s", got)
	}
	for _, width := range []int{0, 72, 80, 100, 120} {
		for _, lines := range aligned(rows, width) {
			for line := range strings.SplitSeq(lines, "\n") {
				if width > 0 && len(line) > width || strings.HasSuffix(line, " ") {
					t.Errorf("on %d columns: %q", width, line)
				}
			}
		}
	}
}

// Who asks for results and gets only a part of them is told: standard output on a full disk.
func TestResultsThatAreLost(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"points", vzdumpSamples}, {"points", vzdumpSamples, "--json"}, {"job", "schema"}, {"--help"}, {"completion", "bash"}} {
		var errOut bytes.Buffer
		if code := Main(args, full, &errOut); code != ExitFailed || !strings.Contains(errOut.String(), "no space left") {
			t.Errorf("%s: code %d, %s", args, code, errOut.String())
		}
	}
}
