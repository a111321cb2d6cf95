package mover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// holes makes a copy in which every few grains are zeros, and the end is too.
func holes(data []byte) []byte {
	data = slices.Clone(data)
	for at := source.SinkGrain; at < len(data); at += 3 * source.SinkGrain {
		clear(data[at:min(at+source.SinkGrain, len(data))])
	}
	return data
}

func orders() map[string]func([]sourcetest.Piece) {
	random := rand.New(rand.NewPCG(3, 4))
	return map[string]func([]sourcetest.Piece){
		"in order": func([]sourcetest.Piece) {},
		"reversed": slices.Reverse[[]sourcetest.Piece],
		"shuffled": func(p []sourcetest.Piece) { random.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] }) },
		"even before odd": func(p []sourcetest.Piece) {
			slices.SortStableFunc(p, func(a, b sourcetest.Piece) int {
				return int(a.Offset/source.SinkGrain%2) - int(b.Offset/source.SinkGrain%2)
			})
		},
		"zeros last": func(p []sourcetest.Piece) {
			slices.SortStableFunc(p, func(a, b sourcetest.Piece) int { return btoi(a.Zero) - btoi(b.Zero) })
		},
		"zeros first": func(p []sourcetest.Piece) {
			slices.SortStableFunc(p, func(a, b sourcetest.Piece) int { return btoi(b.Zero) - btoi(a.Zero) })
		},
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestPiecesInAnyOrder(t *testing.T) {
	for blockSize := 4 << 10; blockSize <= 4<<20; blockSize *= 4 {
		for what, order := range orders() {
			for _, hide := range []bool{false, true} {
				for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 640 << 10, 700<<10 + 77} {
					data := holes(noise(uint64(size), size))
					first, second := streamed("sda", data), streamed("sdb", holes(noise(5, 300<<10)))
					first.HideSize, second.HideSize = hide, hide
					tail := streamed("zeros", make([]byte, 200<<10))
					tail.HideSize = hide
					p := point(fmt.Sprint(what, hide, size, blockSize), first, second, tail)
					p.Reorder = order
					r, _ := newRepository(t, blockSize)
					if _, err := copyPoints(t.Context(), r, p); err != nil {
						t.Fatalf("%s: %v", p.Native, err)
					}
					wantStored(t, r, p)
				}
			}
		}
		if testing.Short() {
			break
		}
	}
}

// Where there is no room to remember which parts of a block came, it waits for the end of its object, and nothing else changes. The
// first object takes all the room here.
func TestPiecesWithoutRoom(t *testing.T) {
	for what, order := range orders() {
		for _, hide := range []bool{false, true} {
			objects := []sourcetest.Object{streamed("sda", holes(noise(1, 300<<10))), streamed("sdb", holes(noise(2, 700<<10+77))), streamed("sdc", make([]byte, 200<<10))}
			for i := range objects {
				objects[i].HideSize = hide
			}
			p := point(fmt.Sprint(what, hide), objects...)
			p.Reorder = order
			r, _ := newRepository(t, 256<<10)
			if _, err := copyAll(t.Context(), r, Options{Job: "manual", AtOnce: givenPages}, p); err != nil {
				t.Fatalf("%s: %v", p.Native, err)
			}
			wantStored(t, r, p)
		}
	}
}

