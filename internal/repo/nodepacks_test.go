package repo_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// distantStore is a store with round trips, which counts the reads of packs but for their headers and tables.
type distantStore struct {
	*memory.Store
	mu    sync.Mutex
	reads map[string]int
	// company, if set, is how many reads of packs must be under way at once before any goes on, the first time.
	company int
	here    int
	met     chan struct{}
}

func newDistant(store *memory.Store) *distantStore {
	return &distantStore{Store: store, reads: map[string]int{}, met: make(chan struct{})}
}

func (s *distantStore) ParallelReads() int { return 8 }

func (s *distantStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	reader, err := s.Store.Open(ctx, name)
	return &distantReader{reader, s, name}, err
}

func (s *distantStore) read(name string) {
	if !strings.HasPrefix(name, "packs/") {
		return
	}
	s.mu.Lock()
	s.reads[name]++
	s.here++
	if s.company > 0 && s.here == s.company {
		close(s.met)
	}
	wait := s.company > 0
	s.mu.Unlock()
	if wait {
		select {
		case <-s.met:
		case <-time.After(20 * time.Second): // the test fails by what it counts
		}
	}
}

type distantReader struct {
	storage.Reader
	store *distantStore
	name  string
}

func (r *distantReader) ReadAt(p []byte, off int64) (int, error) {
	if off < r.Size()/2 && off+int64(len(p)) > pack.FirstFrame { // neither its header nor its table
		r.store.read(r.name)
	}
	return r.Reader.ReadAt(p, off)
}

// manyNodes is a repository with many packs of nodes: four states of three machines, each of which shares most with the
// one before.
func manyNodes(t *testing.T) *memory.Store {
	t.Helper()
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	r.SetPackTargets(64<<10, 12<<10)
	for m := range 3 {
		data := content(uint64(m), 1500*smallBlock)
		for i := range 4 {
			p := onePoint(fmt.Sprint("m", m), fmt.Sprint("p", m, i), data)
			p.Created = at(10*i + m)
			mustCopyAll(t, r, p)
			data = changed(data, uint64(100+10*m+i), len(data))
		}
	}
	return store
}

// nodePackNames are the files of packs of nodes.
func nodePackNames(r *repo.Repository) map[string]bool {
	names := map[string]bool{}
	for id, p := range r.State().Packs.All() {
		if p.Kind == pack.KindNode.String() {
			names[pack.ObjectName(id)] = true
		}
	}
	return names
}

// Where each read is a round trip, a mark reads each pack of nodes once, as a whole, several at a time, and no other, also with less
// memory than they take. Without a place for those that make room some are read again, and what it finds is the same.
func TestMarkReadsPacksOfNodesWhole(t *testing.T) {
	store := manyNodes(t)
	local := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, local)
	temp := t.TempDir()
	policy := repo.ReclaimOptions{DryRun: true, Policy: repo.DefaultReclaimPolicy(), TempDir: temp}
	want := must(local.Reclaim(t.Context(), policy))(t).Use
	nodes := nodePackNames(local)
	if len(nodes) < 12 {
		t.Fatalf("%d packs of nodes", len(nodes))
	}
	for _, c := range []struct {
		name  string
		limit int64 // of memory
		temp  string
		least int // reads of all packs
		most  int
	}{
		{"enough memory", 64 << 20, temp, len(nodes), len(nodes)},
		{"little memory", 48 << 10, temp, len(nodes), len(nodes)},
		{"little memory and no file", 48 << 10, filepath.Join(temp, "none"), len(nodes) + 1, 4 * len(nodes)},
		{"less than a pack", 1 << 10, temp, len(nodes), 1 << 30},
	} {
		policy.TempDir = c.temp
		distant := newDistant(store)
		r := must(openSmall(t.Context(), distant, newCache(t)))(t)
		r.SetNodePacksLimit(c.limit)
		must(r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelStored}))(t) // the index is proven, and here
		clear(distant.reads)
		if c.limit > 1<<20 {
			distant.company, distant.here = 4, 0
		}
		got := must(r.Reclaim(t.Context(), policy))(t).Use
		total := 0
		for name, reads := range distant.reads {
			total += reads
			if !nodes[name] {
				t.Errorf("%s: %s was read, which has no nodes", c.name, name)
			}
		}
		got.At = want.At
		if got != want || total < c.least || total > c.most || len(distant.reads) != len(nodes) {
			t.Errorf("%s: %d reads of %d packs of nodes of %d, want %d to %d; found %+v, want %+v", c.name, total, len(distant.reads), len(nodes), c.least, c.most, got, want)
		}
		if c.limit > 1<<20 {
			select {
			case <-distant.met:
			default:
				t.Errorf("%s: fewer than %d reads at once", c.name, distant.company)
			}
		}
		closeRepo(t, r)
	}
	if left := must(os.ReadDir(temp))(t); len(left) > 0 {
		t.Errorf("%d files are left of %v", len(left), left)
	}
}

// A pack of nodes that is damaged, or cannot be read whole, is read node by node: what can be followed is, and the rest is
// named.
func TestMarkOfDamagedPacksOfNodes(t *testing.T) {
	store := manyNodes(t)
	local := must(openSmall(t.Context(), store, newCache(t)))(t)
	names := nodePackNames(local)
	closeRepo(t, local)
	policy := repo.ReclaimOptions{DryRun: true, Policy: repo.DefaultReclaimPolicy(), TempDir: t.TempDir()}
	for name := range names {
		tamper(t, store, name, func(raw []byte) []byte { raw[64+96+10] ^= 4; return raw }) // its first node
		break
	}
	var reports []*repo.ReclaimReport
	for _, s := range []storage.Store{store, newDistant(store)} {
		r := must(openSmall(t.Context(), s, newCache(t)))(t)
		reports = append(reports, must(r.Reclaim(t.Context(), policy))(t))
		closeRepo(t, r)
	}
	if here, there := reports[0], reports[1]; len(here.Incomplete) == 0 || fmt.Sprint(here.Incomplete) != fmt.Sprint(there.Incomplete) {
		t.Errorf("from a local storage: %q\nfrom a distant one: %q", here.Incomplete, there.Incomplete)
	}
}

var _ storage.Distant = (*distantStore)(nil)
