package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"ferry/internal/policy"
	"ferry/internal/repo"
)

// A repository that was closed does not hold its folder: its disk can be unmounted, and a server opens many.
func TestClosedRepositoryHoldsNoFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "vault")
	a := &app{out: io.Discard, errOut: io.Discard, cacheDir: t.TempDir()}
	held := func() bool {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range open {
			if to, err := os.Readlink("/proc/self/fd/" + one.Name()); err == nil && to == folder {
				return true
			}
		}
		return false
	}
	closed := func(what string, opened *repo.Repository, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if !held() {
			t.Errorf("%s: its folder is not open: the test shows nothing", what)
		}
		if err := opened.Close(); err != nil || held() {
			t.Errorf("%s and closed: %v, holds its folder: %v", what, err, held())
		}
	}
	made, err := a.createRepository(t.Context(), folder, repo.Options{})
	closed("made", made, err)
	opened, err := a.openRepository(t.Context(), folder)
	closed("opened", opened, err)
}

// Sources of a job are opened at once: the requests of each bucket count.
func TestBucketsAreOpenedAtOnce(t *testing.T) {
	whole := &app{buckets: &bucketList{}, credentials: []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")}
	const buckets = 8
	var opening sync.WaitGroup
	for i := range buckets {
		of := whole.asResource(policy.Repository{}).app
		opening.Go(func() {
			store, err := of.openBucket(fmt.Sprintf("s3://backups/%d?endpoint=http://127.0.0.1:1&region=x", i))
			if err != nil {
				t.Error(err)
				return
			}
			store.Close()
		})
	}
	opening.Wait()
	if n := len(whole.buckets.stores); n != buckets {
		t.Errorf("%d buckets", n)
	}
}
