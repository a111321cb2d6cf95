package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// The lease says who reclaims or compacts. It only saves work: two at once do no harm, because each commit checks what the
// other has done meanwhile.
const (
	leaseMark = "marks/reclaim-lease"
	// leaseFor is how long a lease counts after it was last renewed, by the storage's clock; leaseRenewed how often it is.
	leaseFor     = 10 * time.Minute
	leaseRenewed = leaseFor / 4
)

// InUseError says who else reclaims or compacts the repository.
type InUseError struct {
	// What it does, on which machine, as which process, and with which program.
	What, Host, Program string
	PID                 int
	// Since when, by its own clock; Until when its lease lasts if it does not renew it, by this machine's.
	Since, Until time.Time
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s runs already: process %d on %s, since %s; it renews its lease as long as it lives, else that ends at %s",
		e.What, e.PID, e.Host, leaseTime(e.Since), leaseTime(e.Until))
}

func leaseTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

type leaseRecord struct {
	process
	Run     format.Name `json:"run"`
	What    string      `json:"what"`
	Host    string      `json:"host"`
	Program string      `json:"program"`
	Since   time.Time   `json:"since"`
}

// refusal says who holds the lease, which lasts for so long at least.
func (r *Repository) refusal(held leaseRecord, left time.Duration) error {
	until := r.env.now().Add(left).Add(time.Second).Truncate(time.Second) // it is shown in whole ones, and has ended then
	return &backup.Error{
		Offset: backup.NoOffset,
		Err:    &InUseError{What: held.What, Host: held.Host, Program: held.Program, PID: held.PID, Since: held.Since, Until: until},
		Hint:   "if that process is dead, as after kill -9, wait until " + leaseTime(until) + " and run this again",
	}
}

// lease takes the lease, or returns an error wrapping an *InUseError. release ends it. The lease of a process that is gone for certain
// is taken over: nobody renews it.
func (r *Repository) lease(ctx context.Context, run format.Name, what string) (release func(), err error) {
	if r.leaseless {
		return func() {}, nil
	}
	now, err := r.storageTime(ctx)
	if err != nil {
		return nil, err
	}
	held, renewed, err := r.readLease(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// One of the future was last renewed before the clock was put back: whoever lives renews it by the new time.
	if age := now.Sub(renewed); err == nil && age > -clockStep && age < leaseFor && !held.gone() {
		return nil, r.refusal(held, leaseFor-age)
	}
	host, _ := os.Hostname()
	content, err := json.Marshal(leaseRecord{process: thisProcess(), Run: run, What: what, Host: host, Program: r.env.Program, Since: r.env.now().UTC()})
	if err != nil {
		return nil, err
	}
	if err := r.store.Overwrite(ctx, leaseMark, content); errors.Is(err, storage.ErrNotFile) { // it only saves work
		r.warn("others do not see that %s runs: %v", what, err)
		return func() {}, nil
	} else if err != nil {
		return nil, err
	}
	// Of two that came at once the later one has it.
	if held, _, err := r.readLease(ctx); err == nil && held.Run != run {
		return nil, r.refusal(held, leaseFor)
	}
	ctx = context.WithoutCancel(ctx)
	renewing, stop := context.WithCancel(ctx)
	var renewer sync.WaitGroup
	renewer.Go(func() {
		ticker := time.NewTicker(leaseRenewed)
		defer ticker.Stop()
		for {
			select {
			case <-renewing.Done():
				return
			case <-ticker.C:
				_ = r.store.Overwrite(renewing, leaseMark, content) // without it another may begin, which does no harm
			}
		}
	})
	return func() {
		stop()
		renewer.Wait()
		if held, _, err := r.readLease(ctx); err == nil && held.Run == run {
			_ = r.store.Delete(ctx, leaseMark) // else it ends by itself
		}
	}, nil
}

// readLease reads the lease and when it was last renewed, by the storage's clock.
func (r *Repository) readLease(ctx context.Context) (leaseRecord, time.Time, error) {
	var held leaseRecord
	info, err := r.store.Stat(ctx, leaseMark)
	if err != nil {
		return held, time.Time{}, err
	}
	content, err := storage.ReadAll(ctx, r.store, leaseMark, 1<<16)
	if err != nil {
		return held, time.Time{}, err
	}
	return held, info.Modified, json.Unmarshal(content, &held)
}
