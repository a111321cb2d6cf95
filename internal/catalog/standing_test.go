package catalog

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// endings are sessions of a job by how they end, oldest first.
type endings []struct {
	state  SessionState
	counts Counts
}

func (e endings) run(t *testing.T, c *Catalog, clock *clock, job string) (ids []int64) {
	t.Helper()
	ctx := context.Background()
	for _, ends := range e {
		clock.move(time.Minute)
		if ends.state == SessionNotRun {
			must(t, c.Sessions.RecordNotRun(ctx, job, []time.Time{clock.now()}, "no server ran"))
			ids = append(ids, must1(c.Sessions.Of(ctx, job, 0, 1))(t)[0].ID)
			continue
		}
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: job}, "me", time.Minute)
		must(t, err)
		must(t, c.Sessions.End(ctx, lease, ends.state, "", ends.counts))
		ids = append(ids, session.ID)
	}
	return ids
}

// wantStanding compares what a job stands by with numbers of its sessions, -1 for none.
func wantStanding(t *testing.T, c *Catalog, job string, ids []int64, ran, looked, listed, atTarget int, told ...int) {
	t.Helper()
	got, err := c.Sessions.Standing(context.Background(), job, 3)
	must(t, err)
	number := func(s *Session) int {
		for i, id := range ids {
			if s != nil && s.ID == id {
				return i
			}
		}
		return -1
	}
	var numbers []int
	for _, s := range got.Told {
		numbers = append(numbers, number(&s))
	}
	if text, want := fmt.Sprint(number(got.Ran), number(got.Looked), number(got.Listed), number(got.AtTarget), numbers), fmt.Sprint(ran, looked, listed, atTarget, told); text != want {
		t.Errorf("ran, looked, listed, at the target, told: %s, want %s", text, want)
	}
}

// What a job stands by is found behind however many sessions that came to nothing, and intervals that were not run.
func TestWhatAJobStandsBy(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		wantStanding(t, c, "offsite", nil, -1, -1, -1, -1)
		read, unread := Counts{"sources": 2, "sourcesRead": 1}, Counts{"sources": 2}
		all := endings{
			{SessionPartial, nil}, {SessionDone, read}, {SessionFailed, Counts{"copied": 0, "targetRead": 1}}, {SessionExpired, Counts{"copied": 1, "claimed": 0}},
			{SessionExpired, read}, {SessionStopped, Counts{"claimed": 2}}, {SessionFailed, unread}, {SessionStopped, nil},
		}
		for range 12 {
			all = append(all, endings{{SessionExpired, Counts{"copied": 0, "claimed": 0, "sources": 0}}}...)
		}
		for range 12 {
			all = append(all, endings{{SessionNotRun, nil}}...)
		}
		ids := all.run(t, c, clock, "offsite")
		(endings{{SessionDone, read}}).run(t, c, clock, "attic")
		_, _, err := c.Sessions.Begin(t.Context(), NewSession{Job: "offsite"}, "me", time.Minute) // it has not ended
		must(t, err)
		wantStanding(t, c, "offsite", ids, 19, 6, 4, 2, 6, 5, 3)
	})
}
