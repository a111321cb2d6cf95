//go:build integration

package s3

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// TestLock: what is locked cannot be deleted, by this program or with the bare client, and its lock grows and never shrinks.
func TestLock(t *testing.T) {
	for mode, name := range map[storage.Immutability]minio.RetentionMode{storage.Compliance: minio.Compliance, storage.Governance: minio.Governance} {
		bucket := shared.bucket(t, locking)
		store := open(t, shared.location(bucket))
		ctx := t.Context()
		if err := store.CheckLock(ctx, mode); err != nil {
			t.Fatal(err)
		}
		soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		store.LockNew(mode, func(name string) time.Time {
			if strings.HasPrefix(name, "marks/") {
				return time.Time{}
			}
			return soon
		})
		// One in a single put, one in a multipart upload.
		contents := map[string][]byte{"log/1": []byte("entry"), "packs/aa/big": noise(7, 20<<20)}
		for name, content := range contents {
			w, err := store.Create(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for object := range contents {
			until := func() time.Time {
				t.Helper()
				until, err := store.LockedUntil(ctx, object)
				if err != nil {
					t.Fatal(err)
				}
				return until
			}
			if got := until(); !got.Equal(soon) {
				t.Errorf("%s is locked until %v, want %v", object, got, soon)
			}
			var locked *storage.LockedError
			if err := store.Delete(ctx, object); !errors.As(err, &locked) || !locked.Until.Equal(soon) {
				t.Errorf("deleting %s: %v", object, err)
			}
			for version := range shared.client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: "vault/" + object, WithVersions: true, Recursive: true}) {
				if err := shared.client.RemoveObject(ctx, bucket, version.Key, minio.RemoveObjectOptions{VersionID: version.VersionID}); err == nil {
					t.Errorf("version %s of %s was deleted", version.VersionID, object)
				}
				shorter := soon.Add(-30 * time.Minute)
				if err := shared.client.PutObjectRetention(ctx, bucket, version.Key, minio.PutObjectRetentionOptions{Mode: &name, RetainUntilDate: &shorter, VersionID: version.VersionID}); err == nil {
					t.Errorf("the %s lock of %s was shortened", mode, object)
				}
			}
			if err := store.Lock(ctx, object, mode, soon.Add(-30*time.Minute)); err != nil {
				t.Errorf("a lock that lasts longer already: %v", err)
			}
			if got := until(); !got.Equal(soon) {
				t.Errorf("%s is locked until %v after all that, want %v", object, got, soon)
			}
			if err := store.Lock(ctx, object, mode, soon.Add(time.Hour)); err != nil {
				t.Errorf("extending: %v", err)
			}
			if got := until(); !got.Equal(soon.Add(time.Hour)) {
				t.Errorf("%s is locked until %v, want %v", object, got, soon.Add(time.Hour))
			}
			found, err := storage.ReadAll(ctx, store, object, 1<<30)
			if err != nil || !bytes.Equal(found, contents[object]) {
				t.Errorf("%s after all that: %d bytes, %v", object, len(found), err)
			}
		}
		if err := store.Overwrite(ctx, "marks/lease", nil); err != nil {
			t.Fatal(err)
		}
		if err := store.Delete(ctx, "marks/lease"); err != nil {
			t.Errorf("marks are not locked: %v", err)
		}
	}
}

