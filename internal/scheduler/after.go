package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// noteSession brings up what the catalog knows of machines.
func (s *Scheduler) noteSession(n *record, ended *job.Session) {
	ctx := n.context()
	for _, listing := range ended.Listings {
		if listing.Complete {
			n.note(s.catalog.Machines.Saw(ctx, listing.Repository, plan.MachinesOf(listing.Briefs())))
			n.note(s.noteSource(ctx, n.run.resources, listing))
		}
	}
	for _, known := range ended.Retired { // it may have been said to the target, or to a server that is no more
		n.note(s.catalog.Machines.NoteRetired(ctx, known.Machine, known.Retirement))
	}
	if ended.Selected != nil && !ended.SourcesWait() {
		n.note(s.noteSelected(ctx, ended))
	}
}

// noteSelected brings up which machines a job has. Those of a source that was not listed whole stay: nobody knows that they have
// gone, and whether their copies grow too old is told until then.
func (s *Scheduler) noteSelected(ctx context.Context, ended *job.Session) error {
	selected := ended.Selected
	if !listedWhole(ended) {
		before, err := s.catalog.Jobs.Selected(ctx, ended.Job)
		if err != nil {
			return err
		}
		decided := map[backup.MachineKey]bool{} // they are selected, or they were seen and are not
		for _, machine := range selected {
			decided[machine.Key] = true
		}
		for _, listing := range ended.Listings {
			for brief := range listing.Briefs() {
				decided[brief.Machine.Key] = true
			}
		}
		for _, machine := range before {
			if !decided[machine.Key] {
				selected = append(slices.Clip(selected), machine)
			}
		}
	}
	return s.catalog.Jobs.Select(ctx, ended.Job, selected)
}

// listedWhole is true if each source was ready, and nothing of any is hidden.
func listedWhole(ended *job.Session) bool {
	return !slices.ContainsFunc(ended.Sources, func(s job.SourceState) bool { return s.State != job.StateReady }) &&
		!slices.ContainsFunc(ended.Listings, func(l job.Listing) bool { return !l.Complete })
}

