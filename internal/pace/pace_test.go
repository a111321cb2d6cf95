package pace

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/policy"
)

// In no ten seconds does more pass than the limit and a twentieth, however many send at once and however they pause; the
// limit of the hour counts, and where there is none all passes.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UTC()
		hour := func(from, to int) policy.Window {
			w, err := policy.ParseWindow([]string{start.Add(time.Duration(from)*time.Minute).Format("15:04") + "-" + start.Add(time.Duration(to)*time.Minute).Format("15:04")}, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		slow := policy.Bandwidth{{Rate: 1e6, When: hour(0, 2)}, {Rate: 4e6, When: hour(2, 3)}}
		var limits Limits
		pace := Of(limits.Limit("slow", slow), limits.Limit("other", nil))
		type passed struct {
			at    time.Time
			bytes int
		}
		var mu sync.Mutex
		var all []passed
		var senders sync.WaitGroup
		for n := range 6 {
			senders.Go(func() {
				for time.Since(start) < 3*time.Minute {
					if n == 0 {
						mu.Lock()
						pause := time.Duration(len(all)%7) * time.Second
						mu.Unlock()
						time.Sleep(pause)
					}
					if err := pace(context.Background(), 16<<10); err != nil {
						t.Error(err)
					}
					mu.Lock()
					all = append(all, passed{time.Now(), 16 << 10})
					mu.Unlock()
				}
			})
		}
		senders.Wait()
		total := 0
		for i, first := range all {
			limit, sum := 1e6, 0
			if first.at.Sub(start) > 2*time.Minute-10*time.Second {
				limit = 4e6
			}
			for _, p := range all[i:] {
				if p.at.Sub(first.at) >= 10*time.Second {
					break
				}
				sum += p.bytes
			}
			if float64(sum) > limit*10*1.05 {
				t.Fatalf("%d bytes in ten seconds from %s on", sum, first.at.Sub(start))
			}
			total += first.bytes
		}
		if want := 2*60*1e6 + 60*4e6; float64(total) < want*0.98 {
			t.Errorf("%d bytes passed where %.0f might have", total, want)
		}
		before := time.Now()
		if err := pace(context.Background(), 1<<30); err != nil || !time.Now().Equal(before) {
			t.Errorf("without a limit: waited %s, %v", time.Since(before), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		always := policy.Bandwidth{{Rate: 1e6}}
		if err := Of(limits.Limit("always", always))(ctx, 1<<30); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// A limit that is changed holds from then on for all who share it, also where there was none before.
func TestLimitIsChangedWhileBytesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limits Limits
		first, second := Of(limits.Limit("vault", nil)), Of(limits.Limit("vault", nil))
		took := func(bytes int) time.Duration {
			start := time.Now()
			var both sync.WaitGroup
			for _, pace := range []func(context.Context, int) error{first, second} {
				both.Go(func() {
					for range bytes / 1000 {
						if err := pace(t.Context(), 1000); err != nil {
							t.Error(err)
						}
					}
				})
			}
			both.Wait()
			return time.Since(start)
		}
		for _, c := range []struct {
			bandwidth policy.Bandwidth
			want      time.Duration
		}{{nil, 0}, {policy.Bandwidth{{Rate: 1e6}}, 20 * time.Second}, {policy.Bandwidth{{Rate: 4e6}}, 5 * time.Second}, {nil, 0}} {
			limits.Limit("vault", c.bandwidth)
			if got := took(10e6); got > c.want || got < c.want-slack-time.Millisecond {
				t.Errorf("20 MB at %v took %s", c.bandwidth, got)
			}
			time.Sleep(time.Second)
		}
		lowest := Rate(limits.Limit("vault", nil), limits.Limit("other", policy.Bandwidth{{Rate: 3e6}}), limits.Limit("none", nil))
		if got := lowest(); got != 3e6 {
			t.Errorf("the lowest of a limit of 3 MB/s and none is %d", got)
		}
		limits.Set("vault", policy.Bandwidth{{Rate: 2e6}}) // who opens it again by what it was before changes nothing
		limits.Limit("vault", nil)
		if got := lowest(); got != 2e6 {
			t.Errorf("the lowest of limits of 2 and 3 MB/s is %d", got)
		}
		if got := took(10e6); got > 10*time.Second || got < 10*time.Second-slack-time.Millisecond {
			t.Errorf("20 MB at what was set took %s", got)
		}
	})
}
