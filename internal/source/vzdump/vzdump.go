// Package vzdump reads the backups that Proxmox's vzdump keeps in a folder: VMA archives of virtual machines and tar
// archives of containers, plain or compressed with zstd, gzip, lzop or bzip2.
//
// A scan goes by names, and reads the head of each archive for its identity: UUID, time and configuration of a VMA
// archive, the container's name of a tar archive. A point's content is read in one pass, front to back; neither
// compression nor VMA allow more. Package vma has the container, package lzop one of the compressions; names, states,
// identity and completeness are here. docs/sources/vzdump.md says what users get to know.
package vzdump

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"ferry/internal/source"
)

// formatName is how listings call this format.
const formatName = "vzdump"

// scanners is how many files are looked at at once: sources are often far away, and a look is mostly waiting.
const scanners = 4

// Format finds vzdump backups. It has no state; its zero value is ready for use.
type Format struct{}

// New returns the format for a registry.
func New() source.Format { return Format{} }

// Name is "vzdump".
func (Format) Name() string { return formatName }

// Scan returns a point for each archive, finished or running, and claims the files that belong to it. A log that a
// failed backup left is claimed too. Points come in the order of their paths.
func (Format) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	var found []*dump
	for _, folder := range listing.Paths() {
		found = append(found, collect(listing, folder)...)
	}
	points := make([]*source.Point, len(found))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(scanners)
	for i, d := range found {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			points[i] = d.examine(ctx)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	attribute(found, points)
	result := make([]source.Point, 0, len(points))
	for _, point := range points {
		if point != nil {
			result = append(result, *point)
		}
	}
	return result, nil
}

// dump is one archive, as far as the listing tells.
type dump struct {
	root   *source.Root
	folder string
	file   source.Entry
	name   dumpName
	// sidecars are the files beside the archive that belong to it: log, notes, protection.
	sidecars []sidecar
	// identified is set once the archive itself has said which machine it is of, or never will (containers).
	identified bool
}

type sidecar struct {
	role fileRole
	file source.Entry
}

// collect finds the archives of one folder and claims all that is vzdump's.
func collect(listing *source.Listing, folder string) []*dump {
	files := map[string]source.Entry{}
	var found []*dump
	// known has the base names that need no word about a temporary folder.
	known := map[string]bool{}
	for _, entry := range listing.Unclaimed(folder) {
		name := parseName(entry.Name)
		if name.role == roleForeign {
			continue
		}
		listing.Claim(entry.Path)
		files[entry.Name] = entry
		if name.role == roleArchive || name.role == roleUnread || name.role == roleRunning {
			found = append(found, &dump{root: listing.Root, folder: folder, file: entry, name: name})
			known[name.base] = true
		}
	}
	for _, d := range found {
		d.addSidecar(files, d.name.base+logSuffix, roleLog)
		d.addSidecar(files, d.file.Name+notesSuffix, roleNotes)
		d.addSidecar(files, d.file.Name+protectedSuffix, roleProtected)
	}
	for _, entry := range listing.Folders[folder] {
		if !entry.IsFolder {
			continue
		}
		if name, temporary := parseTemporary(entry.Name); temporary {
			listing.ClaimFolder(entry.Path)
			if !known[name.base] {
				known[name.base] = true
				found = append(found, &dump{root: listing.Root, folder: folder, file: entry, name: name})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *dump) int { return strings.Compare(a.file.Path, b.file.Path) })
	return found
}

func (d *dump) addSidecar(files map[string]source.Entry, name string, role fileRole) {
	if entry, exists := files[name]; exists && d.name.role != roleRunning {
		d.sidecars = append(d.sidecars, sidecar{role, entry})
	}
}
