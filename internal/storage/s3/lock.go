package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// modes of object lock.
var modes = map[storage.Immutability]minio.RetentionMode{storage.Compliance: minio.Compliance, storage.Governance: minio.Governance}

// CheckLock tells whether the bucket locks objects, and locks none by itself.
func (s *Store) CheckLock(ctx context.Context, how storage.Immutability) error {
	if err := s.hasWay(how); err != nil {
		return err
	}
	enabled, byDefault, err := s.objectLock(ctx)
	switch {
	case err != nil:
		return s.notTold(err, "object lock", "without it no file there can be locked")
	case !enabled:
		return unsuitable("%s: object lock is not enabled for bucket %s",
			"make a bucket with it: aws s3api create-bucket --object-lock-enabled-for-bucket --bucket NAME (docs/s3.md)", s.location.text, s.location.Bucket)
	case byDefault:
		return s.defaultRetention()
	}
	return nil
}

// hasWay returns an error unless buckets lock in the way.
func (s *Store) hasWay(how storage.Immutability) error {
	if modes[how] == "" {
		return unsuitable("%s: a bucket cannot lock in the way %q", "there are --lock compliance and governance here", s.location.text, how)
	}
	return nil
}

func unsuitable(format, hint string, args ...any) error {
	return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%w: %w", fmt.Errorf(format, args...), storage.ErrUnsuitable), Hint: hint}
}

// defaultRetention is the error of a bucket that locks everything: hints that are overwritten every minute would pile up
// in it, and what was never committed could not be removed.
func (s *Store) defaultRetention() error {
	return unsuitable("%s: bucket %s has a default retention, which would lock every version of files that change all the time",
		"clear it, Ferry locks what is to be locked by itself: aws s3api put-object-lock-configuration --bucket "+s.location.Bucket+` --object-lock-configuration ObjectLockEnabled=Enabled`,
		s.location.text, s.location.Bucket)
}

// objectLock tells whether the bucket has object lock, and whether it locks by default.
func (s *Store) objectLock(ctx context.Context) (enabled, byDefault bool, err error) {
	err = s.retry(ctx, 0, func(ctx context.Context) error {
		status, mode, validity, _, err := s.client.GetObjectLockConfig(ctx, s.location.Bucket)
		enabled, byDefault = status == "Enabled", mode != nil && *mode != "" || validity != nil && *validity > 0
		if _, another := errors.AsType[xml.UnmarshalError](err); another {
			return nil // a server that does not know the question has answered another one
		}
		return err
	})
	if isStatus(err, http.StatusNotFound) && !isCode(err, "NoSuchBucket") || isStatus(err, http.StatusNotImplemented) || isStatus(err, http.StatusMethodNotAllowed) ||
		isCode(err, "ObjectLockConfigurationNotFoundError", "InvalidRequest", "InvalidBucketObjectLockConfiguration") {
		return false, false, nil
	}
	return enabled, byDefault, err
}

// CheckRetention tells whether the bucket locks everything by itself, which can be set at any time. A server that does not know the
// question has nothing of that kind; one that does not let these keys ask may have.
func (s *Store) CheckRetention(ctx context.Context) error {
	_, byDefault, err := s.objectLock(ctx)
	switch {
	case isStatus(err, http.StatusForbidden) || err != nil && classOf(err) == temporary:
		return s.notTold(err, "a default retention", "such a retention would lock every version of files that change all the time")
	case byDefault:
		return s.defaultRetention()
	}
	return nil
}

// notTold is the error of a bucket of which it is not known what was asked, and why that must be known.
func (s *Store) notTold(err error, asked, why string) error {
	if !isCode(err, "AccessDenied", "AllAccessDisabled") {
		return s.describe("asking for the object lock of", "", err)
	}
	response, _ := errors.AsType[minio.ErrorResponse](err)
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s: the keys may not ask whether bucket %s has %s: %s", s.location.text, s.location.Bucket, asked, answer(response)),
		Hint: "allow them s3:GetBucketObjectLockConfiguration on the bucket: " + why + " (docs/s3.md)",
	}
}

// LockNew makes what is published from now on locked.
func (s *Store) LockNew(how storage.Immutability, until func(name string) time.Time) error {
	if err := s.hasWay(how); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockHow, s.lockUntil = modes[how], until
	return nil
}

