//go:build integration

package s3

import (
	"fmt"
	"os"
	"path/filepath"
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
		verified := m.counted("verify", vault)
		t.Logf("nothing new %+v\nrestore %+v\nverify %+v", more, warmer, verified)
	}
}
