package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/source/sourcetest"
)

// lostFile is a locked repository with two points, a mirror of it from before one file was lost, and its clock.
type lostFile struct {
	store, donor *lockStore
	env          repo.Environment
	lock         repo.Lock
	points       []*sourcetest.Point
	name         string
	pass         func(time.Duration)
}

// newLostFile makes one that has lost its last file below a folder, one that somebody with the right to do so deleted.
func newLostFile(t *testing.T, folder string) *lostFile {
	t.Helper()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	l := &lostFile{
		store: newLockStore(clock), donor: newLockStore(clock), env: repo.Environment{Now: clock}, lock: repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600},
		pass: func(d time.Duration) { now = now.Add(d) },
	}
	options := repo.Options{BlockSize: smallBlock, Lock: &l.lock, Parity: &repo.Parity{Data: 10, Parity: 2}}
	if encryptAll {
		options = encryptedOptions(options)
	}
	l.env.Keys = identities{testIdentity()}
	closeRepo(t, must(repo.Init(t.Context(), l.store, l.env, options))(t))
	r := l.open(t, l.store)
	l.points = []*sourcetest.Point{onePoint("m", "p1", content(1, 20*smallBlock)), onePoint("n", "p2", content(2, 20*smallBlock))}
	mustCopyAll(t, r, l.points...)
	closeRepo(t, r)
	l.donor.Store = l.store.Clone()
	names := l.store.Names(folder)
	l.name = names[len(names)-1]
	l.store.lose(t, l.name)
	if folder == "packs/" { // else verify makes the pack again
		l.store.lose(t, "parity/"+l.name[strings.LastIndex(l.name, "/")+1:])
	}
	return l
}

func (l *lostFile) open(t *testing.T, store *lockStore) *repo.Repository {
	t.Helper()
	r := must(repo.Open(t.Context(), store.another(), l.env))(t)
	r.SetPackTargets(smallPack, smallPack)
	return r
}

// said are the warnings of a repository that name the lost file.
func (l *lostFile) said(r *repo.Repository) []string {
	return slices.DeleteFunc(r.Warnings(), func(warning string) bool { return !strings.Contains(warning, l.name) })
}

// lockedButLost wants all to be locked until a time that points need, but for what is missing, which is reported still.
func (l *lostFile) lockedButLost(t *testing.T, r *repo.Repository, until time.Time) {
	t.Helper()
	if got := r.LockInfo().Until; got.Before(until) {
		t.Errorf("the log says that all is locked until %v, want %v", got, until)
	}
	_, _, problems, err := r.CheckLocks(t.Context())
	if err != nil || !slices.ContainsFunc(problems, func(p repo.LockProblem) bool { return p.File == l.name && p.Missing }) {
		t.Errorf("%s is not reported: %v, %v", l.name, problems, err)
	}
	for _, p := range problems {
		if !p.Missing {
			t.Errorf("%s is there, and locked until %v only", p.File, p.Until)
		}
	}
}