// Lock sets the retention of the version that is the object.
func (s *Store) Lock(ctx context.Context, name string, how storage.Immutability, until time.Time) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	mode, version := modes[how], s.oldVersion(ctx, name)
	until = until.UTC().Truncate(time.Second)
	set := func(ctx context.Context) error {
		return s.client.PutObjectRetention(ctx, s.location.Bucket, s.key(name), minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: version})
	}
	err := s.retry(ctx, 0, set)
	if err != nil && version == "" && s.mayBeHidden(name, err) {
		var found bool
		var listErr error
		if version, found, listErr = s.oldestVersion(ctx, name); listErr == nil && found {
			err = s.retry(ctx, 0, set)
		}
	}
	if isStatus(err, http.StatusForbidden) || isStatus(err, http.StatusBadRequest) {
		// Servers refuse to shorten a lock. One that lasts longer is as good.
		if there, readErr := s.retention(ctx, name, version); readErr == nil && !there.Before(until) {
			return nil
		}
	}
	return s.describe("locking", name, err)
}

// LockedUntil reads the retention of the version that is the object.
func (s *Store) LockedUntil(ctx context.Context, name string) (time.Time, error) {
	if err := check(ctx, name); err != nil {
		return time.Time{}, err
	}
	version := s.oldVersion(ctx, name)
	until, err := s.retention(ctx, name, version)
	if err != nil && version == "" && s.mayBeHidden(name, err) {
		if version, found, listErr := s.oldestVersion(ctx, name); listErr == nil && found {
			until, err = s.retention(ctx, name, version)
		}
	}
	return until, s.describe("asking for the lock of", name, err)
}

func (s *Store) retention(ctx context.Context, name, version string) (until time.Time, err error) {
	err = s.retry(ctx, 0, func(ctx context.Context) error {
		_, date, err := s.client.GetObjectRetention(ctx, s.location.Bucket, s.key(name), version)
		if err == nil && date != nil {
			until = date.UTC()
		}
		return err
	})
	if isCode(err, "NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest") {
		return time.Time{}, nil
	}
	return until, err
}

// retentionName makes an answer about a lock one that the client understands: versitygw names the element by its type.
func retentionName(response *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	response.Body.Close()
	if err != nil {
		return err
	}
	content = bytes.ReplaceAll(content, []byte("ObjectLockRetention"), []byte("Retention"))
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(content)), int64(len(content))
	return nil
}

// lockOf is until when a version is locked that could not be removed; zero if it was something else.
func (s *Store) lockOf(ctx context.Context, name string, v version, err error) time.Time {
	if v.deleted || !isStatus(err, http.StatusForbidden) && !isCode(err, "ObjectLocked", "InvalidRequest", "AccessDenied") {
		return time.Time{}
	}
	until, readErr := s.retention(ctx, name, v.id)
	if readErr != nil {
		return time.Time{}
	}
	return until
}

// Probe tries whether the bucket is fit for a repository, with a small mark that it removes.
func (s *Store) Probe(ctx context.Context) error {
	if err := s.CheckRetention(ctx); err != nil { // first: it would lock the mark, too
		return err
	}
	name := marksPrefix + "probe-" + randomMark()
	if err := s.Put(ctx, name, []byte("probe")); err != nil {
		return err
	}
	defer func() { _ = s.Delete(context.WithoutCancel(ctx), name) }()
	again := s.Put(ctx, name, []byte("again"))
	if again == nil {
		return s.ignores("a put with If-None-Match: *, by which only one of two writers creates an object")
	}
	if !errors.Is(again, storage.ErrExists) {
		return again
	}
	u, err := s.beginUpload(ctx, name)
	if err != nil {
		return err
	}
	defer u.cancel()
	if u.put(1, &body{chunks: [][]byte{[]byte("upload")}, size: 6}); u.failure() != nil {
		u.abort()
		return u.failure()
	}
	again = u.complete(ctx)
	if again == nil {
		return s.ignores("If-None-Match: * at the end of a multipart upload, by which only one of two writers creates a large object")
	}
	u.abort()
	if !errors.Is(again, storage.ErrExists) {
		return again
	}
	found, err := storage.ReadAll(ctx, s, name, 100)
	if err != nil {
		return err
	}
	if string(found) != "probe" {
		return s.ignores("create if absent: an object was replaced")
	}
	return nil
}

func (s *Store) ignores(what string) error {
	return unsuitable("%s: the server ignores %s", "use a server that has conditional writes; docs/s3.md names some", s.location.text, what)
}
