//go:build scale

package repo_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/fs"
)

// Measures a mark over FERRY_SCALE_BLOCKS blocks and thirty points of each of twenty machines, in a repository made in the
// folder FERRY_SCALE_DIR: index, trees, points and log are what ferry writes, packs of blocks are holes. It needs 220 bytes of
// disk for each block. FERRY_SCALE_RESULTS names a file that gets what each step took, as a line of JSON. docs/performance.md has the figures.

const (
	scaleMachines  = 20
	scalePoints    = 30
	scaleBlock     = 128 << 10
	scaleRunOf     = 512 * 1024 // entries of a run: what is sorted in memory
	scaleCluster   = 32         // blocks that change together
	scaleIncrement = 200        // one of so many of the blocks is new in each further point
)

// scalePackOf is how many blocks a pack has: FERRY_SCALE_PACK_OF, a power of two. With fewer than there would be, the same blocks are in
// more packs, so that what a pack takes is seen by itself.
var scalePackOf = uint64(512)

// scaleBlockID is the id of block n: as good as a hash.
func scaleBlockID(n uint64) (id format.ID) {
	for i := range 4 {
		x := n*4 + uint64(i) + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(id[i*8:], x^x>>31)
	}
	return id
}

func scalePackName(number uint64) (name format.Name) {
	random := scaleBlockID(1<<60 + number)
	copy(name[:8], random[:])
	binary.BigEndian.PutUint64(name[8:], number)
	return name
}

// meter says what steps take.
type meter struct {
	t         *testing.T
	began     time.Time
	used      time.Duration
	anonymous atomic.Int64 // the most memory that is not of files, in KiB
	live      atomic.Int64 // the most that a collection of garbage left, in bytes
}

func newMeter(t *testing.T) *meter {
	m := &meter{t: t}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				m.anonymous.Store(max(m.anonymous.Load(), status("RssAnon:")))
				live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
				metrics.Read(live)
				m.live.Store(max(m.live.Load(), int64(live[0].Value.Uint64())))
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	m.reset()
	return m
}

func status(field string) int64 {
	text, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(text), field)
	kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kib
}

func (m *meter) processor() time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (m *meter) reset() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	m.anonymous.Store(0)
	m.live.Store(0)
	m.began, m.used = time.Now(), m.processor()
}

// measured is what a step took, for test/bench/scale.py.
type measured struct {
	Step      string  `json:"step"`
	Seconds   float64 `json:"seconds"`
	Processor float64 `json:"processor"` // seconds
	Peak      int64   `json:"peak"`      // bytes of memory
	Anonymous int64   `json:"anonymous"` // of them those that are not of files
	Requests  int64   `json:"requests"`  // of a distant storage
	Read      int64   `json:"read"`      // bytes
}

// step says what a step took. distant is the storage that it read, nil if it is no distant one.
func (m *meter) step(name string, distant *traffic, what string, args ...any) {
	m.anonymous.Store(max(m.anonymous.Load(), status("RssAnon:")))
	line := measured{
		Step: name, Seconds: time.Since(m.began).Seconds(), Processor: (m.processor() - m.used).Seconds(),
		Peak: status("VmHWM:") << 10, Anonymous: m.anonymous.Load() << 10,
	}
	what = fmt.Sprintf(what, args...)
	if distant != nil {
		line.Requests, line.Read = distant.requests.Swap(0), distant.read.Swap(0)
		what += fmt.Sprintf(": %d requests, %d MiB", line.Requests, line.Read>>20)
	}
	m.t.Logf("%-72s %7.1f s, processor %7.1f s, peak %5d MiB, of it not of files %5d MiB, live %6d KiB", what,
		line.Seconds, line.Processor, line.Peak>>20, line.Anonymous>>20, m.live.Load()>>10)
	if path := os.Getenv("FERRY_SCALE_RESULTS"); path != "" {
		file := must(os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600))(m.t)
		if err := errors.Join(json.NewEncoder(file).Encode(line), file.Close()); err != nil {
			m.t.Fatal(err)
		}
	}
	m.reset()
}

