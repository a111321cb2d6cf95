package repo

import "time"

// writtenDownWithin is how long something waits for its pack to be full, from when it was stored. Then what a copy has stored is
// written down all the same: an interruption costs this much work, and what is on its way to the storage.
const writtenDownWithin = 30 * time.Second

// wait notes that something waits for the next seal. The caller holds the lock.
func (in *Ingest) wait() {
	if !in.waits {
		in.waits = true
		in.timer.Reset(in.repo.writtenDownWithin)
	}
}

func (in *Ingest) fallDue() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.waits {
		in.due = true
		in.changed.Broadcast()
	}
}
