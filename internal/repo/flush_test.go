package repo_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// A flush that is cancelled does not wait for a storage that hangs, nor do those who fill packs. What was given is committed
// all the same.
func TestFlushHeedsItsContext(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	hangs, goOn := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpPut && strings.HasPrefix(name, "log/") && armed.CompareAndSwap(true, false) {
			close(hangs)
			<-goOn
		}
		return nil
	})
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	p := threeMachines()[0]
	err := mover.New(ingest, mover.Options{Job: "manual"}).Copy(t.Context(), p.Described(), func(_ mover.Result, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	flushed := make(chan error)
	for range 5 { // more than may be on their way
		go func() { flushed <- ingest.Flush(ctx) }()
	}
	<-hangs
	cancel()
	for range 5 {
		if err := <-flushed; !errors.Is(err, context.Canceled) {
			t.Errorf("a flush that was cancelled: %v", err)
		}
	}
	close(goOn)
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	check(t, r, p)
	if !r.Has(p.ID()) {
		t.Error("the point was not committed")
	}
}
