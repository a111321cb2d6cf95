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