func TestScaleMark(t *testing.T) {
	blocks, err := strconv.ParseUint(os.Getenv("FERRY_SCALE_BLOCKS"), 10, 64)
	dir := os.Getenv("FERRY_SCALE_DIR")
	if err != nil || dir == "" || encryptAll {
		t.Skip("FERRY_SCALE_BLOCKS and FERRY_SCALE_DIR say how much and where")
	}
	if packOf, err := strconv.ParseUint(os.Getenv("FERRY_SCALE_PACK_OF"), 10, 64); err == nil {
		scalePackOf = packOf
	}
	blocks = max(scaleRunOf, blocks/scaleRunOf*scaleRunOf)
	path := filepath.Join(dir, "vault")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	store := must(fs.Open(path))(t)
	defer store.Close()
	env := repo.Environment{CacheDir: filepath.Join(dir, "cache")}
	m := newMeter(t)
	scaleMake(t, m, store, env, path, blocks)
	scaleMarkWarm(t, m, store, env, blocks)
	env.CacheDir = filepath.Join(dir, "cold")
	counting := &countingStore{Store: store}
	scaleMarkCold(t, m, counting, &counting.traffic, "cold", env, blocks)
	scaleMarkS3(t, m, dir, env, blocks)
}

// The steps are functions of their own, so that none keeps in memory what the one before had.

func scaleMake(t *testing.T, m *meter, store storage.Store, env repo.Environment, path string, blocks uint64) {
	r := must(repo.Init(t.Context(), store, env, repo.Options{BlockSize: scaleBlock}))(t)
	scaleIndex(t, r, path, blocks)
	m.step("make", nil, "%d blocks in %d packs and an index of them made", blocks, blocks/scalePackOf)
	nodes := scaleTrees(t, r, blocks)
	if err := r.WriteCheckpoint(t.Context()); err != nil { // a repository of this size has one, since it was made in more entries
		t.Fatal(err)
	}
	closeRepo(t, r)
	m.step("ingest", nil, "%d points of %d machines ingested, %d MiB of nodes", scalePoints*scaleMachines, scaleMachines, nodes>>20)
}

func scaleMarkWarm(t *testing.T, m *meter, store storage.Store, env repo.Environment, blocks uint64) {
	m.reset()
	r := must(repo.Open(t.Context(), store, env))(t)
	m.step("open", nil, "opened")
	scaleReclaim(t, r, blocks)
	closeRepo(t, r)
	m.step("mark", nil, "opened, marked and merged with the index")
}

// scaleMarkCold opens and marks with an empty cache. cold names the steps.
func scaleMarkCold(t *testing.T, m *meter, store storage.Store, distant *traffic, cold string, env repo.Environment, blocks uint64) {
	m.reset()
	r := must(repo.Open(t.Context(), store, env))(t)
	m.step("open "+cold, distant, "%s, from a distant storage: opened", cold)
	p := r.Entries()[len(r.Entries())-1]
	header := must(r.ReadHeader(t.Context(), p.ID))(t)
	for _, err := range r.Leaves(t.Context(), header.Roots[0]) {
		if err != nil {
			t.Fatal(err)
		}
	}
	m.step("trees "+cold, distant, "%s: the trees of one point of %d blocks", cold, header.Roots[0].Blocks())
	scaleReclaim(t, r, blocks)
	closeRepo(t, r)
	m.step("mark "+cold, distant, "%s: marked and merged with the index", cold)
}

// scaleReclaim marks, and checks that everything is found to be live that is.
func scaleReclaim(t *testing.T, r *repo.Repository, blocks uint64) {
	report := must(r.Reclaim(t.Context(), repo.ReclaimOptions{DryRun: true, Policy: repo.DefaultReclaimPolicy(), TempDir: os.Getenv("FERRY_SCALE_DIR")}))(t)
	// Blocks that the machines cannot share evenly are nobody's.
	if needed := blocks / scaleMachines * scaleMachines; len(report.Incomplete) > 0 || report.Use.Content != int64(needed)*scaleBlock {
		t.Errorf("%q; %d blocks are needed, not %d", report.Incomplete, report.Use.Content/scaleBlock, needed)
	}
}

