// Package ferry reads restore points from another Ferry repository: the copy of a copy.
//
// A point keeps its id on the way, so copying it on twice, or back to where it came from, copies nothing. The copy has
// this repository as its last hop.
package ferry

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/storage"
	"ferry/internal/storage/fs"
)

// Format is the source format. Environment is for the repositories it opens.
type Format struct {
	Environment repo.Environment
	// Receive is the pace at which repositories are read; nil: as fast as it goes.
	Receive storage.Pace
}

// Name is "ferry".
func (Format) Name() string { return "ferry" }

// Scan opens every repository in the listing and lists its points.
func (f Format) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	var points []source.Point
	var errs []error
	for _, folder := range listing.Repositories {
		listing.ClaimFolder(folder)
		found, err := f.scan(ctx, listing, folder)
		if err != nil {
			errs = append(errs, err)
		}
		points = append(points, found...)
	}
	return points, errors.Join(errs...)
}

func (f Format) scan(ctx context.Context, listing *source.Listing, folder string) ([]source.Point, error) {
	store, err := fs.Open(filepath.Join(listing.Root.Path(), filepath.FromSlash(folder)))
	if err != nil {
		return nil, err
	}
	return scan(ctx, listing, storage.Paced(store, nil, f.Receive), f.Environment)
}

// Stored is the format of the one repository that lies in a store, such as a bucket. The source closes the store.
type Stored struct {
	Store       storage.Store
	Environment repo.Environment
}

// Name is "ferry".
func (Stored) Name() string { return Format{}.Name() }

// Scan opens the repository and lists its points.
func (s Stored) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	return scan(ctx, listing, s.Store, s.Environment)
}

func scan(ctx context.Context, listing *source.Listing, store storage.Store, environment repo.Environment) ([]source.Point, error) {
	listing.CloseWith(store)
	repository, err := repo.Open(ctx, countingStore{Store: store, root: listing.Root}, environment)
	if err != nil {
		return nil, err
	}
	listing.CloseWith(repository)
	var points []source.Point
	read, err := repository.ReadPoints(ctx, repository.Entries())
	if err != nil {
		return nil, err
	}
	for _, p := range read {
		points = append(points, listed(ctx, repository, p))
	}
	return points, repository.NeedsKey()
}

// listed is a point as a source offers it. One whose file is damaged is still listed, by what the log knows, and one that
// verification found damaged says so; one of a repository that no key was given for, by what is not encrypted.
func listed(ctx context.Context, repository *repo.Repository, read repo.PointRead) source.Point {
	entry := read.Entry
	known := backup.Point{
		ID: entry.ID, Created: entry.Created, Zone: "UTC",
		Machine: backup.Machine{Name: entry.Machine.String(), Key: backup.MachineKey{NativeID: entry.Machine.String()}},
	}
	if repository.Locked() {
		header, err := repository.ReadHeader(ctx, entry.ID)
		if err != nil {
			known.State, known.Reason = backup.StateBroken, err.Error()
			return source.Point{Point: known, Via: repository.ID()}
		}
		if damage, damaged := repository.DamageOf(entry.ID); damaged {
			known.State, known.Reason = backup.StateBroken, damage.String()
			return source.Point{Point: known, Via: repository.ID()}
		}
		known.State, known.Reason = backup.StateEncrypted, "no key was given"
		for i, root := range header.Roots {
			known.Objects = append(known.Objects, backup.Object{Name: fmt.Sprintf("object %d", i+1), Size: root.Size})
		}
		return source.Point{Point: known}
	}
	if read.Err != nil {
		known.State, known.Reason = backup.StateBroken, read.Err.Error()
		return source.Point{Point: known, Via: repository.ID()}
	}
	if damage, damaged := repository.DamageOf(entry.ID); damaged {
		point := read.Point.Point
		point.State, point.Reason, point.Proven = backup.StateBroken, damage.String(), false
		return source.Point{Point: point, Via: repository.ID()}
	}
	return source.Point{Point: read.Point.Point, Via: repository.ID(), Opener: opener{repository: repository, point: read.Point}}
}

// RepositoryOf is the repository that a point is read from; nil if it is from elsewhere.
func RepositoryOf(p source.Point) *repo.Repository {
	if from, ok := p.Opener.(opener); ok {
		return from.repository
	}
	return nil
}

// countingStore counts what is read of a repository as bytes read of the source.
type countingStore struct {
	storage.Store
	root *source.Root
}

func (s countingStore) Unwrap() storage.Store { return s.Store }

func (s countingStore) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	content, err := storage.ReadAll(ctx, s.Store, name, limit)
	s.root.CountRead(len(content))
	return content, err
}

func (s countingStore) OpenSized(ctx context.Context, name string, size int64) (storage.Reader, error) {
	reader, err := storage.OpenSized(ctx, s.Store, name, size)
	if err != nil {
		return nil, err
	}
	return countingReader{Reader: reader, root: s.root}, nil
}

func (s countingStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	reader, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return countingReader{Reader: reader, root: s.root}, nil
}

type countingReader struct {
	storage.Reader
	root *source.Root
}

func (r countingReader) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.Reader.ReadAt(p, offset)
	r.root.CountRead(n)
	return n, err
}

func (r countingReader) ReadAtContext(ctx context.Context, p []byte, offset int64) (int, error) {
	n, err := storage.ReadAt(ctx, r.Reader, p, offset)
	r.root.CountRead(n)
	return n, err
}
