package repo

import (
	"context"
	"errors"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

// points takes over points whose file is lost.
func (h *healer) points(ctx context.Context) error {
	r := h.repo
	for _, entry := range r.Entries() {
		damage, damaged := r.DamageOf(entry.ID)
		if !damaged || !damage.File {
			continue
		}
		for _, donor := range h.donors {
			if !donor.Has(entry.ID) {
				continue
			}
			point, err := donor.ReadPoint(ctx, entry.ID)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || point.ID != entry.ID || r.Pseudonym(point.Machine.Key) != entry.Machine {
				continue
			}
			point.Hops = hopsHere(point.Hops, r.ID(), donor.ID(), r.env.now)
			domain, err := h.domainOf(ctx, point)
			if err != nil {
				return err
			}
			in, err := h.in(ctx, domain)
			if err != nil {
				return err
			}
			done := make(chan error, 1)
			if err := in.commitPoint(readyPoint{point: point, damaged: unfollowed(point), done: func(err error) { done <- err }}); err != nil {
				return err
			}
			if err := errors.Join(in.Flush(ctx), <-done); err != nil {
				return err
			}
			h.report.Points++
			break
		}
	}
	return nil
}

// domainOf is where a point belongs whose file is lost: in the domain that has the tops of most of its trees, of several in the default
// one. Nothing of a sealed domain would be kept for a point that is elsewhere, and it may have what no donor has.
func (h *healer) domainOf(ctx context.Context, point *Point) (format.Name, error) {
	r := h.repo
	set, err := r.lookup(ctx)
	if err != nil {
		return format.Name{}, err
	}
	found := r.defaultDomain()
	tops := map[format.Name]int{}
	for _, root := range point.Roots {
		if root == nil || root.Top.IsZero() {
			continue
		}
		places, err := set.FindAll(ctx, root.Top)
		if err != nil {
			return format.Name{}, err
		}
		seen := map[format.Name]bool{{}: true}
		for _, place := range places {
			if domain := r.domainOfPack(place.Pack); !seen[domain] {
				seen[domain] = true
				tops[domain]++
			}
		}
	}
	for domain, n := range tops {
		if n > tops[found] {
			found = domain
		}
	}
	return found, nil
}

// domainOfPack is that of a pack which the log has and which is not given up; zero for others.
func (r *Repository) domainOfPack(id format.Name) format.Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.state.Live(id) {
		return format.Name{}
	}
	return r.state.Packs.Of(id).Domain
}

// unfollowed is the damage of a point that is taken over before its trees are followed: nothing of it is known to be here.
// It is in the same log entry, so that the point is not called whole if healing ends there; the verification that
// follows takes it back.
func unfollowed(point *Point) commitlog.Damaged {
	damaged := commitlog.Damaged{Point: point.ID}
	for _, root := range point.Roots {
		if root != nil && !root.Top.IsZero() {
			damaged.Places++
			damaged.Bytes += root.Size
		}
	}
	return damaged
}

// hopsHere are the hops of a point that is taken back from a donor: where the donor has it from this very repository, the
// way up to here, else the way by the donor.
func hopsHere(hops []backup.Hop, here, donor string, now func() time.Time) []backup.Hop {
	for i, hop := range hops {
		if hop.RepositoryID == here {
			return slices.Clone(hops[:i])
		}
	}
	if here == donor { // a mirror
		return hops
	}
	return append(slices.Clone(hops), backup.Hop{RepositoryID: donor, Time: now().UTC()})
}
