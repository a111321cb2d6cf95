package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// rot is one thing that happens to files of a repository.
type rot struct {
	name string
	// each file that it is done to, one after the other.
	do func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) (what string)
	// times that it is done.
	times int
}

func tamper(t *testing.T, store *memory.Store, name string, change func([]byte) []byte) {
	t.Helper()
	if err := store.Tamper(name, change); err != nil {
		t.Fatal(err)
	}
}

// anyKind is one of the files, each kind as often as any other, however few files and bytes it has.
func anyKind(names []string, random *rand.Rand) string {
	kinds := map[string][]string{}
	var order []string
	for _, name := range names {
		kind, _, _ := strings.Cut(name, "/")
		if kinds[kind] == nil {
			order = append(order, kind)
		}
		kinds[kind] = append(kinds[kind], name)
	}
	of := kinds[order[random.IntN(len(order))]]
	return of[random.IntN(len(of))]
}

// seeded is a source of chance: SEED in the environment feeds back the seed that a failure printed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if given, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = given
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func rots(flips int) []rot {
	return []rot{
		{"flip", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name, what := anyKind(names, random), ""
			tamper(t, store, name, func(b []byte) []byte {
				at, bit := random.IntN(len(b)), random.IntN(8)
				what = fmt.Sprintf("%s, byte %d of %d, bit %d flipped", name, at, len(b), bit)
				b[at] ^= 1 << bit
				return b
			})
			return what
		}, flips},
		{"missing", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := anyKind(names, random)
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return name + " gone"
		}, flips / 5},
		{"cut", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := anyKind(names, random)
			tamper(t, store, name, func(b []byte) []byte { return b[:random.IntN(len(b))] })
			return name + " cut"
		}, flips / 5},
		{"sector", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := anyKind(names, random)
			tamper(t, store, name, func(b []byte) []byte {
				at := random.IntN(len(b)) / 4096 * 4096
				clear(b[at:min(at+4096, len(b))])
				return b
			})
			return name + " with a sector of zeros"
		}, flips / 5},
		{"swapped", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			one, other := anyKind(names, random), anyKind(names, random)
			if one != other {
				exchange(t, store, one, other)
			}
			return one + " exchanged with " + other
		}, flips / 5},
	}
}

