// Package image finds disk images in folders and offers them as restore points: raw files, qcow2 images and chains of
// them, libvirt's push-mode backups, and whatever a ferry.yaml describes.
//
// The room is for judging files that nobody catalogued: which of them are images, which image stands on which, what
// that makes of machines and points, and what proves that a point's disk is unchanged below an overlay. The qcow2
// format itself is package qcow2's. The user's page is docs/sources/image.md.
//
// Names found in images are hostile: backing files are opened only through source.Root, after resolve has judged the
// name. Only [Format] is for use from outside.
package image

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// Format implements source.Format for folders of images. It keeps nothing between scans and may be used by several
// goroutines at once.
type Format struct{}

// Name is "image".
func (Format) Name() string { return "image" }

// Scan lists the points that the images in the listing's unclaimed files make. Images that are locked, broken,
// encrypted or of an unsupported format are points in that state. A point's files are looked at twice; one that
// changed between the listing and the end of the scan is locked.
func (Format) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	s := newScan(ctx, listing)
	if err := s.examineAll(); err != nil {
		return nil, err
	}
	return s.judge()
}

func newScan(ctx context.Context, listing *source.Listing) *scan {
	return &scan{
		ctx: ctx, listing: listing, root: listing.Root,
		entries: map[string]source.Entry{}, files: map[string]*file{}, folders: map[string]*folder{},
	}
}

// judge makes points of what examineAll found.
func (s *scan) judge() ([]source.Point, error) {
	s.applyDescriptions()
	if err := s.linkAll(); err != nil {
		return nil, err
	}
	if err := s.lookAgain(); err != nil {
		return nil, err
	}
	s.weigh()
	machines := s.machines()
	s.claim(machines)
	var points []source.Point
	for _, m := range machines {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		points = append(points, s.points(m)...)
	}
	return points, nil
}

// scan is the state of one Scan.
type scan struct {
	ctx     context.Context
	listing *source.Listing
	root    *source.Root
	// entries are the listing's unclaimed files by path.
	entries map[string]source.Entry
	// files are all images that were looked into, by path: listed ones, and backing files wherever they are.
	files   map[string]*file
	folders map[string]*folder
	// members are files that belong to an image of another format, such as a VMDK's extents.
	members []string
}

// folder is what matters of one folder beside its images.
type folder struct {
	path string
	// described is what its ferry.yaml says; nil without one.
	described *description
	// trouble is why its ferry.yaml cannot be used.
	trouble trouble
	// vanished is the name of a file that was in the listing and then was not: what is left may be part of a machine.
	vanished string
	// beside are files that may be configuration of the folder's machine.
	beside []source.Entry
}

// examineAll looks into every unclaimed file that may be an image.
func (s *scan) examineAll() error {
	for _, folderPath := range s.listing.Paths() {
		unclaimed := s.listing.Unclaimed(folderPath)
		f := &folder{path: folderPath}
		s.folders[folderPath] = f
		names := make(map[string]bool, len(unclaimed))
		for _, entry := range unclaimed {
			s.entries[entry.Path] = entry
			names[entry.Name] = true
		}
		for _, entry := range unclaimed {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			switch {
			case entry.Name == descriptionName:
				s.describe(f, entry)
			case configurationRole(entry) != "":
				f.beside = append(f.beside, entry)
			case vmdkMember(entry.Name, names):
				s.members = append(s.members, entry.Path)
			default:
				if found := s.examine(entry.FileIdentity, wantAny); found != nil {
					s.files[entry.Path] = found
				}
			}
		}
	}
	return nil
}

// vanished notes a file that has gone since the listing.
func (s *scan) vanished(f *file) {
	if inside := s.folders[f.folder]; inside != nil && f.listed {
		inside.vanished = f.name
	}
}

// lookAgain compares every image with what the listing saw. What changed meanwhile is being written.
func (s *scan) lookAgain() error {
	for _, f := range s.sorted() {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		now, err := s.root.Identify(f.Path)
		switch {
		case errors.Is(err, backup.ErrVanished):
			f.gone = true
			s.vanished(f)
			f.trouble = trouble{backup.StateBroken, "it vanished"}
			f.leave()
		case err != nil:
			f.trouble = worse(f.trouble, trouble{backup.StateBroken, err.Error()})
		case !now.Same(f.FileIdentity):
			f.trouble = f.trouble.busy(fmt.Sprintf("the file is being written: %d bytes, then %d", f.Size, now.Size))
		}
	}
	return nil
}

// sorted returns all files by path.
func (s *scan) sorted() []*file {
	files := make([]*file, 0, len(s.files))
	for _, f := range s.files {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *file) int { return compareText(a.Path, b.Path) })
	return files
}

// claim marks what the format knows. Images that a subfolder's ferry.yaml leaves out stay unknown.
func (s *scan) claim(machines []*machine) {
	for _, f := range s.files {
		if !s.leftOut(f) {
			s.listing.Claim(f.Path)
		}
	}
	for _, member := range s.members {
		s.listing.Claim(member)
	}
	for _, m := range machines {
		for _, entry := range m.beside {
			s.listing.Claim(entry.Path)
		}
	}
	for _, f := range s.folders {
		if f.described != nil || f.trouble.state != "" {
			s.listing.Claim(path.Join(f.path, descriptionName))
		}
	}
}

// leftOut is true for an image in a subfolder with a ferry.yaml that does not name it and nothing stands on.
func (s *scan) leftOut(f *file) bool {
	inside := s.folders[f.folder]
	return inside != nil && f.folder != "." && inside.described != nil && !f.described && f.overlays == 0
}
