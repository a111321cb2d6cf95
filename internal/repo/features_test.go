package repo

import (
	"errors"
	"testing"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// TestOptionalFeatureMakesReadOnly changes the first log entry as a newer program could have written it.
func TestOptionalFeatureMakesReadOnly(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	if _, err := Init(ctx, store, Environment{}, Options{}); err != nil {
		t.Fatal(err)
	}
	r, err := Open(ctx, store, Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Writable(); err != nil {
		t.Fatalf("a plain repository is not writable: %v", err)
	}
	raw, err := storage.ReadAll(ctx, store, commitlog.EntryName(1), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	raw[16] = 1
	sum := r.hasher.Sum(format.ContextLogEntry, raw[:len(raw)-32])
	copy(raw[len(raw)-32:], sum[:])
	store.Tamper(commitlog.EntryName(1), func([]byte) []byte { return raw })
	newer, err := Open(ctx, store, Environment{})
	if err != nil {
		t.Fatalf("an optional feature keeps the repository from being read: %v", err)
	}
	if err := newer.Writable(); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("writable: %v, want ErrReadOnly", err)
	}
	if _, err := newer.NewIngest(ctx, IngestOptions{}); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("an ingest began with %v, want ErrReadOnly", err)
	}
	if err := newer.commit(ctx, &commitlog.Payload{}, nil); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("a commit gave %v, want ErrReadOnly", err)
	}
}

func TestCheckpointBehindTheLogIsSaid(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := Init(ctx, store, Environment{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for r.state.Head.N < checkpointEvery {
		if err := r.commit(ctx, &commitlog.Payload{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Delete(ctx, commitlog.EntryName(checkpointEvery)); err != nil {
		t.Fatal(err)
	}
	short, err := Open(ctx, store, Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if len(short.Warnings()) != 1 {
		t.Fatalf("warnings %q, want one that says that the log lost its end", short.Warnings())
	}
	report, err := short.Verify(ctx, nil)
	if err != nil || len(report.Damage) == 0 {
		t.Fatalf("verify found %v, %v; want the checkpoint that belongs to no entry", report.Damage, err)
	}
}

// A checkpoint that another process has dropped since it was listed says nothing of the log.
func TestDroppedCheckpointsAreNoDamage(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := Init(ctx, store, Environment{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for r.state.Head.N < 4*checkpointEvery+2 {
		if err := r.commit(ctx, &commitlog.Payload{}, nil); err != nil {
			t.Fatal(err)
		}
		if r.state.Head.N == 2*checkpointEvery+1 {
			store.SetListingLag(-1)
		}
	}
	listed := 0
	for range store.List(ctx, "checkpoints/") {
		listed++
	}
	if names := store.Names("checkpoints/"); listed != 2 || names[0] != commitlog.CheckpointName(3*checkpointEvery) {
		t.Fatalf("%d are listed, and there are %q", listed, names)
	}
	again, err := Open(ctx, store, Environment{})
	if err != nil || len(again.Warnings()) > 0 || again.state.Head != r.state.Head {
		t.Fatalf("%v, %q", err, again.Warnings())
	}
	report, err := again.Verify(ctx, nil)
	if err != nil || len(report.Damage) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
}
