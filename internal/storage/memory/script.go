package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/storage"
)

// Op is a kind of call to a store, its writers or its readers.
type Op string

// The operations. Each call of the method of that name is one; aborting and closing are none.
const (
	OpCreate    Op = "create"
	OpWrite     Op = "write"
	OpCommit    Op = "commit"
	OpPut       Op = "put"
	OpOverwrite Op = "overwrite"
	OpOpen      Op = "open"
	OpRead      Op = "read"
	OpStat      Op = "stat"
	OpList      Op = "list"
	OpDelete    Op = "delete"
	OpSync      Op = "sync deletes"
	OpLock      Op = "lock"
)

// Fault decides whether a call fails: with the error that it returns. name is the object's, for OpList the prefix, for OpSync the folder. It
// may be called by several goroutines at once, and may use the store's methods that are not calls.
type Fault func(op Op, name string) error

// Spoil may change what a read of an object gives, before its reader gets it; what is stored stays. It may be called by
// several goroutines at once, and may use the store's methods that are not calls.
type Spoil func(name string, read []byte)

// ErrCrashed is what every call fails with after the crash that CrashAfter announced.
var ErrCrashed = errors.New("storage is gone: the process has crashed")

const (
	// unlimited space, in bytes.
	unlimited = int64(-1)
	// never is the number of a call that is not reached.
	never = int(^uint(0) >> 1)
)

// script is what is to go wrong.
type script struct {
	fault   Fault
	spoil   Spoil
	latency func(op Op, size int) time.Duration
	// space is how many bytes still fit.
	space int64
	// calls is how many there were; crashAt is the number of the last one that works.
	calls, crashAt int
	now            func() time.Time
	// byName makes each read one of the name.
	byName bool
}

// applied is an error for a call that took effect.
type applied struct{ error }

func (a applied) Unwrap() error { return a.error }

// Applied makes an error for a Fault to return when the call is to take effect and its caller is to get the error
// nevertheless: the answer was lost on the way.
func Applied(err error) error { return applied{err} }

// InTurn is a Fault that is asked for one call at a time, so that it may count and remember without guarding what it counts with. It must
// not wait for another call.
func InTurn(fault Fault) Fault {
	var mu sync.Mutex
	return func(op Op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		return fault(op, name)
	}
}

// SetFault sets the hook that is asked before each call; nil for none.
func (s *Store) SetFault(fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.fault = fault
}

// SetSpoil sets the hook through which everything goes that is read; nil for none.
func (s *Store) SetSpoil(spoil Spoil) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.spoil = spoil
}

// CrashAfter lets the next calls, as many as given, work, and makes all later ones fail with ErrCrashed. A negative
// number calls the crash off.
func (s *Store) CrashAfter(calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.crashAt = never
	if calls >= 0 {
		s.script.crashAt = s.script.calls + calls
	}
}

// SetSpace says how many bytes more the store takes before it is full. What is deleted or aborted gives its space
// back. A negative number lifts the limit.
func (s *Store) SetSpace(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.space = max(bytes, unlimited)
}

// SetLatency makes each call last as long as latency says before it takes effect; size is the length in bytes of
// what it writes, or of the buffer it reads to. nil for no latency.
func (s *Store) SetLatency(latency func(op Op, size int) time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.latency = latency
}

// SetParallelWrites makes the store say how many objects at once pay off to be written to and to be put.
func (s *Store) SetParallelWrites(written, put int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writesAtOnce, s.putsAtOnce = written, put
}

// ParallelWrites is what was set, at first 1.
func (s *Store) ParallelWrites() (written, put int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writesAtOnce, s.putsAtOnce
}

// SetClock sets the storage's own clock, from which objects have their times.
func (s *Store) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.now = now
}

// SetReadByName makes readers fail once their object is deleted, as those of a bucket do.
func (s *Store) SetReadByName() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.byName = true
}

// SetListingLag makes listings stale: what is published or deleted from now on shows in those that begin after that
// many other calls. With a negative number it shows only after Settle.
func (s *Store) SetListingLag(calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = calls
}

// Settle makes listings show everything that happened so far.
func (s *Store) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(never)
}

// show makes listings show a change, now or when it is due. The lock is held.
func (s *Store) show(c change) {
	c.due = s.script.calls
	switch {
	case s.lag < 0:
		c.due = never
	case s.lag > 0:
		c.due += s.lag + 1
	}
	s.pending = append(s.pending, c)
	s.settle(s.script.calls)
}

// settle makes listings show the changes that are due at a call: in the order in which they were made, so that one that
// is not due holds up those behind it. The lock is held.
func (s *Store) settle(call int) {
	for len(s.pending) > 0 && s.pending[0].due <= call {
		c := s.pending[0]
		s.pending = s.pending[1:]
		if c.deleted {
			delete(s.listed, c.info.Name)
		} else {
			s.listed[c.info.Name] = c.info
		}
	}
}

// call carries out one operation, unless something is to go wrong. The lock is held during do only, so that neither
// the hook nor the latency keeps other calls out.
func (s *Store) call(ctx context.Context, op Op, name string, size int, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	checkName := storage.CheckName
	if op == OpList || op == OpSync {
		checkName = storage.CheckPrefix
	}
	if err := checkName(name); err != nil {
		return err
	}
	script, err := s.begin(op, name, do)
	if err != nil {
		return err
	}
	var fault error
	if script.fault != nil {
		fault = script.fault(op, name)
	}
	if script.latency != nil {
		if err := storage.Sleep(ctx, script.latency(op, size)); err != nil {
			return err
		}
	}
	var effect applied
	if fault != nil && !errors.As(fault, &effect) {
		return fault
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A call that began before the crash and would take effect after it is lost too.
	if s.script.calls > s.script.crashAt {
		return ErrCrashed
	}
	err = do()
	if fault != nil {
		return effect.error
	}
	return err
}

// begin counts a call and returns what is to happen to it.
func (s *Store) begin(op Op, name string, do func() error) (script, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return script{}, errClosed
	}
	s.script.calls++
	s.countCall(op, name)
	s.settle(s.script.calls)
	if s.script.calls > s.script.crashAt {
		if s.script.calls == s.script.crashAt+1 {
			s.interrupt(op, name, do)
		}
		return script{}, ErrCrashed
	}
	return s.script, nil
}

// Free is how much space is left; it is not known if nothing limits it.
func (s *Store) Free(context.Context) (free int64, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.script.space == unlimited {
		return 0, false, nil
	}
	return s.script.space, true, nil
}

// takeSpace uses up space for an object, or says that the store is full. The lock is held.
func (s *Store) takeSpace(name string, size int) error {
	if s.script.space == unlimited {
		return nil
	}
	if int64(size) > s.script.space {
		return fmt.Errorf("writing %s: %w", name, storage.ErrFull)
	}
	s.script.space -= int64(size)
	return nil
}

// giveSpace gives space back. The lock is held.
func (s *Store) giveSpace(size int) {
	if s.script.space != unlimited {
		s.script.space += int64(size)
	}
}
