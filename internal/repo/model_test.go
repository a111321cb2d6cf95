package repo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// The repository against a model of it that says only which points there are and what they hold: random sequences of
// everything that can be done to a repository, by two processes, with crashes and power cuts in between. After each step
// the points are those of the model, and whole.
//
// A sequence that fails is made shorter, and printed with what repeats it (-rapid.seed, -rapid.failfile).
// MODEL_ROUNDS says how many hundreds of sequences are tried of each kind of repository.

func TestRepositoryIsItsModel(t *testing.T) {
	if encryptAll {
		t.Skip("encrypted repositories are among its kinds")
	}
	kinds := []struct {
		name    string
		options repo.Options
	}{
		{"plain", repo.Options{}},
		{"sha256", repo.Options{SHA256: true}},
		{"encrypted", encryptedOptions(repo.Options{})},
		{"parity", repo.Options{Parity: &repo.Parity{Data: 10, Parity: 2}}},
	}
	for _, kind := range kinds {
		base := memory.New()
		base.SetClock(func() time.Time { return at(12) })
		kind.options.BlockSize = smallBlock
		closeRepo(t, must(repo.Init(t.Context(), base, repo.Environment{}, kind.options))(t))
		for i := range modelRounds(t) {
			t.Run(fmt.Sprint(kind.name, i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(rt *rapid.T) { runModel(rt, base) })
			})
		}
	}
}

// known says what the model knows of a point.
type known int

const (
	absent known = iota
	present
	// unknown: what was done to it was not acknowledged.
	unknown
)

// model is the repository as it should be, and two processes that use it.
type model struct {
	store *memory.Store
	clock atomic.Pointer[time.Time] // an ingest reads it while it writes
	// processes have the repository open: the second one is often behind.
	processes [2]*repo.Repository
	caches    [2]string
	// last are the machines' newest points that were tried to copy.
	last  map[string]*sourcetest.Point
	tried []*sourcetest.Point
	state map[backup.PointID]known
	// holds on points; nil for one whose process is gone, which ends by itself.
	holds map[backup.PointID][]*repo.Hold
	// unclaimed are points that were given up while they were held: the first reclaim after that removes them.
	unclaimed map[backup.PointID]bool
	// leased is until when a reclaim that was killed keeps others out.
	leased time.Time
	// paused is a copy that has begun, and whose process does nothing for however long.
	paused *pausedCopy
	// lag is how many calls later listings show a change, -1 for never until the process ends.
	lag  int
	keys modelKeys
	// due makes what waits for a full pack be written down at once.
	due bool
	// donor, if not nil, is from before something was damaged that is not healed; damaged are the points that could not be read since.
	donor   *repo.Repository
	damaged map[backup.PointID]bool
	// doubtful makes the next look compare all points.
	doubtful bool
	n        int
}

func runModel(t *rapid.T, base *memory.Store) {
	m := &model{
		store: base.Clone(), last: map[string]*sourcetest.Point{}, state: map[backup.PointID]known{},
		holds: map[backup.PointID][]*repo.Hold{}, unclaimed: map[backup.PointID]bool{},
	}
	if len(base.Names("keys/")) > 0 {
		m.keys.of = map[int]known{0: present}
	}
	m.set(at(12))
	if rapid.IntRange(0, 9).Draw(t, "with caches") == 0 {
		m.newCaches(t)
	}
	m.lag = rapid.SampledFrom([]int{0, 0, 0, 0, 5, -1}).Draw(t, "listings lag")
	m.due = rapid.IntRange(0, 9).Draw(t, "always due") == 0
	m.open(t)
	defer m.close(t)
	defer m.giveUpDonor()
	t.Repeat(map[string]func(*rapid.T){
		"":                m.check,
		"copy":            m.copy,
		"copy two":        m.copyTwo,
		"copy fails":      m.copyFails,
		"copy some":       m.copySome,
		"copy sealed":     m.copySealed,
		"copy crashes":    m.crashing(m.copyOf),
		"retry":           m.retry,
		"retry crashes":   m.crashing(m.retrying),
		"forget":          m.forget,
		"forget crashes":  m.crashing(m.forgetting),
		"compact":         m.compact,
		"compact crashes": m.crashing(m.compacting),
		"heal":            m.heal,
		"heal crashes":    m.healCrashes,
		"rot":             m.rot,
		"mend":            m.mend,
		"rotate":          m.whole(m.rotating),
		"rotate crashes":  m.rotationCrashes(m.rotating),
		"drop":            m.whole(m.dropping),
		"drop crashes":    m.rotationCrashes(m.dropping),
		"add key":         m.whole(m.addingKey),
		"add crashes":     m.crashing(m.addingKey),
		"remove key":      m.whole(m.removingKey),
		"remove crashes":  m.crashing(m.removingKey),

		"hold":            m.hold,
		"pause":           m.pause,
		"overtaken":       m.overtaken,
		"resume":          m.resume,
		"reclaim":         m.reclaim,
		"reclaim crashes": m.crashing(m.reclaiming),
		"release":         m.release,
		"wait":            m.wait,
		"reopen":          m.reopen,
		"lose caches":     m.loseCaches,
		"verify":          m.verify,
	})
	if m.donor != nil {
		m.mend(t)
	}
	m.verify(t)
	m.check(t)
}

