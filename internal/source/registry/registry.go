// Package registry puts the source formats together: it opens a folder and lists the restore points of every format in
// it. The format is detected, never asked.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/source"
)

// Source is an open folder and the points in it.
type Source struct {
	Root *source.Root
	// Points are sorted by machine, then time. No id occurs twice.
	Points []source.Point
	// Unknown counts files that no format knows. They are not errors.
	Unknown int
	// Problems are places that could not be looked into, and what formats have to say beside their points.
	Problems []error
	// Incomplete are the reasons why there may be points that are not listed: a folder that could not be looked into, Ferry repositories
	// that could not be opened. Empty: these are all.
	Incomplete []error
	broken     *brokenFiles
	listing    *source.Listing
}

// Options of opening a source.
type Options struct {
	// Name is the source's name; empty means the folder's base name.
	Name string
	// Instance keeps the machines of cloned sites apart; usually empty. Points in Ferry repositories keep the one that they
	// were copied with.
	Instance string
	// Pace is told of bytes of the folder's files that are about to be read, and returns when they may; nil: at once. Ferry
	// repositories have one of their own.
	Pace func(bytes int) error
	// CacheDir remembers files found broken; empty remembers nothing.
	CacheDir string
	Formats  []source.Format
	// Elsewhere: the path is no folder, but a location that the formats know of by themselves.
	Elsewhere bool
}

// Open lists a folder, by calls into it that can be left behind. Formats claim files in their order.
func Open(ctx context.Context, path string, options Options) (*Source, error) {
	return answer.Call(ctx, answer.Of(path), func() (*Source, error) { return open(ctx, path, options) }, drop)
}

func drop(s *Source) { _ = s.Close() }

// Answering opens the source at a location by what it is given, as answer.Open does.
func Answering(ctx context.Context, location string, open func() (*Source, error)) (*Source, error) {
	return answer.Open(ctx, location, open, drop)
}

func open(ctx context.Context, path string, options Options) (*Source, error) {
	root, err := openRoot(path, options)
	if err != nil {
		return nil, err
	}
	root.SetInstance(options.Instance)
	root.SetPace(options.Pace)
	root.SetCalls(answer.Of(path))
	s := &Source{Root: root, broken: openBrokenFiles(options.CacheDir, root.Path())}
	if err := s.scan(ctx, options.Formats); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openRoot(path string, options Options) (*source.Root, error) {
	if options.Elsewhere {
		return source.Elsewhere(path, options.Name), nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s is a file", path), Hint: "name the folder that the backups are in"}
	}
	return source.OpenRoot(path, options.Name)
}

func (s *Source) scan(ctx context.Context, formats []source.Format) error {
	listing, err := source.List(ctx, s.Root)
	if err != nil {
		return err
	}
	s.listing = listing
	for _, format := range formats {
		points, err := format.Scan(ctx, listing)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.Problems = append(s.Problems, each(err)...)
			s.Incomplete = append(s.Incomplete, each(err)...)
		}
		if len(s.Points) == 0 {
			s.Points = points
		} else {
			s.Points = append(s.Points, points...)
		}
	}
	s.Problems = append(s.Problems, listing.Problems...)
	if listing.Incomplete != nil {
		s.Incomplete = append(s.Incomplete, listing.Incomplete)
	}
	s.Unknown = listing.Unknown()
	for i := range s.Points {
		bound(&s.Points[i])
		s.recall(&s.Points[i])
	}
	s.Points = unique(s.Points)
	return nil
}

// each are the errors that were joined in one. They name the files and folders that they are about. What wraps several otherwise says
// more than they do, and is one.
func each(err error) []error {
	if joined, several := err.(interface{ Unwrap() []error }); several && errors.Join(joined.Unwrap()...).Error() == err.Error() {
		return joined.Unwrap()
	}
	return []error{err}
}

// bound makes a point broken whose time cannot be written down: of one file it would make every report fail.
func bound(p *source.Point) {
	created, within := backup.BoundTime(p.Created)
	if !within {
		p.State, p.Reason, p.Opener = backup.StateBroken, "it is dated "+p.Created.UTC().Format(time.DateTime), nil
	}
	p.Created = created
}

// recall gives a point the reason that it was found broken for, if its files have not changed since.
func (s *Source) recall(p *source.Point) {
	if reason, known := s.broken.reason(p.Files); known && p.State == backup.StateComplete {
		p.State, p.Reason, p.Opener = backup.StateBroken, reason, nil
	}
}

// RememberBroken notes that a point turned out broken while it was read: it is listed so until its files change.
func (s *Source) RememberBroken(p source.Point, reason string) error {
	return s.broken.remember(p.Files, reason)
}

// Close releases the folder and what its points are read through: later, if calls into it are left behind.
func (s *Source) Close() error {
	return s.Root.Calls().WhenBack(func() error {
		var err error
		if s.listing != nil {
			err = s.listing.Close()
		}
		return errors.Join(err, s.Root.Close())
	})
}

// unique keeps one point of each id, a complete one if there is one, and sorts by machine, then time. It does so in place: points
// are large, and there may be a hundred thousand.
func unique(points []source.Point) []source.Point {
	at := make(map[backup.PointID]int, len(points))
	kept := points[:0]
	for _, p := range points {
		first, seen := at[p.ID]
		switch {
		case !seen:
			at[p.ID] = len(kept)
			kept = append(kept, p)
		case kept[first].State != backup.StateComplete && p.State == backup.StateComplete:
			kept[first] = p
		}
	}
	clear(points[len(kept):])
	// The places are sorted, with their keys made once, and the points moved once.
	type place struct {
		machine string
		of      int
	}
	places := make([]place, len(kept))
	machines := map[backup.MachineKey]string{}
	for i := range kept {
		key := kept[i].Machine.Key
		if _, made := machines[key]; !made {
			machines[key] = key.String()
		}
		places[i] = place{machines[key], i}
	}
	slices.SortFunc(places, func(a, b place) int {
		x, y := &kept[a.of], &kept[b.of]
		return cmp.Or(cmp.Compare(a.machine, b.machine), x.Created.Compare(y.Created), bytes.Compare(x.ID[:], y.ID[:]))
	})
	for start := range places { // a round of moves, which begins and ends there
		if places[start].of == start {
			continue
		}
		moved, to := kept[start], start
		for places[to].of != start {
			from := places[to].of
			kept[to], places[to].of = kept[from], to
			to = from
		}
		kept[to], places[to].of = moved, to
	}
	return kept
}
