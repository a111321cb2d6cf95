package repo_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// A machine that has seen more of a repository than is there now reads it with a warning and does not write to it.
func TestRolledBackRepository(t *testing.T) {
	for _, seenBy := range []string{"writing", "opening"} {
		store, writer, cache := initialized(t, repo.Options{}), newCache(t), newCache(t)
		p1, p2, p3 := onePoint("a", "1", content(1, 50000)), onePoint("b", "2", content(2, 50000)), onePoint("c", "3", content(3, 50000))
		r := must(openSmall(t.Context(), store, writer))(t)
		mustCopyAll(t, r, p1)
		older := store.Clone()
		mustCopyAll(t, r, p2)
		closeRepo(t, r)
		if seenBy == "writing" {
			cache = writer
		} else {
			closeRepo(t, must(openSmall(t.Context(), store, cache))(t))
		}

		r = must(openSmall(t.Context(), older, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Fatalf("seen by %s: rolled back, and nobody noticed: %v", seenBy, r.Diverged())
		}
		check(t, r, p1)
		if _, err := r.NewIngest(t.Context(), repo.IngestOptions{}); !errors.Is(err, repo.ErrDiverged) {
			t.Errorf("writing to a repository that was rolled back: %v", err)
		}
		entries := len(older.Names(""))
		if _, err := copyAll(t.Context(), r, sourcetest.Open(t, p3)); !errors.Is(err, repo.ErrDiverged) {
			t.Errorf("copying to a repository that was rolled back: %v", err)
		}
		if n := len(older.Names("")); n != entries {
			t.Errorf("%d files were written where nothing may be", n-entries)
		}
		closeRepo(t, r)

		// Looking at it does not make it right; adopting does.
		r = must(openSmall(t.Context(), older, cache))(t)
		if r.Diverged() == nil {
			t.Error("noticed once only")
		}
		if err := r.Adopt(); err != nil {
			t.Fatal(err)
		}
		mustCopyAll(t, r, p3)
		check(t, r, p1, p3)
		closeRepo(t, r)

		// Now the other copy, in which both went on, is the one that differs, though it is as long.
		r = must(openSmall(t.Context(), store, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("forked, and nobody noticed: %v", r.Diverged())
		}
		check(t, r, p1, p2)
		closeRepo(t, r)
	}
}

// Two copies of a repository that both went on, whichever is longer.
func TestForkedRepository(t *testing.T) {
	for more := range 3 {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		r := must(openSmall(t.Context(), store, cache))(t)
		mustCopyAll(t, r, onePoint("a", "1", content(1, 50000)))
		closeRepo(t, r)
		fork := store.Clone()
		other := must(openSmall(t.Context(), fork, ""))(t)
		for i := range more + 1 {
			mustCopyAll(t, other, onePoint("fork", string(rune('x'+i)), content(9, 9000*(i+1))))
		}
		closeRepo(t, other)
		r = must(openSmall(t.Context(), store, cache))(t)
		mustCopyAll(t, r, onePoint("b", "2", content(2, 50000)))
		mustCopyAll(t, r, onePoint("c", "3", content(3, 50000)))
		closeRepo(t, r)
		r = must(openSmall(t.Context(), fork, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("fork with %d commits of its own: %v", more+1, r.Diverged())
		}
		closeRepo(t, r)
		// A copy that is merely behind what it was copied from, seen by a machine that knows less, is no fork.
		r = must(openSmall(t.Context(), store, newCache(t)))(t)
		if r.Diverged() != nil {
			t.Errorf("seen for the first time: %v", r.Diverged())
		}
		closeRepo(t, r)
	}
}

// repositoryModel goes through random histories and compares with what was copied.
type repositoryModel struct {
	store  *memory.Store
	cache  string
	repo   *repo.Repository
	last   map[string]*sourcetest.Point // each machine's newest point that was tried
	tried  []*sourcetest.Point
	copied map[*sourcetest.Point]bool
	n      int
}

// draw makes the next point of a machine: its disk grows or shrinks, to sizes of no block's multiple, and changes here and
// there; parts become zeros.
func (m *repositoryModel) draw(t *rapid.T) *sourcetest.Point {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "machine")
	m.n++
	p := onePoint(name, string(rune('A'+m.n%26))+name, nil)
	p.Native = name + p.Created.Add(1).String() + string(rune(0x4e00+m.n))
	p.Created = at(0).Add(at(m.n).Sub(at(0)))
	size := rapid.SampledFrom([]int{0, 1, 4095, 4096, 4097, 100_000, 256 * 4096, 256*4096 + 1, 300 * 4096}).Draw(t, "size")
	data := make([]byte, size)
	before := m.last[name]
	if before != nil {
		copy(data, before.Objects[0].Data)
		p.Base = before
	}
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		if size == 0 {
			break
		}
		from := rapid.IntRange(0, size-1).Draw(t, "from")
		to := min(size, from+rapid.SampledFrom([]int{1, 100, 4096, 50_000}).Draw(t, "length"))
		if rapid.IntRange(0, 3).Draw(t, "zeros") == 0 {
			clear(data[from:to])
		} else {
			copy(data[from:to], content(rapid.Uint64Range(0, 20).Draw(t, "seed"), to-from))
		}
	}
	p.Objects[0].Data = data
	p.Grain = rapid.SampledFrom([]int64{512, 1000, 4096, 65536}).Draw(t, "grain")
	if rapid.IntRange(0, 2).Draw(t, "one pass") == 0 {
		p.Objects[0].Access, p.Objects[0].HideSize = source.AccessOnePass, rapid.Bool().Draw(t, "hide size")
	}
	m.last[name] = p
	m.tried = append(m.tried, p)
	return p
}

func (m *repositoryModel) open(t *rapid.T) {
	if m.repo != nil {
		if err := m.repo.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openSmall(t.Context(), m.store, m.cache)
	if err != nil {
		t.Fatal(err)
	}
	m.repo = r
}

func TestRepositoryIsItsModel(t *testing.T) {
	options := []repo.Options{{}, {SHA256: true}, {BlockSize: 64 << 10}}
	bases := make([]*memory.Store, len(options))
	for i := range options {
		bases[i] = initialized(t, options[i])
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := &repositoryModel{
			store: bases[rapid.IntRange(0, len(bases)-1).Draw(rt, "options")].Clone(), cache: newCache(t),
			last: map[string]*sourcetest.Point{}, copied: map[*sourcetest.Point]bool{},
		}
		m.open(rt)
		defer func() { closeRepo(t, m.repo) }()
		rt.Repeat(map[string]func(*rapid.T){
			"copy": func(rt *rapid.T) {
				p := m.draw(rt)
				report, err := copyAll(rt.Context(), m.repo, sourcetest.Open(t, p))
				if err := errors.Join(err, stepErrors(report)); err != nil {
					rt.Fatal(err)
				}
				m.copied[p] = true
			},
			"crash": func(rt *rapid.T) {
				p := m.draw(rt)
				m.store.CrashAfter(rapid.IntRange(0, 60).Draw(rt, "after"))
				_, _ = copyAll(rt.Context(), m.repo, sourcetest.Open(t, p))
				m.store = m.store.Clone()
				m.open(rt)
			},
			"retry": func(rt *rapid.T) {
				if len(m.tried) == 0 {
					rt.Skip("nothing was tried")
				}
				p := rapid.SampledFrom(m.tried).Draw(rt, "point")
				report, err := copyAll(rt.Context(), m.repo, sourcetest.Open(t, p))
				if err := errors.Join(err, stepErrors(report)); err != nil {
					rt.Fatal(err)
				}
				m.copied[p] = true
			},
			"reopen": m.open,
			"lose cache": func(rt *rapid.T) {
				m.cache = newCache(t)
				m.open(rt)
			},
			"look": func(rt *rapid.T) {
				report, err := m.repo.Verify(rt.Context(), nil)
				if err != nil || len(report.Damage) > 0 {
					rt.Fatalf("verify: %v, %+v", err, report)
				}
				for _, p := range m.tried {
					if m.copied[p] && !m.repo.Has(p.ID()) {
						rt.Fatalf("%s is gone", p.Native)
					}
					if m.repo.Has(p.ID()) { // also what was committed just before a crash
						if err := compare(rt.Context(), m.repo, p); err != nil {
							rt.Fatal(err)
						}
					}
				}
			},
		})
	})
}