// A lost pack or point keeps nobody from copying and healing when the locks are to be extended: what is there is locked on. Of what
// nobody has noted yet there is a word, and what to do.
func TestLostFileDoesNotStopExtending(t *testing.T) {
	for _, folder := range []string{"packs/", "points/"} {
		t.Run("copy before it is noted, "+folder, func(t *testing.T) {
			l := newLostFile(t, folder)
			l.pass(11 * 24 * time.Hour)
			r := l.open(t, l.store)
			defer closeRepo(t, r)
			report := mustCopyAll(t, r, onePoint("o", "p3", content(3, 20*smallBlock)))
			if said := l.said(r); len(said) != 1 || !strings.Contains(said[0], "missing") || !strings.Contains(said[0], "ferry verify") {
				t.Errorf("nobody is told of %s: %v", l.name, r.Warnings())
			}
			if !slices.Equal(report.Warnings, r.Warnings()) {
				t.Errorf("the copy reports %v", report.Warnings)
			}
			l.lockedButLost(t, r, l.lock.End(l.env.Now()))
			mustCopyAll(t, r, onePoint("o", "p4", content(4, 20*smallBlock)))
			if said := l.said(r); len(said) != 1 {
				t.Errorf("told again within the generation: %v", said)
			}
		})
		t.Run("copy and heal when it is noted, "+folder, func(t *testing.T) {
			l := newLostFile(t, folder)
			r := l.open(t, l.store)
			found := must(r.Verify(t.Context(), nil))(t)
			if found.DamagedPoints == 0 {
				t.Fatalf("%s is lost, and no point is damaged: the test is wrong", l.name)
			}
			l.pass(11 * 24 * time.Hour)
			mustCopyAll(t, r, onePoint("o", "p3", content(3, 20*smallBlock)))
			if said := l.said(r); len(said) != 0 {
				t.Errorf("told of what is noted: %v", said)
			}
			if lost := r.LockInfo().Lost; lost != 1 {
				t.Errorf("%d files are noted as lost", lost)
			}
			l.lockedButLost(t, r, l.lock.End(l.env.Now()))
			closeRepo(t, r)

			l.pass(11 * 24 * time.Hour)
			r = l.open(t, l.store)
			defer closeRepo(t, r)
			found = must(r.Verify(t.Context(), nil))(t)
			donor := l.open(t, l.donor)
			defer closeRepo(t, donor)
			healed := must(r.Heal(t.Context(), found, []*repo.Repository{donor}))(t)
			if healed.Points+int(healed.Blocks+healed.Nodes) == 0 {
				t.Errorf("nothing was healed: %+v", healed)
			}
			if after := must(r.Verify(t.Context(), nil))(t); after.DamagedPoints != 0 {
				t.Errorf("%d points are damaged: %+v", after.DamagedPoints, after.Damage)
			}
			for _, p := range l.points {
				if err := compare(t.Context(), r, p); err != nil {
					t.Error(err)
				}
			}
			if folder == "points/" {
				if _, _, problems, err := r.CheckLocks(t.Context()); err != nil || len(problems) > 0 || r.LockInfo().Lost != 0 {
					t.Errorf("after healing: %v, %v", problems, err)
				}
				if until := r.LockInfo().Until; !until.Equal(l.lock.End(l.env.Now())) {
					t.Errorf("after healing all is locked until %v", until)
				}
			}
		})
		t.Run("on demand, "+folder, func(t *testing.T) {
			l := newLostFile(t, folder)
			r := l.open(t, l.store)
			defer closeRepo(t, r)
			for range 2 { // in a new generation, and again in it
				l.pass(11 * 24 * time.Hour)
				for range 2 {
					_, missing, err := r.ExtendLocks(t.Context())
					if err != nil || !slices.Contains(missing, l.name) {
						t.Errorf("extending: missing %v, %v", missing, err)
					}
					l.lockedButLost(t, r, l.lock.End(l.env.Now()))
				}
				must(r.Verify(t.Context(), nil))(t)
			}
		})
	}
}

// Without its description or the end of its log a repository opens nowhere else: nothing is added to that.
func TestLostLogStopsExtending(t *testing.T) {
	for _, name := range []string{"repository.json", "log/000000000002"} {
		l := newLostFile(t, "points/")
		r := l.open(t, l.store)
		l.store.lose(t, name)
		l.pass(11 * 24 * time.Hour)
		before := r.LockInfo().Until
		_, _, err := r.ExtendLocks(t.Context())
		if err == nil || !strings.Contains(err.Error(), name) || !r.LockInfo().Until.Equal(before) {
			t.Errorf("%s is lost: %v", name, err)
		}
		closeRepo(t, r)
	}
}

// What an entry adds must be there to be locked: whoever deletes it meanwhile keeps it from being relied on, and that is told.
func TestAddedFileIsGoneBeforeItIsLocked(t *testing.T) {
	l := newLostFile(t, "packs/")
	r := l.open(t, l.store)
	before := r.State().Head.N
	err := r.AppendEntry(t.Context(), &commitlog.Payload{Packs: []commitlog.Pack{{ID: format.Name{1}}}})
	if !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), "packs/01/01000000000000000000000000000000 in "+l.store.Location()) || !strings.Contains(backup.Hint(err), "copy again") {
		t.Errorf("%v; %s", err, backup.Hint(err))
	}
	if after := r.State().Head.N; after != before {
		t.Errorf("%d log entries, %d before", after, before)
	}
	closeRepo(t, r)
}
