//go:build integration

package s3

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRequests counts what commands ask of the server: a copy of nothing new asks a handful, and what one machine needs does
// not grow with what others have.
func TestRequests(t *testing.T) {
	for _, k := range []kind{plain, locking} {
		m := newMachine(t)
		vault := shared.location(shared.bucket(t, k))
		source := disks(t, 24<<20, "web", "db")
		first := m.counted("copy", source, vault, "--create")
		again := m.counted("copy", source, vault)
		if again.Total > 8 || again.Put+again.Delete > 0 {
			t.Errorf("a copy of nothing new: %+v, want at most 8 requests", again)
		}
		restored := t.TempDir()
		warm := m.counted("restore", vault, "web", "--to", restored)
		cold := newMachine(t).counted("restore", vault, "web", "--to", restored, "--force")
		coldReads := coldRestore(t, vault, "web")
		t.Logf("kind %d: first copy %+v\nnothing new %+v\nrestore %+v\ncold restore %+v", k, first, again, warm, cold)

		// Ten more points, some of other machines. Each adds an entry to the log.
		for i := range 10 {
			name := fmt.Sprintf("other-%d.raw", i%5)
			file := filepath.Join(source, name)
			if err := os.WriteFile(file, noise(uint64(100+i), 4<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			stamp := time.Now().Add(time.Duration(i-20) * time.Minute)
			if err := os.Chtimes(file, stamp, stamp); err != nil {
				t.Fatal(err)
			}
			// Two packs, an index, the point, its entry in the log, and what this copy wrote, for repo info.
			if one := m.counted("copy", source, vault); one.Put > 6 {
				t.Errorf("a copy of one small point: %+v, want at most 6 files", one)
			}
		}
		more := m.counted("copy", source, vault)
		if more.Total > 8 {
			t.Errorf("a copy of nothing new, with 12 points: %+v, want at most 8 requests", more)
		}
		warmer := m.counted("restore", vault, "web", "--to", restored, "--force")
		if warmer.Total > warm.Total+2 {
			t.Errorf("restoring the same machine beside more of others: %+v, before %+v", warmer, warm)
		}
		// A mark reads each pack of nodes whole, one for each of the eleven copies, and proves the index: no data, no node by
		// itself. Who has not seen the repository reads its log and the points, too.
		known, marked := m.counted("reclaim", vault, "--dry-run"), newMachine(t).counted("reclaim", vault, "--dry-run")
		if known.Get > 2*11 || marked.Get > 5*11 {
			t.Errorf("a mark of 12 points of 11 copies: %+v, for who has not seen it %+v; want at most 22 and 55 reads", known, marked)
		}
		// Who has not seen the repository reads as much of packs as before. Of others there is an entry of the log each, until a
		// checkpoint stands for them, segments of the index, until they are merged, and a point of each machine, for its name.
		colderReads := coldRestore(t, vault, "web")
		for kind, more := range map[string]int{"packs": 0, "points": 5, "checkpoints": 0, "repository.json": 0, "index": 4, "marks": 0} {
			if colderReads[kind] > coldReads[kind]+more {
				t.Errorf("a cold restore of the same machine beside more of others reads %s %d times, before %d", kind, colderReads[kind], coldReads[kind])
			}
		}
		if more := colderReads["log"] - coldReads["log"]; more > 10+6 { // ten copies, and the holds of restores
			t.Errorf("%d more entries of the log are read, for ten copies", more)
		}
		t.Logf("reads of a cold restore %v, beside more of others %v", coldReads, colderReads)
		verified := m.counted("verify", vault)
		t.Logf("nothing new %+v\nrestore %+v\nverify %+v", more, warmer, verified)
	}
}

// A copy of nothing new takes a handful of requests, exactly: of a plain repository its description, an entry of the log and a listing.
// An encrypted one is opened by the key file that this machine knows: that, and whether somebody has rotated the keys.
func TestRequestsOfNothingNew(t *testing.T) {
	const afterFirst, plainCopy, lookForKeys, knownKey = 5, 3, 6, 2
	source := disks(t, 1<<20, "web")
	m := newMachine(t)
	vault := shared.location(shared.bucket(t, plain))
	m.counted("copy", source, vault, "--create")
	for _, want := range []int{afterFirst, plainCopy, plainCopy} {
		if got := m.counted("copy", source, vault); got.Total != want {
			t.Errorf("of a plain repository: %+v, want %d requests", got, want)
		}
	}

	vault = shared.location(shared.bucket(t, plain))
	folder := t.TempDir()
	var keys, recipients []string
	for _, name := range []string{"first", "second"} {
		key := filepath.Join(folder, name)
		public, _ := m.run(0, "key", "generate", key)
		if err := os.WriteFile(key+".pub", []byte(public), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, recipients = append(keys, key), append(recipients, key+".pub")
	}
	copied := []string{"copy", source, vault, "--identity", keys[0]}
	m.counted(append(copied, "--create", "--encrypt", "--recipients-file", recipients[0])...)
	// It made the repository; now it finds the key: two listings, the newest list of key files and two numbers behind it, and the file.
	if got := m.counted(copied...); got.Total != afterFirst+lookForKeys {
		t.Errorf("of an encrypted repository, for the first time: %+v, want %d requests", got, afterFirst+lookForKeys)
	}
	for i := range 3 {
		if got := m.counted(copied...); got.Total != plainCopy+knownKey {
			t.Errorf("of an encrypted repository: %+v, want %d requests", got, plainCopy+knownKey)
		}
		if i == 0 { // another key costs nothing
			m.run(0, "key", "add", vault, "--identity", keys[0], "--recipients-file", recipients[1])
		}
	}
	// The key file that it knows is gone, which takes one more to see; there are two others.
	m.run(0, "key", "rotate", vault, "--identity", keys[0])
	for _, want := range []int{plainCopy + 1 + lookForKeys + 1, plainCopy + knownKey} {
		if got := m.counted(copied...); got.Total != want {
			t.Errorf("after a rotation of the keys: %+v, want %d requests", got, want)
		}
	}
}

// coldRestore counts what a machine that has not seen a repository reads to restore a machine, by the kind of file.
func coldRestore(t *testing.T, vault, machine string) map[string]int {
	t.Helper()
	var mu sync.Mutex
	reads := map[string]int{}
	p := newProxy(t, func(_ int64, r *http.Request) fault {
		if _, below, is := strings.Cut(r.URL.Path, "/vault/"); is && r.Method == http.MethodGet {
			kind, _, _ := strings.Cut(below, "/")
			mu.Lock()
			defer mu.Unlock()
			reads[kind]++
		}
		return none
	})
	bucket := strings.Split(strings.TrimPrefix(vault, "s3+http://"), "/")[1]
	newMachine(t).run(0, "restore", p.location(bucket), machine, "--to", t.TempDir())
	mu.Lock()
	defer mu.Unlock()
	if reads["packs"] == 0 || reads["log"] == 0 {
		t.Fatalf("the proxy saw %v", reads)
	}
	return reads
}
