//go:build integration

package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Ctrl-C is not a kill: what was read is kept, and the person is told what to do.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, v := range victims(t, 200*mib) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			v.measure(t)
			for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				u, to, r, first := v.interrupted(t, signal)
				mentions(t, r.err, "interrupted", "run the same command again")
				if first.Copied != 0 || first.Steps[0].Outcome == "copied" || first.SourceBytesRead == 0 {
					t.Errorf("%+v", first)
				}
				u.verified(to)
				if points := u.points(to); len(points) != 0 {
					t.Errorf("points after an interruption: %+v", points)
				}
				before := packBytes(t, to)
				second := decode[copyReport](t, u.want(0, v.args(to)...))
				if second.Copied != 1 {
					t.Errorf("%+v", second)
				}
				if !v.onePass && (second.Steps[0].ResumedBytes == 0 || first.SourceBytesRead+second.SourceBytesRead > v.size+inFlight+overhead) {
					t.Errorf("read %d and then %d of %d, taken over %d", first.SourceBytesRead, second.SourceBytesRead, v.size, second.Steps[0].ResumedBytes)
				}
				if total := packBytes(t, to); before == 0 || total > v.packs+overhead {
					t.Errorf("%d bytes of packs after the interruption, %d at the end, %d without one", before, total, v.packs)
				}
				u.verified(to)
				v.restores(t, u, to)
			}
		})
	}
}

// interrupted is a copy that a signal has ended before it was done. On a busy machine the test may see too late how far it is: then another
// one is tried.
func (v *victim) interrupted(t *testing.T, signal syscall.Signal) (u *user, to string, r result, report copyReport) {
	t.Helper()
	for range 5 {
		u, to = newUser(t), filepath.Join(t.TempDir(), "vault")
		r, _ = u.signalAt(v.length*4/10, signal, v.args(to)...)
		if r.code != 0 && r.code != 130 {
			t.Fatalf("exit %d after %v: %v", r.code, signal, r)
		}
		if report = decode[copyReport](t, r); report.Copied == 0 {
			if r.code != 130 {
				t.Fatalf("exit %d after %v, and nothing is copied: %v", r.code, signal, r)
			}
			return u, to, r, report
		}
	}
	t.Fatalf("of 5 copies none was interrupted by %v: %v", signal, r)
	return nil, "", r, report
}

// Reading commands end with 130 as well, and take nothing for damaged that they did not come to.
func TestInterruptReading(t *testing.T) {
	t.Parallel()
	v := victims(t, 150*mib)[0]
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.want(0, v.args(to)...)
	for _, args := range [][]string{{"verify", to}, {"points", v.from, "--check"}} {
		_, length := u.signalAt(1<<62, 0, args...)
		interrupted := 0
		for part := range int64(8) {
			r, _ := u.signalAt(length*part/10, syscall.SIGINT, args...)
			switch {
			case r.code == 130:
				interrupted++
				mentions(t, r.err, "interrupted")
			case r.code != 0 && r.code != -1: // -1: before it listened for signals
				t.Errorf("exit %d: %v", r.code, r)
			}
			if strings.Contains(r.out+r.err, "DAMAGED") || strings.Contains(r.out+r.err, "broken") {
				t.Errorf("%v", r)
			}
		}
		if interrupted == 0 {
			t.Errorf("ferry %v was never interrupted", args)
		}
	}
	// Nothing was remembered as broken, either.
	if offered := u.points(v.from); len(offered) != 1 || offered[0].State != "complete" {
		t.Errorf("%+v", offered)
	}
}

// inFlight is what an interruption may drop: what was read and not handed to a pack yet. A megabyte for each reader, and
// for each place in the queue to the workers, of which there may be many on a large machine.
const inFlight = 64 * mib
