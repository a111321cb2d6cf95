package job

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A slot goes to whoever waits longest among those that can have it; one that waits for a full repository keeps nobody from
// another, and one that gives up takes none.
func TestSlotsGoInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(2)
		between := func(repository string) []limits { return []limits{{repository: 1, "src": 0}} }
		take := func(of, repository string) func() {
			_, release, err := s.take(t.Context(), of, between(repository), func() { t.Errorf("%s waits", of) })
			if err != nil {
				t.Fatal(err)
			}
			return release
		}
		var order []string
		wait := func(ctx context.Context, of, repository string) {
			go func() {
				_, release, err := s.take(ctx, of, between(repository), func() {
					if reason := s.waits(of); !strings.HasPrefix(reason, "no slot: ") {
						t.Errorf("%s waits for %q", of, reason)
					}
				})
				if err != nil {
					order = append(order, of+" gave up")
					return
				}
				order = append(order, of)
				release()
			}()
			synctest.Wait()
		}
		first := take("first", "a")
		second := take("second", "b")
		ctx, giveUp := context.WithCancelCause(t.Context())
		wait(ctx, "gives up", "b")
		wait(t.Context(), "long", "a")
		wait(t.Context(), "short", "c")
		if s.waits("long") == "" || !s.wanted("long") || s.waits("second") != "" {
			t.Error("who waits is not told")
		}
		giveUp(errors.New("stopped"))
		synctest.Wait()
		second() // c is free now, a is not
		synctest.Wait()
		first()
		first() // giving back twice gives back once
		synctest.Wait()
		if got := strings.Join(order, ", "); got != "gives up gave up, short, long" {
			t.Errorf("order: %s", got)
		}
		if len(s.waiting) > 0 || len(s.users[""])+len(s.users["a"])+len(s.users["src"]) != 0 {
			t.Errorf("left: %v, %d wait", s.users, len(s.waiting))
		}
	})
}

// Of several choices the first is taken that has a slot: at once, or while all are waited for.
func TestSlotsOfTheFirstChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(0)
		choices := []limits{{"a": 1, "vault": 0}, {"b": 1, "vault": 0}}
		var had [3]int
		var releases [3]func()
		for i := range had {
			go func() {
				had[i], releases[i], _ = s.take(t.Context(), "offsite", choices, func() {})
			}()
			synctest.Wait()
		}
		if had[0] != 0 || had[1] != 1 || releases[2] != nil {
			t.Fatalf("%v were had, the third without a slot: %v", had[:2], releases[2] == nil)
		}
		releases[1]()
		synctest.Wait()
		if releases[2] == nil || had[2] != 1 {
			t.Fatalf("the third has %d", had[2])
		}
		releases[0]()
		releases[2]()
		if len(s.users[""])+len(s.users["a"])+len(s.users["b"])+len(s.users["vault"]) != 0 {
			t.Errorf("left: %v", s.users)
		}
	})
}

// Compact works a tenth of the time while other jobs copy, and all of it as soon as none does, or those that have slots stand still, or the
// job's next interval waits for it.
func TestCompactRestsWhileOtherJobsCopy(t *testing.T) {
	over := make(chan struct{})
	r := newRunner(Setup{Host: Host{Slots: NewSlots(0), Over: over}})
	r.Job.Name = "own"
	var rested time.Duration
	var each func()
	r.Pause = func(ctx context.Context, length time.Duration) error {
		rested += length
		each()
		return ctx.Err()
	}
	take := func(of string) func() {
		_, release, err := r.Host.Slots.take(t.Context(), of, []limits{{"vault": 0}}, func() { t.Errorf("%s waits", of) })
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	rest := func(ctx context.Context, want time.Duration) error {
		t.Helper()
		rested = 0
		err := r.giveWay(ctx, 1500*time.Millisecond)
		if rested != want {
			t.Errorf("it rests %s, and not %s", rested, want)
		}
		return err
	}
	ctx, stop := context.WithCancel(t.Context())
	each = func() {}
	own := take("own")
	_ = rest(ctx, 0)
	other := take("other")
	_ = rest(ctx, 13500*time.Millisecond)
	r.Host.Slots.lend("other", true)
	_ = rest(ctx, 0)
	r.Host.Slots.lend("other", false)
	each = func() {
		if rested == 4*time.Second {
			other()
		}
	}
	_ = rest(ctx, 4*time.Second)
	own()
	other = take("other")
	each = stop
	if err := rest(ctx, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("after the session was stopped: %v", err)
	}
	each = func() {
		if rested == 2*time.Second {
			close(over)
		}
	}
	_ = rest(t.Context(), 2*time.Second)
	_ = rest(t.Context(), 0)
	other()
}