// The bit rot campaign: what happens to any file of a repository, of any kind, is found when it is opened or verified, or
// makes no difference; no read returns other bytes than were stored; and with parity and a mirror everything heals, the
// log too. Harmless is only what the format says is: the end of a log that nobody has seen, and hints below marks/.
func TestBitRot(t *testing.T) {
	flips := 200
	if testing.Short() {
		flips = 10
	}
	random := seeded(t)
	original, points := everyKind(t)
	mirror := original.Clone()
	names := original.Names("")
	for _, how := range rots(flips) {
		for range how.times {
			store := original.Clone()
			what := how.do(t, store, names, random)
			judgeRot(t, store, mirror, points, what)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// everyKind is a repository that has files of every kind that there is: also an unfinished copy, a checkpoint, what jobs left.
func everyKind(t *testing.T) (*memory.Store, []*sourcetest.Point) {
	t.Helper()
	store := initialized(t, repo.Options{Parity: &repo.Parity{Data: 10, Parity: 2}})
	points := threeMachines()
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, points...)
	for _, job := range []string{"offsite", "weekly"} {
		if err := r.WriteJob(t.Context(), record(job, "name: "+job)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; len(store.Names("checkpoints/")) == 0; i++ {
		if i > 500 {
			t.Fatal("no checkpoint is written")
		}
		must(r.Hold(t.Context(), points[0].ID(), fmt.Sprint(i)))(t)
	}
	_ = must(r.Verify(t.Context(), nil))(t)
	closeRepo(t, r)
	unfinished := onePoint("unfinished", "u", content(41, 60*smallBlock))
	for calls := 20; len(store.Names("partials/")) == 0; calls++ {
		if calls > 300 {
			t.Fatal("no copy is left unfinished")
		}
		next := store.Clone()
		next.CrashAfter(calls)
		_ = attempt(next, newCache(t), []*sourcetest.Point{unfinished}, t)
		next = next.Clone()
		r := must(openSmall(t.Context(), next, ""))(t)
		if len(r.State().Partials) > 0 && must(r.Verify(t.Context(), nil))(t).Pending == 0 { // each file is one that the log names
			store = next
		}
		closeRepo(t, r)
	}
	kinds := map[string]bool{}
	for _, name := range store.Names("") {
		kind, _, _ := strings.Cut(name, "/")
		kinds[kind] = true
	}
	want := 10
	if encryptAll {
		want++ // keys/
	}
	if len(kinds) != want {
		t.Fatalf("files of %d kinds, want %d: %v", len(kinds), want, kinds)
	}
	return store, points
}

// withKeys opens a repository of which key files may be damaged as somebody does who has them elsewhere, too (docs/operations.md):
// they are put back. The error is what was said before.
func withKeys(t *testing.T, store, mirror *memory.Store) (*repo.Repository, error) {
	t.Helper()
	r, err := openSmall(t.Context(), store, "")
	if err == nil && !r.Locked() || !putBackKeys(t, store, mirror) {
		return r, err
	}
	if err == nil {
		closeRepo(t, r)
		err = repo.ErrNeedsKey
	}
	again, failed := openSmall(t.Context(), store, "")
	if failed != nil {
		return nil, failed
	}
	return again, fmt.Errorf("until its keys were put back: %w", err)
}

// putBackKeys is true if key files were not those of the mirror.
func putBackKeys(t *testing.T, store, mirror *memory.Store) (changed bool) {
	t.Helper()
	for _, name := range mirror.Names("keys/") {
		want := must(storage.ReadAll(t.Context(), mirror, name, 1<<20))(t)
		if there, err := storage.ReadAll(t.Context(), store, name, 1<<30); err == nil && bytes.Equal(there, want) {
			continue
		}
		changed = true
		if err := errors.Join(store.Delete(t.Context(), name), store.Put(t.Context(), name, want)); err != nil {
			t.Fatal(err)
		}
	}
	return changed
}

// judgeRot opens, verifies, reads, heals, and reads again.
func judgeRot(t *testing.T, store, mirror *memory.Store, points []*sourcetest.Point, what string) {
	t.Helper()
	r, err := withKeys(t, store, mirror)
	if err != nil {
		if !errors.Is(err, repo.ErrCorrupt) && !errors.Is(err, repo.ErrNoKeyFiles) && !errors.Is(err, repo.ErrNewer) && !errors.Is(err, repo.ErrNoRepository) && !errors.Is(err, repo.ErrForged) && !errors.Is(err, repo.ErrNeedsKey) && !errors.Is(err, repo.ErrWrongKey) {
			t.Errorf("%s: it does not open, and no word of damage: %v", what, err)
		}
		if r == nil {
			if r = mendedLog(t, store, mirror, what); r == nil {
				return
			}
		}
	}
	defer func() { closeRepo(t, r) }()
	found := must(r.Verify(t.Context(), nil))(t)
	putBackKeys(t, store, mirror)
	noticed := err != nil || len(found.Damage)+len(found.Healed)+len(found.Remade)+len(found.Warnings) > 0
	if !noticed && !harmless(what) && !lostEnd(store, mirror) && differs(store, mirror) {
		t.Errorf("%s: nothing was noticed", what)
	}
	for _, p := range points {
		err := compare(t.Context(), r, p)
		var wrong *wrongBytes
		if errors.As(err, &wrong) {
			t.Errorf("%s: wrong bytes without a word: %v", what, err)
		}
		if err != nil && r.Has(p.ID()) && !noticed {
			t.Errorf("%s: verify found nothing, but: %v", what, err)
		}
	}
	for _, d := range found.Damage {
		if strings.HasPrefix(d.File, "log/") || d.File == "repository.json" { // hidden by a checkpoint when it was opened
			closeRepo(t, r)
			if r = mendedLog(t, store, mirror, what); r == nil {
				r = must(openSmall(t.Context(), mirror.Clone(), ""))(t)
				return
			}
			break
		}
	}
	donor := must(openSmall(t.Context(), mirror, ""))(t)
	defer closeRepo(t, donor)
	if _, err := r.Heal(t.Context(), found, []*repo.Repository{donor}); err != nil {
		t.Errorf("%s: healing: %v", what, err)
	}
	after := must(r.Verify(context.Background(), nil))(t)
	for _, d := range after.Damage {
		t.Errorf("%s: still damaged after healing: %+v", what, d)
	}
	for _, p := range points {
		if !r.Has(p.ID()) && lostEnd(store, mirror) {
			continue // without its last entries a log is a shorter log
		}
		if err := compare(t.Context(), r, p); err != nil {
			t.Errorf("%s: after healing: %v", what, err)
		}
	}
}

// harmless is true for what nobody can notice, and no point needs: hints, and that a checkpoint is gone, which is derived, or what a
// job left.
func harmless(what string) bool {
	gone := strings.HasSuffix(what, " gone") && (strings.HasPrefix(what, "jobs/") || strings.HasPrefix(what, "checkpoints/"))
	return gone || strings.Contains(what, "marks/")
}

// differs is true if a file that is more than a hint is not what it is in the mirror.
func differs(store, mirror *memory.Store) bool {
	same := true
	for _, name := range mirror.Names("") {
		if !strings.HasPrefix(name, "marks/") {
			content := func(s *memory.Store) (text string) {
				_ = s.Tamper(name, func(b []byte) []byte { text = string(b); return b })
				return text
			}
			same = same && content(store) == content(mirror)
		}
	}
	return !same
}

// lostEnd is true if the log ends before the mirror's does.
func lostEnd(store, mirror *memory.Store) bool {
	return len(store.Names("log/")) < len(mirror.Names("log/"))
}

// mendedLog opens a repository that got its log and description from the mirror, whose head the machine remembers.
func mendedLog(t *testing.T, store, mirror *memory.Store, what string) *repo.Repository {
	t.Helper()
	if _, err := repo.MendLog(t.Context(), store, remembering(t, mirror), []storage.Store{mirror}); err != nil {
		t.Errorf("%s: not mended from a mirror: %v", what, err)
		return nil
	}
	r, err := openSmall(t.Context(), store, "")
	if err != nil {
		t.Errorf("%s: it does not open after it was mended: %v", what, err)
		return nil
	}
	return r
}
