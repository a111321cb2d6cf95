package scheduler

import (
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
)

// Of a job that has gone nothing is kept of what was seen of its sources.
func TestNothingIsKeptOfAJobThatHasGone(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	known, err := catalog.Open(ctx, filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	must(err)
	defer known.Close()
	put := func(kind, name, settings string) catalog.Resource {
		t.Helper()
		made, err := known.Resources.Put(ctx, kind, name, "kind: "+kind+"\nname: "+name+"\n"+settings, 0)
		must(err)
		return made
	}
	put("Repository", "pve", "location: /mnt/pve\n")
	put("Repository", "vault", "location: /mnt/vault\n")
	const settings = "source: {repositories: [pve]}\ntarget: {repository: vault}\nschedule: {every: 1h}\n"
	put("Job", "near", settings)
	gone := put("Job", "offsite", settings)
	s := New(known, Options{Owner: "me", Now: time.Now})
	_, err = s.resources(ctx)
	must(err)
	locks := map[string]*job.Locks{}
	for _, of := range []string{"near", "offsite"} {
		locks[of] = s.locksOf(of)
		s.watched(*s.known, &job.Session{Job: of, Awaited: map[backup.MachineKey]bool{{}: true}})
	}
	must(known.Resources.Delete(ctx, "Job", "offsite", gone.Version))
	under := *s.known
	s.Changed()
	_, err = s.resources(ctx)
	must(err)
	s.watched(under, &job.Session{Job: "offsite", Awaited: map[backup.MachineKey]bool{{}: true}}) // a session of it still ran
	if len(s.locks) != 1 || len(s.watches) != 1 || s.locksOf("near") != locks["near"] || s.watches["near"] == nil {
		t.Errorf("%d locks, %d watches", len(s.locks), len(s.watches))
	}
}
