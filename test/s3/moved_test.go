//go:build integration

package s3

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// upload puts the files of a repository's folder into a bucket, as a program does that knows nothing of Ferry.
func upload(t *testing.T, folder, bucket string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err == nil {
			_, err = shared.client.FPutObject(t.Context(), bucket, "vault/"+filepath.ToSlash(name), path, minio.PutObjectOptions{})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// download gets the objects of a repository from a bucket into a folder.
func download(t *testing.T, bucket, folder string) {
	t.Helper()
	for object := range shared.client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: "vault/", Recursive: true}) {
		if object.Err != nil {
			t.Fatal(object.Err)
		}
		to := filepath.Join(folder, filepath.FromSlash(strings.TrimPrefix(object.Key, "vault/")))
		if err := shared.client.FGetObject(t.Context(), bucket, object.Key, to, minio.GetObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMoved: whatever copies files moves a repository from a folder into a bucket and back, and it goes on where it is
// (docs/operations.md).
func TestMoved(t *testing.T) {
	source, folder := disks(t, 4<<20, "web", "db"), filepath.Join(t.TempDir(), "vault")
	newMachine(t).run(0, "copy", source, folder, "--create", "--machine", "web")
	bucket := shared.bucket(t, plain)
	upload(t, folder, bucket)
	m, vault := newMachine(t), shared.location(bucket)
	m.run(0, "verify", vault)
	m.run(0, "copy", source, vault)
	back := filepath.Join(t.TempDir(), "back")
	download(t, bucket, back)
	m = newMachine(t)
	m.run(0, "verify", back)
	m.run(0, "copy", source, back)
	restored := t.TempDir()
	for _, name := range []string{"web", "db"} {
		m.run(0, "restore", back, name, "--to", filepath.Join(restored, name))
		same(t, filepath.Join(source, name+".raw"), filepath.Join(restored, name, name+".raw"))
	}
}

// TestMovedLocks: locks do not come along to another bucket; it is found, and extending them locks everything there.
func TestMovedLocks(t *testing.T) {
	first, second := shared.bucket(t, locking), shared.bucket(t, locking)
	newMachine(t).run(0, "copy", disks(t, 4<<20, "web"), shared.location(first), "--create", "--lock", "compliance", "--lock-for", "1h")
	between := t.TempDir()
	download(t, first, between)
	upload(t, between, second)
	m, vault := newMachine(t), shared.location(second)
	m.run(5, "repo", "locks", vault, "--check")
	m.run(0, "repo", "locks", vault, "--extend")
	m.run(0, "repo", "locks", vault, "--check")
	m.run(0, "verify", vault)
}
