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
	"slices"

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
	// Memory spares reading what was listed before; nil: all is read.
	Memory *Memory
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
	return scan(ctx, listing, storage.Paced(storage.Answering(store, listing.Root.Calls()), nil, f.Receive), f.Environment, f.Memory)
}

// Stored is the format of the one repository that lies in a store, such as a bucket. The source closes the store.
type Stored struct {
	Store       storage.Store
	Environment repo.Environment
	// Memory spares reading what was listed before; nil: all is read.
	Memory *Memory
}

// Name is "ferry".
func (Stored) Name() string { return Format{}.Name() }

// Scan opens the repository and lists its points.
func (s Stored) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	return scan(ctx, listing, storage.Answering(s.Store, listing.Root.Calls()), s.Environment, s.Memory)
}

// readAtOnce is how many points' files are held at once.
const readAtOnce = 1000

func scan(ctx context.Context, listing *source.Listing, store storage.Store, environment repo.Environment, memory *Memory) ([]source.Point, error) {
	listing.CloseWith(store)
	repository, err := repo.Open(ctx, countingStore{Store: store, root: listing.Root}, environment)
	if err != nil {
		return nil, err
	}
	listing.CloseWith(repository)
	listing.Problems = append(listing.Problems, amiss(repository)...)
	entries := repository.Entries()
	points := make([]source.Point, 0, len(entries))
	if repository.Locked() {
		for _, entry := range entries {
			points = append(points, listedLocked(ctx, repository, entry))
		}
		return points, repository.NeedsKey()
	}
	known := memory.recall(repository)
	found := known
	if !known.isAll(entries) {
		found = &remembered{points: make([]rememberedPoint, 0, len(entries)), last: map[repo.Pseudonym]*likeness{}}
		if known != nil {
			found.unkept.Store(known.unkept.Load())
		}
	}
	for some := range slices.Chunk(entries, readAtOnce) {
		read, err := readUnknown(ctx, repository, some, known)
		if err != nil {
			return nil, err
		}
		for _, entry := range some {
			point, is := known.point(entry)
			switch {
			case is && found == known: // it stays where it is
			case is:
				found.take(*point)
			case read[0].Err != nil:
				points = append(points, broken(repository, entry, read[0].Err))
				read = read[1:]
				continue
			default:
				point = found.add(entry, &read[0].Point.Point)
				found.unkept.Add(1)
				read = read[1:]
			}
			points = append(points, listed(repository, point.listed(), memory))
		}
	}
	memory.found(repository, found)
	return points, repository.NeedsKey()
}

// amiss is what is wrong with a repository as a whole and keeps none of its points from being listed: a history that is not the one
// that was seen may lack points, and whoever reads them is told as whoever writes is.
func amiss(repository *repo.Repository) []error {
	var problems []error
	if diverged := repository.Diverged(); diverged != nil {
		problems = append(problems, diverged)
	}
	if repository.Locked() {
		return problems // that it needs a key is said beside its points
	}
	for _, warning := range repository.Warnings() {
		problems = append(problems, fmt.Errorf("%s: %s", repository.Location(), warning))
	}
	return problems
}

// readUnknown reads the files of those points that are not known.
func readUnknown(ctx context.Context, repository *repo.Repository, entries []repo.Entry, known *remembered) ([]repo.PointRead, error) {
	var unread []repo.Entry
	for _, entry := range entries {
		if _, is := known.point(entry); !is {
			unread = append(unread, entry)
		}
	}
	return repository.ReadPoints(ctx, unread)
}

// listed is a point as a source offers it. One that verification found damaged says so.
func listed(repository *repo.Repository, point backup.Point, memory *Memory) source.Point {
	point = repository.AsFound(point)
	if point.State == backup.StateBroken {
		return source.Point{Point: point, Via: repository.ID()}
	}
	return source.Point{Point: point, Via: repository.ID(), Opener: opener{repository: repository, id: point.ID, memory: memory}}
}

// Logged is what the log knows of a point. Its state is for the caller to say.
func Logged(entry repo.Entry) backup.Point {
	return backup.Point{
		ID: entry.ID, Created: entry.Created, Zone: "UTC",
		Machine: backup.Machine{Name: entry.Machine.String(), Key: backup.MachineKey{NativeID: entry.Machine.String()}},
	}
}

// broken is a point whose file cannot be read: it is listed by what the log knows.
func broken(repository *repo.Repository, entry repo.Entry, err error) source.Point {
	point := Logged(entry)
	point.State, point.Reason = backup.StateBroken, err.Error()
	return source.Point{Point: point, Via: repository.ID()}
}

// listedLocked is a point of a repository that is locked: it is listed by what is not encrypted.
func listedLocked(ctx context.Context, repository *repo.Repository, entry repo.Entry) source.Point {
	header, err := repository.ReadHeader(ctx, entry.ID)
	if err != nil {
		return broken(repository, entry, err)
	}
	point := repository.AsFound(Logged(entry))
	if point.State == backup.StateBroken {
		return source.Point{Point: point, Via: repository.ID()}
	}
	point.State, point.Reason = backup.StateEncrypted, repository.WhyLocked()
	for i, root := range header.Roots {
		point.Objects = append(point.Objects, backup.Object{Name: fmt.Sprintf("object %d", i+1), Size: root.Size})
	}
	return source.Point{Point: point}
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
	return s.counted(storage.OpenSized(ctx, s.Store, name, size))
}

func (s countingStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	return s.counted(s.Store.Open(ctx, name))
}

func (s countingStore) counted(reader storage.Reader, err error) (storage.Reader, error) {
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
