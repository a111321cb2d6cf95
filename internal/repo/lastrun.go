package repo

import (
	"context"
	"encoding/json"
	"time"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// lastRunMark says what the last copy wrote (docs/format.md section 13). It is a hint.
const lastRunMark = "marks/last-run"

// lastRunLimit bounds what is read of it, in bytes.
const lastRunLimit = 64 << 10

// LastRun is what a copy wrote to a repository. Sizes are in bytes.
type LastRun struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Entry is the log's last entry when it ended.
	Entry uint64 `json:"entry"`
	// Points were copied.
	Points int64 `json:"points"`
	// New is what blocks hold that were not in the repository, Stored what they took, compressed and with their headers,
	// Nodes what new tree nodes took. Packs counts those that were sealed.
	New    int64 `json:"newBytes"`
	Stored int64 `json:"storedBytes"`
	Nodes  int64 `json:"nodeBytes"`
	Packs  int64 `json:"packs"`
}

// RememberRun writes down what a copy wrote. Not being able to is a warning.
func (r *Repository) RememberRun(ctx context.Context, run LastRun) {
	run.Began, run.Ended, run.Entry = run.Began.UTC(), run.Ended.UTC(), r.head().N
	content, err := json.Marshal(run)
	if err == nil {
		sum := r.hasher.Sum(format.ContextLastRun, content)
		err = r.store.Overwrite(ctx, lastRunMark, append(content, sum[:]...))
	}
	if err != nil {
		r.warn("what this copy wrote could not be noted for repo info: %v", err)
	}
}

// LastRun returns what the last copy wrote that came to its end, or nil if that is not known. since counts the packs that were
// added after it, by a copy that was killed, or by other commands.
func (r *Repository) LastRun(ctx context.Context) (run *LastRun, since int) {
	content, err := storage.ReadAll(ctx, r.store, lastRunMark, lastRunLimit)
	body := max(0, len(content)-len(format.ID{}))
	if sum := r.hasher.Sum(format.ContextLastRun, content[:body]); err != nil || string(sum[:]) != string(content[body:]) {
		return nil, 0
	}
	run = &LastRun{}
	if json.Unmarshal(content[:body], run) != nil {
		return nil, 0
	}
	if run.Ended.Before(run.Began) || min(run.Points, run.New, run.Stored, run.Nodes, run.Packs) < 0 {
		return nil, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if run.Entry > r.state.Head.N { // of another history
		return nil, 0
	}
	for _, p := range r.state.Packs.All() {
		if p.Entry > run.Entry {
			since++
		}
	}
	return run, since
}