// heldByStreams is how many bytes four streams at once hold, of machines with 24 disks each, when all of it was given and nothing
// was ended.
func heldByStreams(t *testing.T, blockSize int, give func(sink source.Sink, disk int) error) int64 {
	t.Helper()
	const atOnce, disks = 4, 24
	live := func() int64 {
		runtime.GC()
		runtime.GC() // what pools have is kept through one
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	r, _ := newRepository(t, blockSize)
	ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := New(ingest, Options{Job: "manual", AtOnce: atOnce})
	before := live()
	var work, full, looked sync.WaitGroup
	full.Add(atOnce)
	looked.Add(1)
	for n := range atOnce {
		var objects []sourcetest.Object
		for i := range disks {
			objects = append(objects, sourcetest.Object{Name: fmt.Sprint("sd", i), Size: 2 << 40, Access: source.AccessOnePass})
		}
		p := point(fmt.Sprint("p", n), objects...)
		p.Machine = sourcetest.Machine(p.Native)
		p.OnStream = func(_ context.Context, sink source.Sink) error {
			defer looked.Wait()
			defer full.Done()
			for i := range disks {
				if err := give(sink, i); err != nil {
					t.Error(err)
				}
			}
			return errors.New("given")
		}
		work.Go(func() {
			if err := m.Copy(t.Context(), p.Described(), func(Result, error) {}); err == nil {
				t.Error("it was copied")
			}
		})
	}
	full.Wait()
	held := live() - before
	looked.Done()
	work.Wait()
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return held
}

// Streams at once, each in an order that is the worst for what must be remembered, hold together what one may: half blocks, which
// parts came, and the ids of blocks, of all disks.
func TestMemoryOfStreamsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("short: under the race detector memory is held otherwise, and it takes minutes")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // what is on its way through workers is held besides, more with each processor
	const grain, page = source.SinkGrain, bitmapWords * 64 * source.SinkGrain
	half := noise(1, grain)
	held := heldByStreams(t, 128<<10, func(sink source.Sink, disk int) error {
		for at := int64(0); at < 2<<40; at += page { // a cluster in each page
			if err := sink.Zero(disk, at, grain); err != nil {
				return err
			}
		}
		for k := range int64(32) {
			if err := sink.Data(disk, (1000+2*k)*grain, half); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d MiB held of half blocks", held>>20)
	// What waits in memory, and pages.
	if limit := int64(waitingBytes + givenPages<<12 + 24<<20); held > limit {
		t.Errorf("%d MiB are held of half blocks", held>>20)
	}
	zeros := make([]byte, 16*grain)
	held = heldByStreams(t, 4<<10, func(sink source.Sink, disk int) error {
		for k := range int64(80) { // 256 ids each time
			if err := sink.Data(disk, k*16*grain, zeros); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d MiB held of ids", held>>20)
	if held > 48<<20 {
		t.Errorf("%d MiB are held of ids", held>>20)
	}
}

// A one-pass object gives all of its content: nothing of an ancestor may show through where it gives zeros or nothing.
func TestOnePassWithAncestor(t *testing.T) {
	r, _ := newRepository(t, 64<<10)
	old := point("old", streamed("sda", noise(1, 1<<20)))
	now := point("new", streamed("sda", make([]byte, 1<<20)))
	copy(now.Objects[0].Data, old.Objects[0].Data[:128<<10])
	now.Base = old
	silent := point("silent", streamed("sda", now.Objects[0].Data))
	silent.Base = old
	silent.OnStream = func(_ context.Context, sink source.Sink) error {
		err := sink.Data(0, 0, now.Objects[0].Data[:128<<10])
		return errors.Join(err, sink.End(0, 1<<20))
	}
	if _, err := copyPoints(t.Context(), r, old, now, silent); err != nil {
		t.Fatal(err)
	}
	wantStored(t, r, now)
	wantStored(t, r, silent)
}

// Sinks are given what hostile files say. Nothing of it may panic, or be stored as if it were whole.
func TestStreamsThatBreakTheRules(t *testing.T) {
	piece := noise(1, 64<<10)
	for what, stream := range map[string]func(source.Sink) error{
		"data behind the end":      func(s source.Sink) error { return s.Data(0, 1<<20, piece) },
		"data across the end":      func(s source.Sink) error { return s.Data(0, 192<<10, piece) },
		"data before the start":    func(s source.Sink) error { return s.Data(0, -64<<10, piece) },
		"data at the end of all":   func(s source.Sink) error { return s.Data(0, 1<<63-64<<10, piece) },
		"data not aligned":         func(s source.Sink) error { return s.Data(0, 4096, piece) },
		"zeros behind the end":     func(s source.Sink) error { return s.Zero(0, 64<<10, 1<<20) },
		"zeros of negative length": func(s source.Sink) error { return s.Zero(0, 64<<10, -1<<20) },
		"zeros of every byte":      func(s source.Sink) error { return s.Zero(0, 64<<10, 1<<63-1) },
		"zeros of a stream":        func(s source.Sink) error { return s.Zero(2, 0, 64<<10) },
		"an object that is none":   func(s source.Sink) error { return s.Data(7, 0, piece) },
		"no object":                func(s source.Sink) error { return s.Data(-1, 0, piece) },
		"an inline object":         func(s source.Sink) error { return s.Data(3, 0, piece) },
		"another size than said":   func(s source.Sink) error { return s.End(0, 5) },
		"ended twice":              func(s source.Sink) error { return errors.Join(s.End(1, 0), s.End(1, 0)) },
		"data behind its own end":  func(s source.Sink) error { return errors.Join(s.End(1, 0), s.Data(1, 0, piece)) },
		"shorter than its data":    func(s source.Sink) error { return errors.Join(s.Data(1, 128<<10, piece[:9]), s.End(1, 64<<10)) },
		"a stream of other length": func(s source.Sink) error { return errors.Join(s.Data(2, 0, piece), s.End(2, 5)) },
		"nothing at all":           nil,
		"one half of a block":      func(s source.Sink) error { return s.Data(0, 0, piece) },
	} {
		disk, unknown := streamed("known", make([]byte, 200<<10)), streamed("unknown", nil)
		unknown.HideSize = true
		tar := sourcetest.Object{Name: "tar", Access: source.AccessOnePass, Shifting: true, HideSize: true, Role: backup.RoleArchive}
		p := point("p", disk, unknown, tar, sourcetest.Object{Name: "conf", Role: backup.RoleConfiguration, Data: []byte("x")})
		p.OnStream = func(_ context.Context, sink source.Sink) error {
			if stream == nil {
				return nil
			}
			return stream(sink)
		}
		r, _ := newRepository(t, 128<<10)
		if _, err := copyPoints(t.Context(), r, p); err == nil || r.Has(p.ID()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Memory does not depend on the size of a disk. The test runs in a process of its own, so that nothing else counts.
func TestMemoryOfHugeDisks(t *testing.T) {
	for _, shape := range []string{"reverse", "random"} {
		if os.Getenv("FERRY_MEMORY_TEST") == shape {
			hugeDisk(t, shape)
			return
		}
	}
	if os.Getenv("FERRY_MEMORY_TEST") != "" {
		return
	}
	for _, shape := range []string{"reverse", "random"} {
		command := exec.Command(os.Args[0], "-test.run=^TestMemoryOfHugeDisks$", fmt.Sprintf("-test.short=%v", testing.Short()))
		// What is on its way through workers is held besides, more with each processor.
		command.Env = append(os.Environ(), "FERRY_MEMORY_TEST="+shape, "GOMAXPROCS=4")
		output, err := command.CombinedOutput()
		t.Logf("%s: %s", shape, output)
		if err != nil {
			t.Errorf("%s: %v", shape, err)
		}
	}
}

const heapLimit = 250 << 20

// hugeDisk copies a disk whose clusters come in an order that is the worst for what must be remembered.
func hugeDisk(t *testing.T, shape string) {
	const grain = source.SinkGrain
	clusters := int64(2<<40) / grain
	if shape == "random" {
		clusters = 8192 // half a GiB of blocks that are never whole until the second half comes
	}
	if testing.Short() {
		clusters /= 16
	}
	isData := func(n int64) bool { return shape == "random" || n%50_000 == 17 }
	cluster := func(buffer []byte, n int64) []byte {
		binary.LittleEndian.PutUint64(buffer[n%1000*8:], uint64(n)+1)
		return buffer
	}
	peak := uint64(0)
	look := func() {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		peak = max(peak, stats.HeapInuse)
	}
	p := point("huge", sourcetest.Object{Name: "sda", Size: clusters * grain, Access: source.AccessOnePass})
	p.OnStream = func(_ context.Context, sink source.Sink) error {
		random := rand.New(rand.NewPCG(1, 1))
		order := func(i int64) int64 { return clusters - 1 - i }
		if shape == "random" {
			halves := random.Perm(int(clusters / 2))
			others := random.Perm(int(clusters / 2))
			order = func(i int64) int64 {
				if i < clusters/2 {
					return int64(halves[i]) * 2
				}
				return int64(others[i-clusters/2])*2 + 1
			}
		}
		buffer := make([]byte, grain)
		for i := range clusters {
			if i%(clusters/64) == 0 {
				look()
			}
			n := order(i)
			if !isData(n) {
				if err := sink.Zero(0, n*grain, grain); err != nil {
					return err
				}
				continue
			}
			clear(buffer)
			if err := sink.Data(0, n*grain, cluster(buffer, n)); err != nil {
				return err
			}
		}
		look()
		return sink.End(0, clusters*grain)
	}
	r, _ := newRepository(t, 128<<10)
	if _, err := copyPoints(t.Context(), r, p); err != nil {
		t.Fatal(err)
	}
	look()
	stored, err := r.ReadPoint(t.Context(), p.ID())
	if err != nil {
		t.Fatal(err)
	}
	want, got := int64(0), atomic.Int64{}
	for n := range clusters {
		want += int64(btoi(isData(n)))
	}
	err = r.ReadObject(t.Context(), *stored.Roots[0], repotest.EachBlock(func(b repo.Block, plain []byte) error {
		found := int64(0)
		for at := int64(0); at < int64(len(plain)); at += grain {
			n := (b.Offset + at) / grain
			if isData(n) && binary.LittleEndian.Uint64(plain[at+n%1000*8:]) == uint64(n)+1 {
				found++
			}
		}
		got.Add(found)
		return nil
	}), func(int64) {})
	if err != nil || got.Load() != want || stored.Roots[0].Size != clusters*grain {
		t.Fatalf("%d clusters of %d, %d bytes: %v", got.Load(), want, stored.Roots[0].Size, err)
	}
	look()
	fmt.Printf("%d clusters, peak heap %d MiB\n", clusters, peak>>20)
	if peak > heapLimit {
		t.Errorf("peak heap of %d MiB", peak>>20)
	}
}
