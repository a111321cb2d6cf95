package repo_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

// What opening a repository allocates for each pack is at most a byte for a block of it, where blocks of 128 KiB do not shrink and a pack has
// 512. Garbage counts like what stays: so whatever the collector does, memory grows no faster than that.
func TestOpeningAllocatesLittleForAPack(t *testing.T) {
	const few, many = 1 << 12, 1 << 14
	for _, c := range []struct {
		name string
		cold bool
		most uint64
	}{
		{"here before", false, 200}, // the state that is remembered is read, but not left to the collector
		{"for the first time", true, 460},
	} {
		t.Run(c.name, func(t *testing.T) {
			each := (openingAllocates(t, many, c.cold) - openingAllocates(t, few, c.cold)) / (many - few)
			if each > c.most {
				t.Errorf("a pack takes %d bytes, want %d at most", each, c.most)
			}
		})
	}
}

// openingAllocates returns how many bytes opening a repository of so many packs allocates, of which a checkpoint says nearly all.
func openingAllocates(t *testing.T, packs int, cold bool) uint64 {
	t.Helper()
	store, cache := initialized(t, repo.Options{}), newCache(t)
	r := must(openSmall(t.Context(), store, cache))(t)
	payload := &commitlog.Payload{}
	for i := range packs {
		var name format.Name
		binary.BigEndian.PutUint64(name[:], uint64(i)*0x9e3779b97f4a7c15)
		p := commitlog.Pack{ID: name, Kind: "block", Domain: r.Description().ID, Size: 64 << 20, Frames: 512}
		payload.Packs = append(payload.Packs, p)
	}
	if err := r.AppendEntry(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{}); err != nil { // the checkpoint's entry is read, too: a small one, as nearly all are
		t.Fatal(err)
	}
	if err := r.WriteCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	if cold {
		cache = newCache(t)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r = must(openSmall(t.Context(), store, cache))(t)
	runtime.ReadMemStats(&after)
	if known := r.State().Packs.Len(); known != packs {
		t.Fatalf("%d packs, want %d", known, packs)
	}
	closeRepo(t, r)
	return after.TotalAlloc - before.TotalAlloc
}
