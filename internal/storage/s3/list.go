package s3

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"ferry/internal/storage"
)

// version is one of those that a bucket has of a name.
type version struct {
	id       string
	size     int64
	modified time.Time
	latest   bool
	// deleted is true for the mark that a deletion without a version leaves.
	deleted bool
}

// List yields the objects below prefix.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter yields the objects below prefix whose names sort behind after, sorted. In a bucket that keeps versions it is the
// oldest version of each, also where that is hidden.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		err := ctx.Err()
		if err == nil {
			err = storage.CheckPrefix(prefix)
		}
		keeps := false
		if err == nil {
			keeps, err = s.keepsVersions(ctx)
		}
		if err == nil {
			var stopped bool
			if stopped, err = s.list(ctx, prefix, after, keeps, yield); stopped {
				return
			}
		}
		if err != nil {
			yield(storage.Info{}, s.describe("listing", prefix, err))
		}
	}
}

// list yields what keys says, and goes on behind the last name after a failure that may pass. stopped is true when yield
// had enough.
func (s *Store) list(ctx context.Context, prefix, after string, keeps bool, yield func(storage.Info, error) bool) (stopped bool, err error) {
	var of []version // the versions of name seen so far
	name := ""
	// flush yields the name whose versions are all there.
	flush := func() bool {
		info, ok := s.choose(name, of)
		of = of[:0]
		return !ok || yield(info, nil)
	}
	last := after // nothing up to here is listed again
	page := func(ctx context.Context) error {
		of, name = of[:0], ""
		options := minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true, WithVersions: keeps, FetchOwner: new(bool)}
		if last != "" {
			options.StartAfter = s.key(last)
		}
		for object := range s.client.ListObjectsIter(ctx, s.location.Bucket, options) {
			if object.Err != nil {
				return object.Err
			}
			next, ours := strings.CutPrefix(object.Key, s.location.Prefix)
			if !ours || storage.CheckName(next) != nil || next <= after {
				continue
			}
			if next != name && len(of) > 0 {
				if last = name; !flush() {
					stopped = true
					return nil
				}
			}
			name = next
			of = append(of, version{
				id: object.VersionID, size: object.Size, modified: object.LastModified.UTC().Truncate(time.Second), latest: object.IsLatest || !keeps, deleted: object.IsDeleteMarker,
			})
		}
		return ctx.Err()
	}
	for {
		begun := last
		// A listing takes as long as it takes: the transport gives up on a page that does not come.
		if err = s.retry(ctx, 1<<40, page); err == nil || last == begun || ctx.Err() != nil || classOf(err) == permanent {
			break
		}
	}
	if err == nil && !stopped && len(of) > 0 {
		stopped = !flush()
	}
	return stopped, err
}

// choose says which of a name's versions is the object, and remembers it where that is not the one that is there now.
// Versions come newest first.
func (s *Store) choose(name string, versions []version) (storage.Info, bool) {
	chosen := oldest(versions)
	if !immutable(name) {
		chosen = slices.IndexFunc(versions, func(v version) bool { return v.latest && !v.deleted })
	}
	if chosen < 0 {
		return storage.Info{}, false
	}
	v := versions[chosen]
	if immutable(name) && !v.latest {
		s.setOldest(name, v)
	}
	return storage.Info{Name: name, Size: v.size, Modified: v.modified}, true
}

// oldest is the index of the oldest version that has content; -1 if there is none. Servers list the newest first; where
// that and the times differ, the times count.
func oldest(versions []version) int {
	found := -1
	for i, v := range versions {
		if !v.deleted && (found < 0 || !v.modified.After(versions[found].modified)) {
			found = i
		}
	}
	return found
}

// oldVersion is the version of a name to read if that is not the one that is there now.
func (s *Store) oldVersion(ctx context.Context, name string) string {
	s.mu.Lock()
	id, known := s.oldest[name]
	s.mu.Unlock()
	if known || !s.tampered.Load() || !immutable(name) {
		return id
	}
	id, found, err := s.oldestVersion(ctx, name)
	if err != nil || !found {
		return "" // asking for it says what is wrong
	}
	return id
}

