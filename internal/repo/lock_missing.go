package repo

import (
	"fmt"
	"path"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/pack"
)

// notedLost are the packs and points of which the log says that they are lost or damaged as a whole.
func notedLost(state *commitlog.State) map[string]bool {
	lost := map[string]bool{}
	for bad := range state.Bad {
		if bad.ID.IsZero() && state.Live(bad.Pack) {
			lost[pack.ObjectName(bad.Pack)] = true
		}
	}
	for id, damage := range state.Damaged {
		if point, there := state.Points.Get(id); there && damage.File {
			lost[point.File()] = true
		}
	}
	return lost
}

// stillMissing are the files that the last extension of the locks did not find and that the state needs. The caller holds r.mu.
func (r *Repository) stillMissing() []string {
	r.locks.mu.Lock()
	missing := slices.Clone(r.locks.missing)
	r.locks.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	needed := map[string]bool{}
	for _, name := range lockedFiles(r.state, r.description.Parity != nil) {
		needed[name] = true
	}
	return slices.DeleteFunc(missing, func(name string) bool { return !needed[name] })
}

// tellMissing warns of packs and points that were to be locked and are missing, unless the log says so already: nobody else would
// tell until the next verification. The caller holds r.mu.
func (r *Repository) tellMissing() {
	noted := notedLost(r.state)
	missing := slices.DeleteFunc(r.stillMissing(), func(name string) bool { return noted[name] || path.Dir(name) == "parity" })
	if len(missing) == 0 {
		return
	}
	more := ""
	if len(missing) > 1 {
		more = fmt.Sprintf(" and %d more", len(missing)-1)
	}
	r.warn("damaged: files are missing that points need, and could not be locked: %s%s. Run ferry verify %s: it says what is lost, and with --heal-from brings it back from another copy",
		slices.Min(missing), more, r.store.Location())
}
