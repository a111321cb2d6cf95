package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func rots(flips int) []rot {
	return []rot{
		{"flip", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			// Each kind of file as often as any other, however few bytes it has.
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
			name, what := of[random.IntN(len(of))], ""
			tamper(t, store, name, func(b []byte) []byte {
				at, bit := random.IntN(len(b)), random.IntN(8)
				what = fmt.Sprintf("%s, byte %d of %d, bit %d flipped", name, at, len(b), bit)
				b[at] ^= 1 << bit
				return b
			})
			return what
		}, flips},
		{"missing", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := names[random.IntN(len(names))]
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return name + " gone"
		}, flips / 5},
		{"cut", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := names[random.IntN(len(names))]
			tamper(t, store, name, func(b []byte) []byte { return b[:random.IntN(len(b))] })
			return name + " cut"
		}, flips / 5},
		{"sector", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			name := names[random.IntN(len(names))]
			tamper(t, store, name, func(b []byte) []byte {
				at := random.IntN(len(b)) / 4096 * 4096
				clear(b[at:min(at+4096, len(b))])
				return b
			})
			return name + " with a sector of zeros"
		}, flips / 5},
		{"swapped", func(t *testing.T, store *memory.Store, names []string, random *rand.Rand) string {
			one, other := names[random.IntN(len(names))], names[random.IntN(len(names))]
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
		flips = 40
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	original := initialized(t, repo.Options{Parity: &repo.Parity{Data: 10, Parity: 2}})
	points := threeMachines()
	r := must(openSmall(t.Context(), original, ""))(t)
	mustCopyAll(t, r, points...)
	_ = must(r.Verify(t.Context(), nil))(t)
	closeRepo(t, r)
	mirror := original.Clone()
	var names []string
	for _, name := range original.Names("") {
		if !strings.HasPrefix(name, "keys/") { // docs/operations.md has what becomes of key files
			names = append(names, name)
		}
	}
	for _, how := range rots(flips) {
		for range how.times {
			store := original.Clone()
			what := how.do(t, store, names, random)
			judgeRot(t, store, mirror, points, what)
			if t.Failed() {
				t.Fatalf("with seed %d", seed)
			}
		}
	}
}

// judgeRot opens, verifies, reads, heals, and reads again.
func judgeRot(t *testing.T, store, mirror *memory.Store, points []*sourcetest.Point, what string) {
	t.Helper()
	r, err := openSmall(t.Context(), store, "")
	if err != nil {
		if !errors.Is(err, repo.ErrCorrupt) && !errors.Is(err, repo.ErrNewer) && !errors.Is(err, repo.ErrNoRepository) && !errors.Is(err, repo.ErrForged) && !errors.Is(err, repo.ErrNeedsKey) && !errors.Is(err, repo.ErrWrongKey) {
			t.Errorf("%s: it does not open, and no word of damage: %v", what, err)
		}
		if r = mendedLog(t, store, mirror, what); r == nil {
			return
		}
	}
	defer func() { closeRepo(t, r) }()
	found := must(r.Verify(t.Context(), nil))(t)
	noticed := len(found.Damage)+len(found.Healed)+len(found.Remade)+len(found.Warnings) > 0
	if !noticed && err == nil && !strings.Contains(what, "marks/") && !lostEnd(store, mirror) && differs(store, mirror) {
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
