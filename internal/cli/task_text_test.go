package cli

import (
	"testing"

	"ferry/internal/api"
)

// A task that waits for its turn has no reason, and says how far it was all the same.
func TestTextOfATaskThatWaits(t *testing.T) {
	waits := api.Task{State: "waiting", Done: 1 << 20, Total: 4 << 20, Kept: 1 << 20}
	if got, want := taskText(waits), "it was at 25 %, 1.0 MiB of 4.0 MiB, and 1.0 MiB of it is kept"; got != want {
		t.Errorf("without a reason: %q, not %q", got, want)
	}
	waits.Reason = "the server ended"
	if got, want := taskText(waits), "the server ended; it was at 25 %, 1.0 MiB of 4.0 MiB, and 1.0 MiB of it is kept"; got != want {
		t.Errorf("with one: %q, not %q", got, want)
	}
}
