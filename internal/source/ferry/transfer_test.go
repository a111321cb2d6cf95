package ferry_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"filippo.io/age"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/fs"
)

// squeezable is machine with content that a codec makes smaller.
func squeezable() (first, second *sourcetest.Point) {
	first, second = machine()
	for _, p := range []*sourcetest.Point{first, second} {
		for i := range 2 {
			data := p.Objects[i].Data
			for at := 0; at+block <= len(data); at += block {
				if data[at+2] != 0 { // of a block that is not zeros, the second half repeats the first byte
					copy(data[at+block/2:at+block], bytes.Repeat(data[at:at+1], block/2))
				}
			}
		}
	}
	return first, second
}

// identity opens the encrypted repositories of these tests.
var identity = sync.OnceValue(func() *age.X25519Identity {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return identity
})

// keys are asked once.
type keys struct{}

func (keys) Identities(_ context.Context, request repo.KeyRequest) ([]age.Identity, error) {
	if request.Try > 0 {
		return nil, nil
	}
	return []age.Identity{identity()}, nil
}

var withKeys = repo.Environment{Keys: keys{}}

// opened opens the repository in dir, or makes it.
func opened(t *testing.T, dir string, options repo.Options) *repo.Repository {
	t.Helper()
	store, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r, err := repo.Open(t.Context(), store, withKeys)
	if err != nil {
		r, err = repo.Init(t.Context(), store, withKeys, options)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// encrypted makes an encrypted repository that identity opens, of keys of its own.
func encrypted() repo.Options {
	return repo.Options{BlockSize: block, Encrypt: []repo.KeyRecipient{{To: identity().Recipient(), PublicKey: identity().Recipient().String()}}}
}

// openWithKeys opens a repository as a source.
func openWithKeys(t *testing.T, dir string) *registry.Source {
	t.Helper()
	from, err := registry.Open(t.Context(), dir, registry.Options{Formats: []source.Format{ferry.Format{Environment: withKeys}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	return from
}

// copyWith copies all points into the repository in dir and returns the report.
func copyWith(t *testing.T, from *registry.Source, dir string, codec mover.Codec, options repo.Options) job.Report {
	t.Helper()
	r := opened(t, dir, options)
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	report, err := job.Copy(t.Context(), from, r, plan.Make(points, r.Has, plan.Request{All: true}), job.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	if verified, err := r.Verify(t.Context(), nil); err != nil || len(verified.Damage) > 0 {
		t.Errorf("verify: %+v, %v", verified, err)
	}
	return report
}

func packFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "packs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// packBytes is the size of a repository's packs.
func packBytes(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, file := range packFiles(t, dir) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

func sum(report job.Report, of func(mover.Result) int64) (n int64) {
	for _, step := range report.Steps {
		n += of(step.Result)
	}
	return n
}

func newBlocks(r mover.Result) int64 { return r.NewBlocks }
func whole(r mover.Result) int64     { return r.Whole }

// Between repositories with equal ids frames go over as they are, each block is read once, and no more is read than that.
func TestFramesGoOverAsTheyAre(t *testing.T) {
	first, second := squeezable()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyWith(t, sourcetest.Open(t, first, second), a, mover.CodecS2, repo.Options{BlockSize: block})
	from := open(t, a)
	listed := from.Root.BytesRead()
	report := copyWith(t, from, b, mover.CodecAuto, repo.Options{BlockSize: block})
	if n := sum(report, newBlocks); n == 0 || sum(report, whole) != n || report.Failed() > 0 {
		t.Errorf("%d of %d new blocks went over as they are, %d points failed", sum(report, whole), n, report.Failed())
	}
	if read, all := from.Root.BytesRead()-listed, packBytes(t, a); read > all+all/10 {
		t.Errorf("%d bytes were read of a repository of %d", read, all)
	}
	if report.Stored+report.Nodes > packBytes(t, a) {
		t.Errorf("%d bytes were stored where the source has %d", report.Stored+report.Nodes, packBytes(t, a))
	}
	sources, copies := from, open(t, b)
	for i, p := range copies.Points {
		if len(p.Hops) != 1 || p.ID != sources.Points[i].ID {
			t.Errorf("point %d: %+v", i, p.Point)
		}
		for k, data := range contents(t, p) {
			if want := []*sourcetest.Point{first, second}[i].Objects[k].Data; !bytes.Equal(data, want) {
				t.Errorf("point %d: object %d differs", i, k)
			}
		}
	}
	// The trees are the source's own: the roots say so.
	for i := range copies.Points {
		if !bytes.Equal(validator(t, sources.Points[i]), validator(t, copies.Points[i])) {
			t.Errorf("point %d has other trees in the copy", i)
		}
	}
}

func validator(t *testing.T, p source.Point) []byte {
	t.Helper()
	content, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	return content.Validator()
}

// A codec that is asked for by name is what new blocks have then, whatever the source has.
func TestFramesAreEncodedAnewForACodec(t *testing.T) {
	first, second := squeezable()
	dir := t.TempDir()
	a := filepath.Join(dir, "a")
	copyWith(t, sourcetest.Open(t, first, second), a, mover.CodecS2, repo.Options{BlockSize: block})
	for _, c := range []struct {
		codec mover.Codec
		whole bool
	}{{mover.CodecNone, false}, {mover.CodecZstd, false}, {mover.CodecS2, true}} {
		to := filepath.Join(dir, string(c.codec))
		report := copyWith(t, open(t, a), to, c.codec, repo.Options{BlockSize: block})
		n, over := sum(report, newBlocks), sum(report, whole)
		if report.Failed() > 0 || n == 0 || c.whole && over < n/2 || !c.whole && over > n/2 {
			t.Errorf("%s: %d of %d blocks went over as they are, %d points failed", c.codec, over, n, report.Failed())
		}
	}
}

// What is damaged in the source does not go over: the checksum is looked at, and the id computed.
func TestDamagedFramesDoNotGoOver(t *testing.T) {
	first, _ := squeezable()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyWith(t, sourcetest.Open(t, first), a, mover.CodecS2, repo.Options{BlockSize: block})
	var largest string
	var size int64
	files, _ := filepath.Glob(filepath.Join(a, "packs", "*", "*"))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Size() > size {
			largest, size = file, info.Size()
		}
	}
	raw, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	raw[64+96+1000] ^= 1 // in the first frame's content
	if err := os.WriteFile(largest, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	report := copyWith(t, open(t, a), b, mover.CodecAuto, repo.Options{BlockSize: block})
	step := report.Steps[0]
	if report.Failed() != 1 || !errors.Is(step.Err, backup.ErrDamaged) {
		t.Fatalf("%d failed: %v", report.Failed(), step.Err)
	}
}

// Where both have the same data key, encrypted frames go over as they are, salts and counters included. Where the target has
// another key or none, they are proven by their ids and encrypted anew, or not at all.
func TestEncryptedFramesGoOverToWhoHasTheKey(t *testing.T) {
	first, second := squeezable()
	dir := t.TempDir()
	a, b, plain := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "plain")
	opened(t, a, encrypted())
	if err := os.CopyFS(b, os.DirFS(a)); err != nil { // a twin: the same keys
		t.Fatal(err)
	}
	copyWith(t, sourcetest.Open(t, first, second), a, mover.CodecS2, repo.Options{})
	for _, c := range []struct {
		to      string
		options repo.Options
		whole   bool
	}{{b, repo.Options{}, true}, {plain, repo.Options{BlockSize: block}, false}, {filepath.Join(dir, "other"), encrypted(), false}} {
		report := copyWith(t, openWithKeys(t, a), c.to, mover.CodecAuto, c.options)
		if n, over := sum(report, newBlocks), sum(report, whole); report.Failed() > 0 || n == 0 || (over == n) != c.whole || over > 0 && !c.whole {
			t.Errorf("%s: %d of %d blocks went over as they are, %d points failed", c.to, over, n, report.Failed())
		}
		for i, p := range openWithKeys(t, c.to).Points {
			for k, data := range contents(t, p) {
				if want := []*sourcetest.Point{first, second}[i].Objects[k].Data; !bytes.Equal(data, want) {
					t.Errorf("%s: point %d: object %d differs", c.to, i, k)
				}
			}
		}
	}
}

// What several takers read lies in the copy as it lay in the source: a restore of the copy makes few more reads than of the source.
func TestWhatGoesOverLiesInOrder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	const size = 64 << 20 // two leaves of blocks of 128 KiB
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(data)
	p := &sourcetest.Point{Machine: sourcetest.Machine("m"), Native: "1", Objects: []sourcetest.Object{
		{Name: "vda", Data: data, Access: source.AccessRandom}, {Name: "vdb", Data: data[:size/2], Access: source.AccessRandom},
	}}
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	copyWith(t, sourcetest.Open(t, p), a, mover.CodecNone, repo.Options{BlockSize: 128 << 10})
	copyWith(t, open(t, a), b, mover.CodecAuto, repo.Options{BlockSize: 128 << 10})
	withKeys := encrypted()
	withKeys.BlockSize = 128 << 10
	copyWith(t, openWithKeys(t, a), c, mover.CodecAuto, withKeys)
	for _, dir := range []string{b, c} {
		found, err := opened(t, dir, repo.Options{}).Analyze(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if of := found.Fragmentation[0]; of.Blocks != (size+size/2)>>17 || of.Runs > of.InOrder*4/3 {
			t.Errorf("a restore reads %d blocks in %d reads, in order it would be %d", of.Blocks, of.Runs, of.InOrder)
		} else {
			t.Logf("%d reads, in order %d", of.Runs, of.InOrder)
		}
	}
}