func (m *model) open(t *rapid.T) {
	m.store.SetClock(m.now)
	m.store.SetListingLag(m.lag)
	m.drawKeys(t)
	for i := range m.processes {
		r, err := repo.Open(context.Background(), m.store, repo.Environment{
			CacheDir: m.caches[i], Keys: m.keyOf(i), Now: m.now,
		})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		r.SetPackTargets(smallPack, smallPack)
		if m.due {
			r.SetWrittenDownWithin(0)
		}
		if err := r.Diverged(); err != nil {
			t.Fatalf("open: %v", err)
		}
		m.processes[i] = r
	}
}

func (m *model) close(t *rapid.T) {
	m.giveUpPaused()
	for _, holds := range m.holds {
		clear(holds)
	}
	for _, r := range m.processes {
		if err := r.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

func (m *model) reopen(t *rapid.T) {
	m.doubtful = true
	m.close(t)
	m.open(t)
}

func (m *model) loseCaches(t *rapid.T) {
	if m.caches[0] == "" {
		t.Skip("there are none")
	}
	m.newCaches(t)
	m.reopen(t)
}

func (m *model) newCaches(t *rapid.T) {
	for i := range m.caches {
		dir, err := os.MkdirTemp(scratch, "cache-")
		if err != nil {
			t.Fatal(err)
		}
		m.caches[i] = dir
	}
}

// process is one of the two that have the repository open; the first one more often.
func (m *model) process(t *rapid.T) *repo.Repository {
	return m.processes[max(0, rapid.IntRange(-2, 1).Draw(t, "process"))]
}

// giver is a process that gives something up: one of the two, or another that does not have the key.
func (m *model) giver(t *rapid.T) (r *repo.Repository, done func()) {
	if m.processes[0].KeyGeneration() == 0 || rapid.IntRange(0, 2).Draw(t, "without the key") > 0 {
		return m.process(t), func() {}
	}
	r, err := repo.Open(context.Background(), m.store, repo.Environment{Now: m.now})
	if err != nil {
		t.Fatalf("open without the key: %v", err)
	}
	r.SetPackTargets(smallPack, smallPack)
	return r, func() {
		if err := r.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

// check compares the points with the model's.
func (m *model) check(t *rapid.T) {
	ctx := context.Background()
	r := m.processes[0]
	if err := r.Refresh(ctx); err != nil {
		t.Fatalf("refresh: %v", err)
	}
	m.checkKeys(t)
	entries := r.Entries() // once: the paused copy's point may come while the others are looked at
	listed := map[backup.PointID]bool{}
	for _, e := range entries {
		listed[e.ID] = true
	}
	var there []*sourcetest.Point
	for _, p := range m.tried {
		id := p.ID()
		has := listed[id]
		if m.paused != nil && m.paused.point == p { // its packs may be committed at any moment
			if has {
				there = append(there, p)
			}
			continue
		}
		if m.state[id] == unknown {
			m.state[id] = absent
			if has {
				m.state[id] = present
			}
		}
		if has != (m.state[id] == present) || has != r.Has(id) {
			t.Fatalf("point %s is listed: %v, is there: %v, and should be: %v", p.Native, has, r.Has(id), m.state[id] == present)
		}
		if has {
			there = append(there, p)
		} else {
			delete(m.unclaimed, id) // if it is copied again it is claimed
		}
	}
	if len(entries) != len(there) {
		t.Fatalf("%d points are listed, and %d should be", len(entries), len(there))
	}
	if !m.doubtful && len(there) > 2 { // the newest, and one of the others
		there = []*sourcetest.Point{there[len(there)-1], there[m.n%(len(there)-1)]}
	}
	m.doubtful = false
	for _, p := range there {
		if err := compare(ctx, r, p); err != nil && (!m.damaged[p.ID()] || !errors.Is(err, backup.ErrDamaged)) {
			t.Fatalf("a point is not what was copied: %v", err)
		}
	}
}

func (m *model) verify(t *rapid.T) {
	r := m.process(t)
	m.doubtful = true
	report, err := r.Verify(context.Background(), nil)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if len(report.Damage) > 0 && m.donor == nil {
		t.Fatalf("verify found what nobody damaged: %+v", report.Damage)
	}
}

// draw makes the next point of a machine: its disk grows or shrinks, to sizes of no block's multiple, and changes here and
// there; parts become zeros.
func (m *model) draw(t *rapid.T) *sourcetest.Point {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "machine")
	m.n++
	p := onePoint(name, fmt.Sprint(name, m.n), nil)
	p.Created = at(m.n)
	size := rapid.SampledFrom([]int{0, 1, 4095, 4096, 4097, 20_000, 50_000, 100_000, 257 * 4096}).Draw(t, "size")
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
		to := min(size, from+rapid.SampledFrom([]int{1, 100, 4096, 30_000}).Draw(t, "length"))
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

// drawKnown makes a point of a new machine with the content of one that is there, which is found by its ids only; or any.
func (m *model) drawKnown(t *rapid.T) *sourcetest.Point {
	var there []*sourcetest.Point
	for _, p := range m.tried {
		if m.state[p.ID()] == present && len(p.Objects[0].Data) > 0 {
			there = append(there, p)
		}
	}
	if len(there) == 0 || rapid.Bool().Draw(t, "new content") {
		return m.draw(t)
	}
	m.n++
	p := onePoint(fmt.Sprint("twin", m.n), fmt.Sprint("twin", m.n), there[rapid.IntRange(0, len(there)-1).Draw(t, "content of")].Objects[0].Data)
	p.Created = at(m.n)
	m.tried = append(m.tried, p)
	return p
}

// attempts of a copy, as package job makes them when another writer gave up what it relied on.
const modelAttempts = 3

// ingest copies points at once through one ingest, and returns why the first that was not committed was not.
func ingest(r *repo.Repository, options repo.IngestOptions, points ...*sourcetest.Point) error {
	var err error
	for range modelAttempts {
		if err = ingestOnce(r, options, points); !errors.Is(err, repo.ErrCondemned) {
			break
		}
		points = slices.DeleteFunc(slices.Clone(points), func(p *sourcetest.Point) bool { return r.Has(p.ID()) })
	}
	return err
}

func ingestOnce(r *repo.Repository, options repo.IngestOptions, points []*sourcetest.Point) error {
	ctx := context.Background()
	in, err := r.NewIngest(ctx, options)
	if err != nil {
		return err
	}
	copied, committed := make([]error, len(points)), make([]error, len(points))
	var done group
	for i, p := range points {
		committed[i] = errors.New("the commit was not told of")
		done.Go(func() {
			one := mover.New(in, mover.Options{Job: "manual", Codec: mover.CodecAuto})
			copied[i] = one.Copy(ctx, p.Described(), func(_ mover.Result, err error) { committed[i] = err })
		})
	}
	done.Wait()
	closed := in.Close(ctx, in.Failed())
	for i := range points {
		if copied[i] != nil {
			committed[i] = nil
		}
	}
	return errors.Join(append(append(copied, committed...), closed)...)
}
