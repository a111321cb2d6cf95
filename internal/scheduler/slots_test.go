package scheduler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// A slot goes to whoever waits longest among those that can have it; one that waits for a full repository keeps nobody from
// another, and one that gives up takes none.
func TestSlotsGoInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		take := func(of, repository string) func() {
			release, err := s.take(t.Context(), of, map[string]int{repository: 1, "src": 0}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return release
		}
		var order []string
		wait := func(ctx context.Context, of, repository string) {
			go func() {
				release, err := s.take(ctx, of, map[string]int{repository: 1, "src": 0}, func(reason string) {
					if !strings.HasPrefix(reason, "no slot: ") {
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
		if take("other", "a") != nil {
			t.Fatal("repository a has one slot")
		}
		second := take("second", "b")
		ctx, giveUp := context.WithCancelCause(t.Context())
		wait(ctx, "gives up", "b")
		wait(t.Context(), "long", "a")
		wait(t.Context(), "short", "c")
		giveUp(errors.New("stopped"))
		synctest.Wait()
		if take("third", "d") != nil {
			t.Fatal("two are taken")
		}
		second() // c is free now, a is not
		synctest.Wait()
		first()
		first() // giving back twice gives back once
		synctest.Wait()
		if got := strings.Join(order, ", "); got != "gives up gave up, short, long" {
			t.Errorf("order: %s", got)
		}
		if len(s.waiting) > 0 || s.used[""] != 0 || s.used["a"] != 0 || s.used["src"] != 0 {
			t.Errorf("left: %v, %d wait", s.used, len(s.waiting))
		}
	})
}
