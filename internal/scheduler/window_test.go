package scheduler

import (
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// A session goes by the window that its job has now; by the one it had where the job has gone, or is being read.
func TestWindowFollowsTheJob(t *testing.T) {
	ctx := t.Context()
	known, err := catalog.Open(ctx, filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	version := int64(0)
	put := func(kind, name, settings string) {
		t.Helper()
		made, err := known.Resources.Put(ctx, kind, name, "kind: "+kind+"\nname: "+name+"\n"+settings, version)
		if err != nil {
			t.Fatal(err)
		}
		version = made.Version
	}
	put("Repository", "pve", "location: /mnt/pve\n")
	version = 0
	put("Repository", "vault", "location: /mnt/vault\n")
	version = 0
	const settings = "source: {repositories: [pve]}\ntarget: {repository: vault}\nschedule: {every: 1h}\n"
	put("Job", "offsite", settings)
	s := New(known, Options{Owner: "me", Now: time.Now})
	read := func() {
		t.Helper()
		if _, err := s.resources(ctx); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	window := s.windowOf("offsite", policy.Window{})
	want := func(open bool, when string) {
		t.Helper()
		if w := window(); w.Open(at) != open {
			t.Errorf("%s: open %v", when, !open)
		}
	}
	want(true, "before resources are read")
	read()
	put("Job", "offsite", settings+"window: {allow: [\"20:00-06:00\"]}\n")
	s.Changed()
	want(true, "before they are read again")
	read()
	want(false, "changed")
	s.Changed()
	want(false, "while they are read")
	if err := known.Resources.Delete(ctx, "Job", "offsite", version); err != nil {
		t.Fatal(err)
	}
	read()
	want(false, "gone")
}
