package scheduler

import (
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
)

// Of a job that has gone nothing is kept of what was seen of its sources.
func TestNothingIsKeptOfAJobThatHasGone(t *testing.T) {
	known := fewResources(t)
	put(t, known, "Job", "near", offsite, 0)
	gone := put(t, known, "Job", "offsite", offsite, 0)
	s := New(known, Options{Owner: "me", Now: time.Now})
	_, err := s.resources(t.Context())
	must(t, err)
	locks := map[string]*job.Locks{}
	for _, of := range []string{"near", "offsite"} {
		locks[of] = s.locksOf(of)
		s.watched(*s.known, &job.Session{Job: of, Awaited: map[backup.MachineKey]bool{{}: true}})
	}
	must(t, known.Resources.Delete(t.Context(), "Job", "offsite", gone.Version))
	under := *s.known
	s.Changed()
	_, err = s.resources(t.Context())
	must(t, err)
	s.watched(under, &job.Session{Job: "offsite", Awaited: map[backup.MachineKey]bool{{}: true}}) // a session of it still ran
	if len(s.locks) != 1 || len(s.watches) != 1 || s.locksOf("near") != locks["near"] || s.watches["near"] == nil {
		t.Errorf("%d locks, %d watches", len(s.locks), len(s.watches))
	}
}
