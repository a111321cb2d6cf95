package repo

import (
	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
)

// Entries returns the points as the log has them, oldest first: enough to plan with, without reading any file.
func (r *Repository) Entries() []commitlog.Point {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Points.Sorted()
}

// Has is true if the repository has the point.
func (r *Repository) Has(id backup.PointID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Points.Has(id)
}

// Forgotten is true if the repository had the point and gave it up, and it is not to be copied again by itself.
func (r *Repository) Forgotten(id backup.PointID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.state.Tombstones[id]
	return ok
}

// HasMachine is true if the repository has any point of the machine. A locked one does not tell.
func (r *Repository) HasMachine(machine backup.MachineKey) bool {
	if r.locked != nil {
		return false // its name cannot be told
	}
	name := r.Pseudonym(machine)
	r.mu.Lock()
	defer r.mu.Unlock()
	for point := range r.state.Points.All() {
		if point.Machine == name {
			return true
		}
	}
	return false
}

// Usage says how much there is.
type Usage struct {
	Points, Packs int
	// PackBytes is the size of all packs, ParityBytes what their parity takes beside them.
	PackBytes, ParityBytes int64
	// Damaged counts points that verification found damaged.
	Damaged int
	// Unfinished counts copies that were interrupted and can go on.
	Unfinished int
	// Entries of the log.
	Entries uint64
}

// Head is the state of the log that the repository was last seen in: the number of its last entry, and that entry's checksum.
func (r *Repository) Head() (number uint64, checksum string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Head.N, r.state.Head.Checksum.String()
}

// Usage of the repository, from the log alone.
func (r *Repository) Usage() Usage {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := Usage{Points: r.state.Points.Len(), Packs: r.state.Packs.Len(), Unfinished: len(r.state.Partials), Damaged: len(r.state.Damaged), Entries: r.state.Head.N}
	for _, p := range r.state.Packs.All() {
		u.PackBytes += p.Size
		u.ParityBytes += r.parityBytes(p)
	}
	return u
}
