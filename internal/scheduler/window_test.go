package scheduler

import (
	"testing"
	"time"

	"ferry/internal/policy"
)

// A session goes by the window that its job has now; by the one it had where the job has gone, or is being read.
func TestWindowFollowsTheJob(t *testing.T) {
	known := fewResources(t)
	was := put(t, known, "Job", "offsite", offsite, 0)
	s := New(known, Options{Owner: "me", Now: time.Now})
	read := func() {
		t.Helper()
		_, err := s.resources(t.Context())
		must(t, err)
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
	was = put(t, known, "Job", "offsite", offsite+"window: {allow: [\"20:00-06:00\"]}\n", was.Version)
	s.Changed()
	want(true, "before they are read again")
	read()
	want(false, "changed")
	s.Changed()
	want(false, "while they are read")
	must(t, known.Resources.Delete(t.Context(), "Job", "offsite", was.Version))
	read()
	want(false, "gone")
}
