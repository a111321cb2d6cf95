package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage/memory"
)

// A partial says how many blocks are done; what it says beyond the object costs nothing, and the context ends it.
func TestAHostilePartialIsVisitedByRuns(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := Init(ctx, store, Environment{}, Options{BlockSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	in, err := r.NewIngest(ctx, IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key := backup.NewMachineKey(backup.PlatformImage, "vm", "", "source")
	point := backup.NewPointID(key, "1")
	task := &Task{ingest: in, name: format.RandomName(), point: point, machine: r.Pseudonym(key), validator: []byte("v"), blockSize: 4096}
	var records []byte
	for _, first := range []uint64{0, 1 << 51, 1<<64 - 1} {
		records = binary.LittleEndian.AppendUint32(records, 0)
		records = binary.LittleEndian.AppendUint32(records, 1<<32-1)
		records = binary.LittleEndian.AppendUint64(records, first)
		records = append(records, make([]byte, 32)...)
	}
	partial, err := partialBatch{task: task, records: records}.write(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.commit(ctx, &commitlog.Payload{Partials: []commitlog.Partial{partial}}, nil); err != nil {
		t.Fatal(err)
	}
	visits := 0
	visit := func(done Done) error {
		visits++
		if done.First < 0 || done.Count < 0 {
			t.Errorf("visited %+v", done)
		}
		return nil
	}
	if _, err := in.BeginTask(ctx, point, key, []byte("v"), visit); err != nil || visits != 3 {
		t.Fatalf("%d visits, %v; want one for each record", visits, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	if _, err := in.BeginTask(cancelled, point, key, []byte("v"), func(Done) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if err := in.Close(ctx, nil); err != nil {
		t.Fatal(err)
	}
}

// A feature that another writer uses while this one commits makes this one stop, not go on behind it.
func TestAFeatureSeenWhileCommittingStopsIt(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := Init(ctx, store, Environment{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := commitlog.Encode(r.hasher, 2, r.state.Head.Checksum, &commitlog.Payload{})
	if err != nil {
		t.Fatal(err)
	}
	raw[16] = 1
	sum := r.hasher.Sum(format.ContextLogEntry, raw[:len(raw)-32])
	copy(raw[len(raw)-32:], sum[:])
	if err := store.Put(ctx, commitlog.EntryName(2), raw); err != nil {
		t.Fatal(err)
	}
	if err := r.commit(ctx, &commitlog.Payload{}, nil); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("committed with %v, want ErrReadOnly", err)
	}
	if names := store.Names("log/"); len(names) != 2 {
		t.Fatalf("the log has %q", names)
	}
}

// Checkpoints do not pile up: the newest two stay.
func TestTwoCheckpointsAreKept(t *testing.T) {
	ctx := t.Context()
	store := memory.New()
	r, err := Init(ctx, store, Environment{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for r.state.Head.N < 5*checkpointEvery+3 {
		if err := r.commit(ctx, &commitlog.Payload{}, nil); err != nil {
			t.Fatal(err)
		}
		if r.state.Head.N == 3*checkpointEvery {
			if r, err = Open(ctx, store, Environment{}); err != nil { // another process goes on
				t.Fatal(err)
			}
		}
	}
	names := store.Names("checkpoints/")
	if len(names) != 2 || names[1] != commitlog.CheckpointName(5*checkpointEvery) {
		t.Fatalf("checkpoints %q", names)
	}
}
