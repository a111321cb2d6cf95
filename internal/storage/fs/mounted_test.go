package fs

import (
	"os"
	"testing"

	"ferry/internal/storage"
	"ferry/internal/storage/storagetest"
)

// envMounted names a folder on the file system to try, such as a mounted share.
const envMounted = "FERRY_TEST_MOUNTED"

// TestMounted runs the contract on a file system of another kind, in the way that a repository would be written there:
// docs/offsite.md says what came of it where.
func TestMounted(t *testing.T) {
	below := os.Getenv(envMounted)
	if below == "" {
		t.Skipf("%s names no folder", envMounted)
	}
	open := func(t *testing.T) storage.Store {
		folder, err := os.MkdirTemp(below, "contract-")
		if err != nil {
			t.Fatal(err)
		}
		store, err := Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			store.Close()
			if err := os.RemoveAll(folder); err != nil {
				t.Error(err)
			}
		})
		return store
	}
	probe, ok := open(t).(*Store)
	if !ok {
		t.Fatal("not a store of this package")
	}
	how, err := probe.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("objects are published by %v; remote: %v", how, IsRemote(below))
	storagetest.Run(t, open)
}