// setOldest remembers which version of a name is the object.
func (s *Store) setOldest(name string, v version) {
	id := v.id
	if v.latest {
		id = ""
	} else {
		s.tampered.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest[name] = id
}

// mayBeHidden is true if an object that was not found may be there nevertheless, in an older version.
func (s *Store) mayBeHidden(name string, err error) bool {
	return (saysMissing(err) || isStatus(err, http.StatusMethodNotAllowed)) && immutable(name) && s.counter.versioned.Load()
}

// oldestVersion finds the oldest version of an object.
func (s *Store) oldestVersion(ctx context.Context, name string) (id string, found bool, err error) {
	versions, err := s.versions(ctx, name)
	if err != nil {
		return "", false, err
	}
	i := oldest(versions)
	if i < 0 {
		return "", false, nil
	}
	s.setOldest(name, versions[i])
	return versions[i].id, true, nil
}

// versions lists all versions of one name, the marks of deletions included, newest first.
func (s *Store) versions(ctx context.Context, name string) ([]version, error) {
	var found []version
	err := s.retry(ctx, 0, func(ctx context.Context) error {
		found = nil
		options := minio.ListObjectsOptions{Prefix: s.key(name), Recursive: true, WithVersions: true}
		for object := range s.client.ListObjectsIter(ctx, s.location.Bucket, options) {
			if object.Err != nil {
				return object.Err
			}
			if object.Key != s.key(name) {
				break // names that begin with this one come behind it
			}
			found = append(found, version{
				id: object.VersionID, size: object.Size, modified: object.LastModified.UTC().Truncate(time.Second), latest: object.IsLatest, deleted: object.IsDeleteMarker,
			})
		}
		return ctx.Err()
	})
	return found, err
}

// keepsVersions is true if the bucket keeps versions. Answers about objects say so; where none came yet, it is asked.
func (s *Store) keepsVersions(ctx context.Context) (bool, error) {
	if s.counter.versioned.Load() || s.counter.told.Load() {
		return s.counter.versioned.Load(), nil
	}
	var config minio.BucketVersioningConfiguration
	err := s.retry(ctx, 0, func(ctx context.Context) (err error) {
		config, err = s.client.GetBucketVersioning(ctx, s.location.Bucket)
		return err
	})
	if isStatus(err, http.StatusNotImplemented) || isCode(err, "VersioningNotConfigured", "NotImplemented") {
		err = nil // a server without versions
	}
	if err != nil {
		return false, err
	}
	if config.Enabled() || config.Suspended() {
		s.counter.versioned.Store(true)
	}
	s.counter.told.Store(true)
	return s.counter.versioned.Load(), nil
}

// Delete removes an object. In a bucket that keeps versions it removes all of them: a deletion without one would only hide
// the object, which is for others to do by mistake or on purpose, and is seen through.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	keeps, err := s.keepsVersions(ctx)
	if err != nil {
		return s.describe("deleting", name, err)
	}
	if !keeps {
		return s.describe("deleting", name, s.removeVersion(ctx, name, ""))
	}
	versions, err := s.versions(ctx, name)
	if err != nil {
		return s.describe("deleting", name, err)
	}
	// The oldest first: if that is locked, everything stays as it is.
	for _, v := range slices.Backward(versions) {
		if err := s.removeVersion(ctx, name, v.id); err != nil {
			if until := s.lockOf(ctx, name, v, err); !until.IsZero() {
				return &storage.LockedError{Name: name, Until: until}
			}
			return s.describe("deleting", name, err)
		}
	}
	s.mu.Lock()
	delete(s.oldest, name)
	s.mu.Unlock()
	return nil
}

func (s *Store) removeVersion(ctx context.Context, name, id string) error {
	err := s.retry(ctx, 0, func(ctx context.Context) error {
		return s.client.RemoveObject(ctx, s.location.Bucket, s.key(name), minio.RemoveObjectOptions{VersionID: id})
	})
	if saysMissing(err) {
		return nil
	}
	return err
}