// scaleIndex names the packs in the log, makes holes of their files, and writes the index: runs that are sorted in memory, merged.
func scaleIndex(t *testing.T, r *repo.Repository, path string, blocks uint64) {
	hasher := format.NewHasher(format.HashBLAKE3, [32]byte{})
	const stored = scaleBlock
	size := int64(pack.FirstFrame) + int64(scalePackOf)*(pack.FrameHeaderSize+stored) + pack.Overhead(int(scalePackOf)) - pack.FirstFrame
	perSegment := uint64(32 * scaleRunOf)
	for from := uint64(0); from < blocks; from += perSegment {
		to := min(blocks, from+perSegment)
		var runs []*index.Segment
		for at := from; at < to; at += scaleRunOf {
			entries := make([]index.Entry, scaleRunOf)
			for i := range entries {
				n := at + uint64(i)
				entries[i] = index.Entry{ID: scaleBlockID(n), Place: index.Place{
					Pack: scalePackName(n / scalePackOf), Offset: uint32(pack.FirstFrame + n%scalePackOf*(pack.FrameHeaderSize+stored)), Stored: stored, Plain: scaleBlock,
				}}
			}
			file := must(os.CreateTemp(filepath.Dir(path), "run"))(t)
			os.Remove(file.Name())
			must(file.Write(index.Build(hasher, entries)))(t)
			runs = append(runs, must(index.OpenFile(file, hasher, true))(t))
		}
		segment := commitlog.Segment{ID: format.RandomName()}
		payload := &commitlog.Payload{}
		var covered []index.Covered
		for number := from / scalePackOf; number < to/scalePackOf; number++ {
			name := scalePackName(number)
			p := commitlog.Pack{ID: name, Kind: pack.KindBlock.String(), Domain: r.Description().ID, Size: size, Frames: int(scalePackOf), Root: scaleBlockID(1<<61 + number)}
			payload.Packs = append(payload.Packs, p)
			segment.Packs = append(segment.Packs, name)
			covered = append(covered, index.Covered{Pack: name, Frames: int64(scalePackOf)})
			file := filepath.Join(path, pack.ObjectName(name))
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(segment.Packs, format.Name.Compare)
		slices.SortFunc(covered, func(a, b index.Covered) int { return a.Pack.Compare(b.Pack) })
		if err := os.MkdirAll(filepath.Join(path, "index"), 0o700); err != nil {
			t.Fatal(err)
		}
		out := must(os.Create(filepath.Join(path, "index", segment.ID.String())))(t)
		merged := must(index.Merge(t.Context(), out, hasher, runs, covered))(t)
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		for _, run := range runs {
			run.Close()
		}
		segment.Size, segment.Checksum = merged.Size, merged.Checksum
		payload.Index = []commitlog.Segment{segment}
		if err := r.AppendEntry(t.Context(), payload); err != nil {
			t.Fatal(err)
		}
	}
}

// scaleTrees ingests the points, whose blocks are there, and returns what the nodes take.
func scaleTrees(t *testing.T, r *repo.Repository, blocks uint64) int64 {
	each := blocks / scaleMachines // of a machine, in all its points
	increment := each / scaleIncrement / scaleCluster * scaleCluster
	first := each - (scalePoints-1)*increment
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	roots := make([]*tree.Root, scaleMachines)
	for point := range uint64(scalePoints) {
		for machine := range uint64(scaleMachines) {
			own := machine * each
			changes := scaleFirst(own, first)
			if point > 0 {
				changes = scaleChanged(own+first+(point-1)*increment, first, increment, rand.New(rand.NewPCG(point, machine)))
			}
			root := must(tree.BuildFixed(t.Context(), ingest, roots[machine], int64(first)*scaleBlock, scaleBlock, changes))(t)
			roots[machine] = &root
			p := onePoint(fmt.Sprint("machine", machine), fmt.Sprint("point", machine, "-", point), nil)
			p.Created = at(int(point))
			scaleCommit(t, ingest, p, root)
		}
		if err := ingest.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return ingest.Stats().NodeBytes.Load()
}

func scaleCommit(t *testing.T, ingest *repo.Ingest, p *sourcetest.Point, root tree.Root) {
	point := p.Described().Point
	point.Objects = []backup.Object{{Role: backup.RoleDisk, Name: "disk", Size: root.Size}}
	err := ingest.CommitPoint(&repo.Point{Point: point, Roots: []*tree.Root{&root}}, repo.Claim{Job: "manual", Reason: "copied by hand"}, nil, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scaleFirst are count blocks from own on, in order.
func scaleFirst(own, count uint64) iter.Seq2[tree.Change, error] {
	return func(yield func(tree.Change, error) bool) {
		for n := range count {
			if !yield(tree.Change{Block: int64(n), ID: scaleBlockID(own + n)}, nil) {
				return
			}
		}
	}
}

// scaleChanged puts the blocks from fresh on at random places of a disk, in clusters.
func scaleChanged(fresh, disk, count uint64, random *rand.Rand) iter.Seq2[tree.Change, error] {
	var clusters []uint64
	for _, cluster := range random.Perm(int(disk / scaleCluster))[:count/scaleCluster] {
		clusters = append(clusters, uint64(cluster))
	}
	slices.Sort(clusters)
	return func(yield func(tree.Change, error) bool) {
		for _, cluster := range clusters {
			for i := range uint64(scaleCluster) {
				if !yield(tree.Change{Block: int64(cluster*scaleCluster + i), ID: scaleBlockID(fresh)}, nil) {
					return
				}
				fresh++
			}
		}
	}
}
