package status

import (
	"context"
	"errors"
	"slices"
	"time"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// machinesLimit is how many machines of a job are looked at: more than a job can select.
const machinesLimit = 100_000

// copies looks at the newest copy of each machine of a job, and returns what the job has still to copy as far as its sources were
// listed; nil: that is not known.
func (l *looker) copies(ctx context.Context, j policy.Job, p past) (*backlog, error) {
	known, err := l.mirrored(ctx, j.Target.Repository)
	if err != nil {
		return nil, err
	}
	ages, err := l.catalog.Status.OldestCopies(ctx, j.Name, j.Target.Repository, machinesLimit)
	if err != nil {
		return nil, err
	}
	if len(ages) == 0 {
		if known && p.listed.readAll() { // and selects nothing of them
			return &backlog{}, nil
		}
		return nil, nil
	}
	seen, err := l.sightings(ctx, j)
	if err != nil {
		return nil, err
	}
	lags, err := l.lags(ctx, j)
	if err != nil {
		return nil, err
	}
	var newer *backlog
	if lags != nil && known {
		newer = &backlog{}
	}
	behind, mapped := p.listed.behind(), p.listed.mapped()
	for _, age := range ages {
		if slices.ContainsFunc(j.Select.Exclude, func(s policy.Selector) bool { return s.Matches(age.Machine.Machine) }) {
			continue // since the job was changed no session has selected anew
		}
		held := api.Copy{
			Job: j.Name, Machine: Machine(age.Machine.Machine), Created: age.Created, RPO: int64(j.RPO / time.Second),
			LagPoints: api.Unknown, LagBytes: api.Unknown, Missing: seen.missing(age.Machine.Key),
		}
		if age.Point != nil {
			held.Point = age.Point.String()
		}
		if lags != nil {
			lag := lags[age.Machine.Key]
			held.LagPoints, held.LagBytes = lag.Points, lag.Bytes
		}
		if copied, linked := mapped[held.Machine.ID]; linked && copied.Created.After(age.Created) { // under another id, which the catalog has for another machine
			age.Created, held.Created, held.Point = copied.Created, copied.Created, copied.Point
			held.LagPoints, held.LagBytes = api.Unknown, api.Unknown
		} else if lag := lags[age.Machine.Key]; newer != nil && lag.Points > 0 {
			newer.add(j, lag, age.Point == nil)
		}
		held.Retired = age.Machine.Retired.Since
		if j.PurgeAfter > 0 && !held.Retired.IsZero() && !held.Missing.IsZero() && held.Point != "" {
			held.Purge = policy.PurgeTime(held.Retired, held.Created, j.PurgeAfter)
		}
		if cure := behind[held.Machine.ID]; cure != "" {
			held.Note = "always one interval behind: " + cure
		}
		l.judgeCopy(&held, age, known)
		l.status.Machines = append(l.status.Machines, held)
	}
	return newer, nil
}

// judgeCopy says whether a copy is too old, and raises the alarm if it is. The age counts from when the source made the point.
func (l *looker) judgeCopy(held *api.Copy, age catalog.CopyAge, known bool) {
	s := &l.status
	s.MachinesTotal++
	if !held.Retired.IsZero() {
		return // nobody waits for a newer copy
	}
	from := age.Created
	if held.Point == "" {
		from = age.Since
		if known {
			s.WithoutCopy++
		}
	}
	if held.Point == "" && !known {
		held.Note = "what the target holds is not known yet"
	}
	allowed := time.Duration(held.RPO) * time.Second
	if allowed == 0 || l.now.Sub(from) <= allowed {
		return
	}
	held.TooOld = true
	s.TooOld++
	machine := held.Machine
	alarm := api.Alarm{Kind: "rpo", Job: held.Job, Machine: &machine, Since: from.Add(allowed)}
	switch {
	case held.Point != "":
		alarm.Text = "its newest copy is of " + from.UTC().Format(time.RFC3339) + ", older than " + policy.FormatDuration(allowed) + ", which rpo allows"
	case known:
		alarm.Text = "it has no copy"
	default:
		alarm.Text = "what the target holds of it is not known"
	}
	l.alarm(critical, alarm)
}

// mirrored is true if the catalog has the points of a repository.
func (l *looker) mirrored(ctx context.Context, repository string) (bool, error) {
	_, err := l.catalog.Mirror.Head(ctx, repository)
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// sightings are where the machines of a job were seen.
type sightings map[backup.MachineKey]sighting

// sighting of a machine in a job's sources: present in one, or missing in all since the last of them lacked it.
type sighting struct {
	present bool
	since   time.Time
}

func (s sightings) missing(key backup.MachineKey) time.Time {
	if seen := s[key]; !seen.present {
		return seen.since
	}
	return time.Time{}
}

func (l *looker) sightings(ctx context.Context, j policy.Job) (sightings, error) {
	seen := sightings{}
	for _, origin := range l.resources.Origins(j) {
		list, err := l.catalog.Machines.Sightings(ctx, origin.Repository.Name)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			of := seen[s.Machine.Key]
			of.present = of.present || s.Missing.IsZero()
			if s.Missing.After(of.since) {
				of.since = s.Missing
			}
			seen[s.Machine.Key] = of
		}
	}
	return seen, nil
}

// lags are what a job's sources have of each machine that is newer than its copy, where the catalog has the points of all of
// them; else nil. Of a machine in several sources the most that one has counts: they may have the same points.
func (l *looker) lags(ctx context.Context, j policy.Job) (map[backup.MachineKey]catalog.Lag, error) {
	origins := l.resources.Origins(j)
	for _, origin := range origins {
		if known, err := l.mirrored(ctx, origin.Repository.Name); err != nil || !known {
			return nil, err
		}
	}
	lags := map[backup.MachineKey]catalog.Lag{}
	for _, origin := range origins {
		list, err := l.catalog.Status.Newer(ctx, j.Name, j.Target.Repository, origin.Repository.Name)
		if err != nil {
			return nil, err
		}
		for _, lag := range list {
			if lag.Points > lags[lag.Machine].Points {
				lags[lag.Machine] = lag
			}
		}
	}
	return lags, nil
}
