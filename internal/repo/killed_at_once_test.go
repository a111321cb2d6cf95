package repo_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// machinesAtOnce are three, with two disks of noise each: what is copied at once is stored disk by disk.
func machinesAtOnce() []*sourcetest.Point {
	var points []*sourcetest.Point
	for i := range 3 {
		data := make([]byte, twoDisks)
		_, _ = rand.NewChaCha8([32]byte{byte(i), 21}).Read(data)
		points = append(points, &sourcetest.Point{Machine: sourcetest.Machine(fmt.Sprint("vm", i)), Native: "p", Created: at(1), Objects: []sourcetest.Object{
			{Name: "vda", Data: data[:twoDisks/2], Access: source.AccessRandom},
			{Name: "vdb", Data: data[twoDisks/2:], Access: source.AccessRandom},
		}})
	}
	return points
}

// sessionAtOnce runs a session of a job that copies all points at once.
func sessionAtOnce(t *testing.T, store storage.Store, points []*sourcetest.Point) *job.Session {
	t.Helper()
	resources := policy.Resources{
		Repositories: []policy.Repository{{Name: "pve", Location: "/pve"}, {Name: "vault", Location: "/vault"}},
		Jobs:         []policy.Job{{Name: "offsite", Source: policy.Origins{Repositories: []string{"pve"}}, Target: policy.Target{Repository: "vault"}}},
	}
	return job.Run(t.Context(), job.Setup{
		Job: policy.Job{Name: "offsite", Schedule: policy.Schedule{Mode: policy.Manual}},
		Sources: []job.Place{{Origin: resources.Origins(resources.Jobs[0])[0], Open: func(context.Context) (*registry.Source, error) {
			return sourcetest.Open(t, points...), nil
		}}},
		Target: job.Goal{Name: "vault", Open: func(ctx context.Context) (*repo.Repository, error) { return openSmall(ctx, store, "") }},
		Pause:  func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Copy:   job.Options{Codec: mover.CodecNone},
		Host:   job.Host{Slots: job.NewSlots(len(points))},
	})
}

// The process is killed, at any call of the target's storage, while several machines are copied at once. The next session copies
// what is not there: no block is stored twice, and what a commit names is not read again.
func TestKilledWhileMachinesAreCopiedAtOnce(t *testing.T) {
	base := initialized(t, repo.Options{})
	whole := base.Clone()
	var calls atomic.Int64
	whole.SetFault(func(memory.Op, string) error { calls.Add(1); return nil })
	if s := sessionAtOnce(t, whole, machinesAtOnce()); s.Result != job.ResultDone || s.Copied() != 3 {
		t.Fatalf("%s: %v", s.Result, s.Err)
	}
	unfinished := atomic.Int64{}
	t.Run("at", func(t *testing.T) {
		for k := 1; k <= int(calls.Load()); k += max(step(int(calls.Load())), int(calls.Load())/40) {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				store := base.Clone()
				store.CrashAfter(k)
				sessionAtOnce(t, store, machinesAtOnce())
				store = store.Clone()
				left := must(openSmall(t.Context(), store, ""))(t)
				_, there := storedOnce(t, left)
				if left.Usage().Unfinished > 1 {
					unfinished.Add(1)
				}
				points := machinesAtOnce()
				missing := int64(0)
				for _, p := range points {
					if !left.Has(p.ID()) {
						missing += twoDisks
					} else {
						there -= twoDisks
					}
				}
				closeRepo(t, left)
				if s := sessionAtOnce(t, store, points); s.Result != job.ResultDone {
					t.Fatalf("%s: %v", s.Result, s.Err)
				}
				var read int64
				for _, p := range points {
					read += p.Read.Load()
				}
				if read > missing-there+smallPack { // what a pack has, and no commit says of whom
					t.Errorf("%d bytes were read, %d were not there", read, missing-there)
				}
				r := must(openSmall(t.Context(), store, ""))(t)
				defer closeRepo(t, r)
				if blocks, _ := storedOnce(t, r); blocks != 3*twoDisks/smallBlock {
					t.Errorf("%d blocks are stored", blocks)
				}
				check(t, r, points...)
			})
		}
	})
	if unfinished.Load() == 0 && runtime.GOMAXPROCS(0) > 1 { // one processor may copy one after the other
		t.Error("no kill left several copies unfinished")
	}
}

// storedOnce counts the blocks of packs that the log names, and their bytes. It fails the test if one is stored twice.
func storedOnce(t *testing.T, r *repo.Repository) (blocks int, bytes int64) {
	t.Helper()
	seen := map[format.ID]bool{}
	for _, packs := range packsByDomain(r) {
		for _, p := range packs {
			if p.Kind != "data" {
				continue
			}
			for _, id := range must(r.FrameOrder(t.Context(), p))(t) {
				if seen[id] {
					t.Errorf("%s is stored twice", id)
				}
				seen[id] = true
			}
		}
	}
	return len(seen), int64(len(seen)) * smallBlock
}
