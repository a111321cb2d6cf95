package repo_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"filippo.io/age"
	"pgregory.net/rapid"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// keyHolders are those of whom some can open the model's encrypted repository: from its beginning the first.
var keyHolders = sync.OnceValue(func() []holder {
	identities := []*age.X25519Identity{testIdentity(), newIdentity(), newIdentity(), newIdentity()}
	var all []holder
	for i, identity := range identities {
		public := identity.Recipient().String()
		all = append(all, holder{identity, repo.KeyRecipient{To: identity.Recipient(), PublicKey: public, Label: fmt.Sprint("holder ", i)}})
	}
	return all
})

// modelKeys are who can open an encrypted repository, by their numbers among keyHolders.
type modelKeys struct {
	of map[int]known
	// by are those whose key the two processes were given.
	by [2]int
	// halfRotated is true after a rotation was interrupted: who began it, and has both processes, does it again before anybody else
	// can be sure to open the repository.
	halfRotated bool
	// doubtful makes the next look try all keys.
	doubtful bool
}

// drawKeys gives each process somebody's key, which opens the repository.
func (m *model) drawKeys(t *rapid.T) {
	if m.keys.of == nil || m.keys.halfRotated {
		return
	}
	for i := range m.keys.by {
		m.keys.by[i] = m.anyHolder(t, present)
	}
}

// anyHolder is somebody who can open the repository, or cannot.
func (m *model) anyHolder(t *rapid.T, is known) int {
	var some []int
	for i := range keyHolders() {
		if m.keys.of[i] == is {
			some = append(some, i)
		}
	}
	if len(some) == 0 {
		t.Skip("there is nobody")
	}
	return rapid.SampledFrom(some).Draw(t, "holder")
}

// keyOf is what a process is given.
func (m *model) keyOf(process int) repo.KeySource {
	if m.keys.of == nil {
		return nil
	}
	return keysOf{keyHolders()[m.keys.by[process]]}
}

// checkKeys tries everybody's key.
func (m *model) checkKeys(t *rapid.T) {
	if !m.keys.doubtful || m.keys.halfRotated {
		return
	}
	m.keys.doubtful = false
	for i, who := range keyHolders() {
		r, err := repo.Open(context.Background(), m.store, repo.Environment{Keys: keysOf{who}, Now: m.now})
		if err != nil && !errors.Is(err, repo.ErrWrongKey) {
			t.Fatalf("open as %s: %v", who.to.Label, err)
		}
		opens := err == nil
		if err == nil {
			if r.KeyGeneration() < m.processes[0].KeyGeneration() {
				t.Fatalf("%s has data keys up to generation %d, and there is %d", who.to.Label, r.KeyGeneration(), m.processes[0].KeyGeneration())
			}
			err = r.Close()
		}
		if m.keys.of[i] == unknown {
			m.keys.of[i] = absent
			if opens {
				m.keys.of[i] = present
			}
		}
		if opens != (m.keys.of[i] == present) {
			t.Fatalf("%s can open the repository: %v, and should: %v (%v)", who.to.Label, opens, !opens, err)
		}
	}
}

// changingKeys is a step of which only who is given may gain or lose access; done, if it was acknowledged, says which.
func (m *model) changingKeys(t *rapid.T, who int, done known, step func(context.Context, *repo.Repository) error) (func(*repo.Repository) error, func()) {
	m.keys.of[who], m.keys.doubtful = unknown, true
	return func(r *repo.Repository) error { return step(context.Background(), r) }, func() { m.keys.of[who] = done }
}

func (m *model) encrypted(t *rapid.T) {
	switch {
	case m.keys.of == nil:
		t.Skip("it is not encrypted")
	case m.keys.halfRotated:
		t.Skip("a rotation was interrupted")
	}
}

// addingKey lets somebody open the repository who could not.
func (m *model) addingKey(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	m.encrypted(t)
	who := m.anyHolder(t, absent)
	return m.changingKeys(t, who, present, func(ctx context.Context, r *repo.Repository) error {
		_, err := r.AddKey(ctx, keyHolders()[who].to)
		return err
	})
}

// removingKey takes a key away that neither process was given.
func (m *model) removingKey(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	m.encrypted(t)
	who := m.goer(t)
	return m.changingKeys(t, who, absent, func(ctx context.Context, r *repo.Repository) error {
		ids, err := idsOf(ctx, r, keyHolders()[who])
		for _, id := range ids {
			if err == nil {
				_, err = r.RemoveKey(ctx, id)
			}
		}
		return err
	})
}

// idsOf are the ids of somebody's keys: more than one after adding one was interrupted.
func idsOf(ctx context.Context, r *repo.Repository, who holder) (ids []string, err error) {
	if err := r.Refresh(ctx); err != nil { // else what others have made is not read
		return nil, err
	}
	keys, err := r.ListKeys(ctx)
	for _, key := range keys {
		if key.PublicKey == who.to.PublicKey {
			ids = append(ids, key.ID)
		}
	}
	if len(ids) == 0 && err == nil { // whose a key is was not read
		err = errWhose
	}
	return ids, err
}

// goer is somebody whose key neither process was given.
func (m *model) goer(t *rapid.T) int {
	who := m.anyHolder(t, present)
	if who == m.keys.by[0] || who == m.keys.by[1] {
		t.Skip("the key is in use")
	}
	return who
}

// rotating makes a new data key. Nobody loses access.
func (m *model) rotating(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	if m.keys.of == nil {
		t.Skip("it is not encrypted")
	}
	m.keys.doubtful = true
	return func(r *repo.Repository) error {
			_, err := r.RotateKeys(context.Background(), repo.RotateOptions{})
			return err
		}, func() {
			m.keys.halfRotated = false
		}
}

// dropping makes a new data key, and somebody does not get it, whose key neither process was given.
func (m *model) dropping(t *rapid.T) (step func(*repo.Repository) error, acknowledged func()) {
	m.encrypted(t)
	who := m.goer(t)
	return m.changingKeys(t, who, absent, func(ctx context.Context, r *repo.Repository) error {
		ids, err := idsOf(ctx, r, keyHolders()[who])
		if err == nil {
			_, err = r.RotateKeys(ctx, repo.RotateOptions{Drop: ids})
		}
		return err
	})
}

// whole makes a step of one that is not interrupted.
func (m *model) whole(begin func(*rapid.T) (step func(*repo.Repository) error, acknowledged func())) func(*rapid.T) {
	return func(t *rapid.T) {
		step, acknowledged := begin(t)
		if err := step(m.process(t)); err != nil {
			t.Fatal(err)
		}
		acknowledged()
	}
}

// rotationCrashes makes a step of a rotation that is interrupted: both processes are then those of who began it.
func (m *model) rotationCrashes(begin func(*rapid.T) (step func(*repo.Repository) error, acknowledged func())) func(*rapid.T) {
	return func(t *rapid.T) {
		step, acknowledged := begin(t)
		i := max(0, rapid.IntRange(-2, 1).Draw(t, "process"))
		m.store.CrashAfter(rapid.IntRange(0, 60).Draw(t, "after"))
		m.keys.by[1-i], m.keys.halfRotated = m.keys.by[i], true
		if step(m.processes[i]) == nil {
			m.keys.halfRotated = false
			acknowledged()
		}
		m.crashed(t)
	}
}

// openedAsBefore opens a store that is as this one was, as the first process did.
func (m *model) openedAsBefore(t *rapid.T, store *memory.Store) *repo.Repository {
	r, err := repo.Open(context.Background(), store, repo.Environment{Keys: m.keyOf(0), Now: m.now})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return r
}
