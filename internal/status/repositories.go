package status

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// A repository that will be full so soon is an alarm, of the level that the name says.
const (
	FullWarning  = 14 * 24 * time.Hour
	FullCritical = 3 * 24 * time.Hour
)

// place is a repository as a session found it.
type place struct {
	state  job.PlaceState
	reason string
	id     string
	seen   time.Time
	// verified and unverified are those of a target, as it could be read last.
	verified   time.Time
	unverified int64
}

// places are the repositories by name, as the newest session found each.
type places map[string]place

func (p places) add(of past) {
	if s := of.cameToTarget(); s != nil {
		target := place{state: s.report.Target.State, reason: s.report.Target.Reason, id: s.report.Target.ID, seen: s.report.Ended, unverified: api.Unknown}
		if saw := of.atTarget; saw != nil && saw.report.Target.Name == s.report.Target.Name {
			target.verified, target.unverified = saw.report.Target.Verified, int64(saw.report.Target.Unverified)
		}
		p.put(s.report.Target.Name, target)
	}
	if of.looked != nil {
		for _, s := range of.looked.report.Sources {
			p.put(s.Name, place{state: s.State, reason: s.Reason, seen: of.looked.report.Ended, unverified: api.Unknown})
		}
	}
}

func (p places) put(name string, found place) {
	if had := p[name]; found.state != "" && found.seen.After(had.seen) {
		if found.id == "" {
			found.id = had.id
		}
		if found.unverified == api.Unknown && !had.seen.IsZero() { // one that is away, or read by another job, was verified all the same
			found.verified, found.unverified = had.verified, had.unverified
		}
		p[name] = found
	}
}

// repositories says how each repository stands.
func (l *looker) repositories(ctx context.Context, found places) error {
	listed, err := l.catalog.Machines.LastSeen(ctx)
	if err != nil {
		return err
	}
	deleted, err := l.catalog.Resources.List(ctx, true, "Job")
	if err != nil {
		return err
	}
	for _, r := range l.resources.Repositories {
		at, seen := found[r.Name]
		if !seen { // the last sessions did not come to it
			at.unverified, at.seen = api.Unknown, listed[r.Name]
		}
		described := api.Repository{
			Verified: at.verified, Unverified: at.unverified,
			Name: r.Name, Location: r.Location, ID: at.id, State: string(at.state), Reason: at.reason, Seen: at.seen,
			Points: api.Unknown, Machines: api.Unknown, Logical: api.Unknown, Stored: api.Unknown, Free: api.Unknown,
		}
		head, err := l.catalog.Mirror.Head(ctx, r.Name)
		switch {
		case err == nil && described.ID == "":
			described.ID = head.RepositoryID
		case err != nil && !errors.Is(err, catalog.ErrNotFound):
			return err
		}
		figures, err := l.catalog.Figures.Since(ctx, r.Name, l.now.Add(-forecastFrom))
		if err != nil {
			return err
		}
		if n := len(figures); n > 0 {
			last := figures[n-1]
			described.Points, described.Machines = last.Points, last.Machines
			described.Logical, described.Stored, described.Free = last.LogicalBytes, last.StoredBytes, last.FreeBytes
			described.Full, described.Forecast = forecast(figures, l.now)
			if !seen && last.At.After(described.Seen) {
				described.Seen = last.At
			}
			l.judgeSpace(described)
		}
		if err := l.judgeDamage(ctx, r.Name); err != nil {
			return err
		}
		if described.Orphaned, err = l.orphaned(ctx, r.Name, deleted); err != nil {
			return err
		}
		l.status.Repositories = append(l.status.Repositories, described)
	}
	return nil
}

// orphaned are the deleted jobs that still claim points of a repository.
func (l *looker) orphaned(ctx context.Context, repository string, deleted []catalog.Resource) ([]api.Orphaned, error) {
	orphaned := []api.Orphaned{}
	if len(deleted) == 0 {
		return orphaned, nil
	}
	claims, err := l.catalog.Mirror.Claimers(ctx, repository)
	for _, r := range deleted {
		if points := claims[r.Name]; points > 0 {
			orphaned = append(orphaned, api.Orphaned{Job: r.Name, Deleted: r.Deleted.UTC(), Points: points, Retention: lastRetention(r.Document)})
		}
	}
	return orphaned, err
}

// lastRetention is what the document of a deleted job says of retention. One that this version does not read says nothing.
func lastRetention(document string) string {
	j, ok := policy.Alone([]byte(document))
	if !ok || j.Retention.Empty() {
		return ""
	}
	return j.Retention.String()
}

// copiesTo are the names of the jobs that have a repository as their target.
func (l *looker) copiesTo(repository string) (names []string) {
	for _, j := range l.resources.Jobs {
		if j.Target.Repository == repository {
			names = append(names, j.Name)
		}
	}
	return names
}

// judgeDamage raises the alarms of damaged points in a target whose claimants' own last session does not tell of them: another one has found
// them since, and who claims them may have no session for days, such as a job of mode immediate whose sources are quiet; or never one there,
// such as ferry copy, and jobs that were deleted or have another target now. What is damaged the last session has seen.
func (l *looker) judgeDamage(ctx context.Context, repository string) error {
	jobs := l.copiesTo(repository)
	if len(jobs) == 0 {
		return nil // nobody looks any more
	}
	damaged, err := l.catalog.Mirror.Damaged(ctx, repository)
	for _, name := range slices.Sorted(maps.Keys(damaged)) {
		if !l.tellsDamage[name] || !slices.Contains(jobs, name) {
			l.alarm(critical, api.Alarm{Kind: "damage", Job: name, Since: l.now.UTC(), Text: fmt.Sprintf(
				"points of it in repository %s that cannot be restored whole: %d; ferry verify lists what is damaged", repository, damaged[name])})
		}
	}
	return err
}

// judgeSpace raises an alarm if a repository will be full soon. Of one that no job copies to any more nobody looks what is left.
func (l *looker) judgeSpace(r api.Repository) {
	left := r.Full.Sub(l.now)
	if len(l.copiesTo(r.Name)) == 0 || r.Full.IsZero() || left > FullWarning {
		return
	}
	level := warning
	if left <= FullCritical {
		level = critical
	}
	l.alarm(level, api.Alarm{Kind: "space", Since: l.now.UTC(), Text: "repository " + r.Name + ": " + r.Forecast})
}