// ask asks the jobs to run that come after a session which stored a point.
func (s *Scheduler) ask(n *record, ended *job.Session, counts catalog.Counts) error {
	for _, of := range n.run.resources.Jobs {
		if of.Schedule.Mode == policy.After && of.Schedule.After == ended.Job && counts["copied"]+counts["claimed"] > 0 {
			if err := s.catalog.Jobs.Ask(n.context(), of.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteTarget brings up what the catalog knows of a repository: its points and how full it is.
func (s *Scheduler) noteTarget(ctx context.Context, name string, target *repo.Repository) error {
	err := s.mirrorTarget(ctx, name, target)
	for range moves {
		if !errors.Is(err, catalog.ErrMirrorMoved) {
			break
		}
		err = s.mirrorTarget(ctx, name, target)
	}
	if err != nil {
		return fmt.Errorf("what repository %s has: %w", name, err)
	}
	return s.recordFigure(ctx, name, target)
}

// moves is how often the mirror of a repository is looked at again because another session has brought it up meanwhile.
const moves = 3

// mirrorTarget brings up the mirror of a repository. Where another session has seen more of it, this one looks again first: else it
// would put what was before in place of what is now. ErrMirrorMoved: another session brings it up too.
func (s *Scheduler) mirrorTarget(ctx context.Context, name string, target *repo.Repository) error {
	at, err := s.catalog.Mirror.Head(ctx, name)
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	head := headOf(target)
	if err != nil || at.RepositoryID != head.RepositoryID {
		_, err = s.replaceMirror(ctx, name, target)
		return err
	}
	if at.Number > head.Number {
		if err := target.Refresh(ctx); err != nil {
			return err
		}
		head = headOf(target)
	}
	if at == head {
		return nil
	}
	return s.changeMirror(ctx, name, at, head, func(known []catalog.MirrorPoint) ([]catalog.MirrorPoint, error) { return pointsOf(ctx, target, known) })
}

// ofSource stands for the id in what the catalog has of a source's points.
const ofSource = "source"

// noteSource brings up what the catalog knows of the points of a source, from which it is known what copies lack. One that is the
// target of a job is known better by what that job leaves.
func (s *Scheduler) noteSource(ctx context.Context, resources policy.Resources, listing job.Listing) error {
	if slices.ContainsFunc(resources.Jobs, func(of policy.Job) bool { return of.Target.Repository == listing.Repository }) {
		return nil
	}
	points := make([]catalog.MirrorPoint, len(listing.Points))
	pseudonyms := map[*backup.Machine]string{}
	for i := range listing.Points {
		p := &listing.Points[i]
		if _, made := pseudonyms[p.Machine]; !made {
			pseudonyms[p.Machine] = p.Machine.Key.String()
		}
		created, _ := backup.BoundTime(p.Created)
		points[i] = catalog.MirrorPoint{
			ID: p.ID, Machine: p.Machine, Pseudonym: pseudonyms[p.Machine], Created: created, State: p.State, Reason: backup.SafeText(p.Reason), Size: p.Size,
		}
	}
	sortPoints(points)
	sum := sha256.New()
	for _, p := range points {
		fmt.Fprintln(sum, p.ID, p.State, p.Size)
	}
	head := catalog.Head{RepositoryID: ofSource, Checksum: hex.EncodeToString(sum.Sum(nil))}
	at, err := s.catalog.Mirror.Head(ctx, listing.Repository)
	switch {
	case errors.Is(err, catalog.ErrNotFound) || err == nil && at.RepositoryID != ofSource: // it was a target
		return s.catalog.Mirror.Replace(ctx, listing.Repository, head, all(points))
	case err != nil || at == head:
		return err
	}
	err = s.changeMirror(ctx, listing.Repository, at, head, func([]catalog.MirrorPoint) ([]catalog.MirrorPoint, error) { return points, nil })
	if errors.Is(err, catalog.ErrMirrorMoved) { // listings have no order: the one that is noted last stands until the next
		err = s.catalog.Mirror.Replace(ctx, listing.Repository, head, all(points))
	}
	return err
}

// changeMirror brings the mirror of a repository from one head to the next, with the points that there are then, from those that are
// known.
func (s *Scheduler) changeMirror(ctx context.Context, name string, at, head catalog.Head, points func(known []catalog.MirrorPoint) ([]catalog.MirrorPoint, error)) error {
	known, err := s.catalog.Mirror.All(ctx, name)
	if err != nil {
		return err
	}
	now, err := points(known)
	if err != nil {
		return err
	}
	err = s.catalog.Mirror.Apply(ctx, name, at, head, between(known, now))
	if errors.Is(err, catalog.ErrTooLarge) {
		err = s.catalog.Mirror.Replace(ctx, name, head, all(now))
	}
	return err
}

// replaceMirror makes the mirror of a repository anew, and returns how many points it has.
func (s *Scheduler) replaceMirror(ctx context.Context, name string, target *repo.Repository) (int64, error) {
	points, err := pointsOf(ctx, target, nil)
	if err != nil {
		return 0, err
	}
	return int64(len(points)), s.catalog.Mirror.Replace(ctx, name, headOf(target), all(points))
}

func headOf(of *repo.Repository) catalog.Head {
	number, checksum := of.Head()
	return catalog.Head{RepositoryID: of.ID(), Number: number, Checksum: checksum}
}

// recordFigure notes how full a repository is whose mirror is up to date.
func (s *Scheduler) recordFigure(ctx context.Context, name string, target *repo.Repository) error {
	points, machines, size, err := s.catalog.Mirror.Totals(ctx, name)
	if err != nil {
		return err
	}
	use := target.Usage()
	figure := catalog.Figure{
		At: s.options.Now(), Points: points, Machines: machines, LogicalBytes: size, StoredBytes: use.PackBytes + use.ParityBytes, FreeBytes: catalog.Unknown,
	}
	if free, known, err := target.Free(ctx); err == nil && known {
		figure.FreeBytes = free
	}
	return s.catalog.Figures.Record(ctx, name, figure)
}

// pointsOf are the points that a repository has, sorted by id. What never changes of those that are known already is taken from
// there: of the others each file is read.
func pointsOf(ctx context.Context, of *repo.Repository, known []catalog.MirrorPoint) ([]catalog.MirrorPoint, error) {
	sizes := map[backup.PointID]int64{}
	for _, p := range known {
		sizes[p.ID] = p.Size
	}
	newest, err := of.ReadNewest(ctx)
	if err != nil {
		return nil, err
	}
	machines := map[string]*backup.Machine{}
	for _, read := range newest {
		if read.Err == nil {
			machines[read.Entry.Machine.String()] = &read.Point.Machine
			sizes[read.Entry.ID] = read.Point.Size()
		}
	}
	entries := of.Entries()
	var unread []repo.Entry
	for _, entry := range entries {
		if _, is := sizes[entry.ID]; !is {
			unread = append(unread, entry)
		}
	}
	for some := range slices.Chunk(unread, readAtOnce) {
		read, err := of.ReadPoints(ctx, some)
		if err != nil {
			return nil, err
		}
		for _, p := range read {
			if p.Err == nil { // of the others the size is not known, and their damage is found by verification
				sizes[p.Entry.ID] = p.Point.Size()
			}
		}
	}
	points := make([]catalog.MirrorPoint, 0, len(entries))
	for _, entry := range entries {
		pseudonym := entry.Machine.String()
		p := catalog.MirrorPoint{ID: entry.ID, Pseudonym: pseudonym, Created: entry.Created.UTC(), State: backup.StateComplete, Size: sizes[entry.ID]}
		p.Machine = machines[pseudonym] // nil if its newest point cannot be read
		if damage, is := of.DamageOf(entry.ID); is {
			p.Damaged, p.Reason = true, damage.String()
		}
		for _, claim := range of.Claims(entry.ID) {
			p.Claims = append(p.Claims, catalog.MirrorClaim{Job: claim.Job, Reason: claim.Reason, Flags: claim.Flags})
		}
		slices.SortFunc(p.Claims, func(a, b catalog.MirrorClaim) int { return cmp.Compare(a.Job, b.Job) })
		points = append(points, p)
	}
	sortPoints(points)
	return points, nil
}

func sortPoints(points []catalog.MirrorPoint) {
	slices.SortFunc(points, func(a, b catalog.MirrorPoint) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// readAtOnce is how many points' files are held at once.
const readAtOnce = 1000

// between are the changes from one state of a repository's points to another.
func between(before, after []catalog.MirrorPoint) catalog.Changes {
	var changes catalog.Changes
	was := map[backup.PointID]catalog.MirrorPoint{}
	for _, p := range before {
		was[p.ID] = p
	}
	for _, p := range after {
		if old, there := was[p.ID]; !there || !samePoint(old, p) {
			changes.Put = append(changes.Put, p)
		}
		delete(was, p.ID)
	}
	for id := range was {
		changes.Removed = append(changes.Removed, id)
	}
	return changes
}

// samePoint compares what changes of a point: in a source its state and size, in a target its claims and its damage, and whether
// its machine is known by now.
func samePoint(a, b catalog.MirrorPoint) bool {
	return a.State == b.State && a.Size == b.Size && a.Damaged == b.Damaged && a.Reason == b.Reason && (a.Machine == nil) == (b.Machine == nil) && len(a.Claims) == len(b.Claims) &&
		slices.EqualFunc(a.Claims, b.Claims, func(x, y catalog.MirrorClaim) bool {
			return x.Job == y.Job && x.Reason == y.Reason && (len(x.Flags) == 0 && len(y.Flags) == 0 || reflect.DeepEqual(x.Flags, y.Flags))
		})
}

func all(points []catalog.MirrorPoint) iter.Seq2[catalog.MirrorPoint, error] {
	return func(yield func(catalog.MirrorPoint, error) bool) {
		for _, p := range points {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// claimed are the points of a repository that a job claims.
func claimed(of *repo.Repository, by string) map[backup.PointID]bool {
	points := map[backup.PointID]bool{}
	for _, entry := range of.Entries() {
		if _, mine := job.ClaimOf(of, by, entry.ID); mine {
			points[entry.ID] = true
		}
	}
	return points
}
