// Package virtnbdbackup reads the folders that virtnbdbackup writes: full, incremental, differential and copy backups
// of libvirt domains.
//
// A folder holds one chain. [Format] finds the folders, and lists each backup in them as a point of its own: the full,
// every increment, every differential backup. A point's disks are read through the files of its chain, the newest
// first. The decoder of the files themselves is in the package stream below this one.
//
// Everything is decided by names and by what the files say of themselves, never by modification times (a copied
// folder has others; only copies and plain images state no other time to be known by) and never by the .cpt file alone
// (it is extended before data is written). docs/sources has a page on the rules; package source says how a format is
// used.
package virtnbdbackup

import (
	"context"
	"errors"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// Name is the format's word in listings and in the origin of points.
const Name = "virtnbdbackup"

// Format finds the restore points in virtnbdbackup's folders. The zero value is ready to use.
type Format struct{}

var _ source.Format = Format{}

// Name is "virtnbdbackup".
func (Format) Name() string { return Name }

// Scan claims virtnbdbackup's files and returns a point for each backup. It reads configurations, the first 4 KiB of
// each data file, and at most 64 KiB more of its frames' headers, which proves short files whole. It returns an error
// only if the context ends.
func (Format) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	var points []source.Point
	for _, path := range listing.Paths() {
		f, err := look(ctx, listing, path)
		if err != nil {
			return nil, err
		}
		for _, entry := range listing.Unclaimed(path) {
			if p, ok := zipPoint(listing.Root, entry); ok {
				listing.Claim(entry.Path)
				points = append(points, p)
			}
		}
		if f == nil {
			continue
		}
		for _, c := range f.candidates() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			points = append(points, f.point(c))
		}
	}
	return points, ctx.Err()
}

// stateOf says which state a fault means.
func stateOf(fault error) backup.State {
	switch {
	case fault == nil:
		return backup.StateComplete
	case errors.Is(fault, backup.ErrLocked):
		return backup.StateLocked
	case errors.Is(fault, backup.ErrUnsupported):
		return backup.StateUnsupported
	}
	return backup.StateBroken
}

// reasonText is a fault without the condition in front, which the state says already.
func reasonText(fault error) string {
	text := fault.Error()
	for _, condition := range []error{backup.ErrBroken, backup.ErrLocked, backup.ErrUnsupported} {
		text = strings.TrimPrefix(text, condition.Error()+": ")
	}
	return text
}

// inFile puts a file's path in front of an error, and its name safe to print.
func inFile(path string, err error) error {
	if err == nil {
		return nil
	}
	var place *backup.Error
	if errors.As(err, &place) && place.Object == "" {
		named := *place
		named.Object = path
		return &named
	}
	return &backup.Error{Object: path, Offset: backup.NoOffset, Err: err}
}