// TestUnsuitableBuckets: what cannot lock, or locks everything by itself, is refused with what to do.
func TestUnsuitableBuckets(t *testing.T) {
	ctx := t.Context()
	store := open(t, shared.location(shared.bucket(t, versioned)))
	if err := store.CheckLock(ctx, storage.Compliance); !errors.Is(err, storage.ErrUnsuitable) || backup.Hint(err) == "" {
		t.Errorf("a bucket without object lock: %v", err)
	}
	bucket := shared.bucket(t, locking)
	mode, days, unit := minio.Governance, uint(1), minio.Days
	if err := shared.client.SetObjectLockConfig(ctx, bucket, &mode, &days, &unit); err != nil {
		t.Fatal(err)
	}
	store = open(t, shared.location(bucket))
	if err := store.CheckLock(ctx, storage.Compliance); !errors.Is(err, storage.ErrUnsuitable) || !strings.Contains(backup.Hint(err), "put-object-lock-configuration") {
		t.Errorf("a bucket with default retention: %v", err)
	}
	m := newMachine(t)
	if _, said := m.run(1, "repo", "init", shared.location(bucket), "--lock", "compliance", "--lock-for", "1h"); !strings.Contains(said, "default retention") {
		t.Error(said)
	}
	if _, said := m.run(1, "repo", "init", shared.location(bucket)); !strings.Contains(said, "default retention") || !strings.Contains(said, "put-object-lock-configuration") {
		t.Error(said)
	}
	for object := range shared.client.ListObjects(ctx, bucket, minio.ListObjectsOptions{WithVersions: true, Recursive: true}) {
		t.Errorf("%s was left in a bucket that locks it", object.Key)
	}
	if _, said := m.run(1, "repo", "init", shared.location(shared.bucket(t, plain)), "--lock", "compliance", "--lock-for", "1h"); !strings.Contains(said, "object lock is not enabled") {
		t.Error(said)
	}
	m.run(2, "repo", "init", shared.location(shared.bucket(t, locking)), "--lock", "compliance")
	m.run(1, "repo", "init", shared.location(shared.bucket(t, locking)), "--lock", "host", "--lock-for", "1h")
}

// TestRetentionSetLater: who copies into a bucket that has a default retention by now, verifies it or looks at its locks is told.
func TestRetentionSetLater(t *testing.T) {
	bucket := shared.bucket(t, locking)
	vault := shared.location(bucket)
	m := newMachine(t)
	m.run(0, "copy", disks(t, 1<<20, "web"), vault, "--create")
	mode, days, unit := minio.Governance, uint(1), minio.Days
	if err := shared.client.SetObjectLockConfig(t.Context(), bucket, &mode, &days, &unit); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"copy", disks(t, 2<<20, "db"), vault}, {"verify", vault}, {"repo", "locks", vault, "--check"}} {
		if _, said := m.run(0, args...); strings.Count(said, "has a default retention") != 1 || !strings.Contains(said, "put-object-lock-configuration") {
			t.Errorf("%q says %q", args, said)
		}
	}
}

// attack does to all objects of a bucket what a stolen key without the right to delete versions can do.
func attack(t *testing.T, bucket string, do func(ctx context.Context, key string) error) int {
	t.Helper()
	var keys []string
	for object := range shared.client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if object.Err != nil {
			t.Fatal(object.Err)
		}
		keys = append(keys, object.Key)
	}
	for _, key := range keys {
		if err := do(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	return len(keys)
}

// TestHidden: a repository of which every object was deleted without a version, or overwritten with something else, is
// read as if nothing had happened.
func TestHidden(t *testing.T) {
	for what, do := range map[string]func(bucket string) func(context.Context, string) error{
		"deleted": func(bucket string) func(context.Context, string) error {
			return func(ctx context.Context, key string) error {
				return shared.client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
			}
		},
		"overwritten": func(bucket string) func(context.Context, string) error {
			return func(ctx context.Context, key string) error {
				_, err := shared.client.PutObject(ctx, bucket, key, strings.NewReader("your files are mine now"), 23, minio.PutObjectOptions{})
				return err
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			bucket := shared.bucket(t, locking)
			vault := shared.location(bucket)
			m := newMachine(t)
			source := disks(t, 24<<20, "web", "db")
			m.run(0, "repo", "init", vault, "--lock", "compliance", "--lock-for", "1h")
			m.run(0, "copy", source, vault)
			m.run(0, "repo", "locks", vault, "--check")
			if n := attack(t, bucket, do(bucket)); n < 6 {
				t.Fatalf("only %d objects were attacked", n)
			}
			for _, m := range []*machine{m, newMachine(t)} {
				restored := t.TempDir()
				m.run(0, "restore", vault, "web", "--to", restored)
				same(t, source+"/web.raw", restored+"/web.raw")
				m.run(0, "verify", vault)
				m.run(0, "copy", source, vault)
				m.run(0, "repo", "locks", vault, "--check")
			}
		})
	}
}
