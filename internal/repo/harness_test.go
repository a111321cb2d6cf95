package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp(scratchParent(), "ferry-repo-test-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	repo.SetPassphraseWork(2)
	code := m.Run()
	if code == 0 {
		encryptAll = true // what holds of a repository holds of an encrypted one
		fmt.Println("again, encrypted:")
		code = m.Run()
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// scratchParent is in memory, where there is plenty: thousands of caches, whose files are synced, else make the tests wait for the disk.
// What they do on a disk is tested where they are (internal/cachefile) and with the program itself.
func scratchParent() string {
	const memory, plenty = "/dev/shm", 2 << 30
	var free unix.Statfs_t
	if unix.Statfs(memory, &free) != nil || free.Type != unix.TMPFS_MAGIC || free.Bavail*uint64(free.Bsize) < plenty {
		return ""
	}
	return memory
}

// scratch is removed when all tests are done: a cache for each of thousands of runs is too many for t.TempDir.
var scratch string

// encryptAll makes initialized make encrypted repositories.
var encryptAll bool

// encryptedOptions makes an encrypted repository that testIdentity opens.
func encryptedOptions(options repo.Options) repo.Options {
	identity := testIdentity()
	options.Encrypt = []repo.KeyRecipient{{To: identity.Recipient(), PublicKey: identity.Recipient().String(), Label: "tests"}}
	return options
}

var testIdentity = sync.OnceValue(newIdentity)

func newIdentity() *age.X25519Identity {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return identity
}

// identities are a source of keys that has them, and is asked once.
type identities []age.Identity

func (i identities) Identities(_ context.Context, request repo.KeyRequest) ([]age.Identity, error) {
	if request.Try > 0 {
		return nil, nil
	}
	return i, nil
}

const (
	smallBlock = 4 << 10
	smallPack  = 24 << 10
)

func newCache(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "cache-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// must returns a value that an error keeps a test from going on without.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// initialized is a store with an empty repository of small blocks.
func initialized(t testing.TB, options repo.Options) *memory.Store {
	t.Helper()
	store := memory.New()
	if options.BlockSize == 0 {
		options.BlockSize = smallBlock
	}
	if encryptAll {
		options = encryptedOptions(options)
	}
	r := must(repo.Init(t.Context(), store, repo.Environment{}, options))(t)
	closeRepo(t, r)
	return store
}

func closeRepo(t testing.TB, r *repo.Repository) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// openSmall opens a repository as a new process does, with small packs.
func openSmall(ctx context.Context, store storage.Store, cache string) (*repo.Repository, error) {
	r, err := repo.Open(ctx, store, repo.Environment{CacheDir: cache, Keys: identities{testIdentity()}})
	if err == nil {
		r.SetPackTargets(smallPack, smallPack)
	}
	return r, err
}

// copyAll copies every point that is not there, as ferry copy --all does.
func copyAll(ctx context.Context, r *repo.Repository, from *registry.Source) (job.Report, error) {
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	return job.Copy(ctx, from, r, plan.Make(points, r.Has, plan.Request{All: true}), job.Options{Codec: mover.CodecAuto})
}

// mustCopyAll copies every point and fails the test unless all of them are there then.
func mustCopyAll(t testing.TB, r *repo.Repository, points ...*sourcetest.Point) job.Report {
	t.Helper()
	report, err := copyAll(context.Background(), r, sourcetest.Open(t, points...))
	err = errors.Join(err, stepErrors(report))
	if err != nil {
		t.Fatalf("copy: %v", err)
	}
	for _, p := range points {
		if !r.Has(p.ID()) {
			t.Fatalf("point %s is not there after a copy without error", p.Native)
		}
	}
	return report
}

func stepErrors(report job.Report) error {
	var errs []error
	for _, step := range report.Steps {
		errs = append(errs, step.Err)
	}
	return errors.Join(errs...)
}

// compare returns an error unless the repository's point is the source's, byte for byte.
func compare(ctx context.Context, r *repo.Repository, want *sourcetest.Point) error {
	p, err := r.ReadPoint(ctx, want.ID())
	if err != nil {
		return err
	}
	if p.ID != want.ID() || !p.Created.Equal(want.Created) || p.Machine.Name != want.Machine.Name || len(p.Objects) != len(want.Objects) {
		return fmt.Errorf("%s: described otherwise: %+v", want.Native, p.Point)
	}
	for i, o := range want.Objects {
		content, err := repotest.ReadObject(ctx, r, p, i)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", want.Native, o.Name, err)
		}
		if p.Objects[i].Name != o.Name || !bytes.Equal(content, o.Data) {
			return &wrongBytes{fmt.Sprintf("%s: %s: %d bytes read, %d stored, not equal", want.Native, o.Name, len(content), len(o.Data))}
		}
	}
	return nil
}

// wrongBytes is the one thing that must never happen.
type wrongBytes struct{ what string }

func (w *wrongBytes) Error() string { return w.what }

// check fails the test unless the repository verifies clean, holds whole points only, and those with content as given.
func check(t testing.TB, r *repo.Repository, points ...*sourcetest.Point) {
	t.Helper()
	ctx := context.Background()
	report, err := r.Verify(ctx, nil)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	for _, d := range report.Damage {
		t.Errorf("damage: %+v", d)
	}
	listed := 0
	for _, p := range points {
		if !r.Has(p.ID()) {
			continue
		}
		listed++
		if err := compare(ctx, r, p); err != nil {
			t.Errorf("listed and not whole: %v", err)
		}
	}
	if listed != len(r.Entries()) {
		t.Errorf("%d points are listed, %d of them known", len(r.Entries()), listed)
	}
}

// content makes bytes that look random, the same for the same seed, with zero regions.
func content(seed uint64, size int) []byte {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7})
	data := make([]byte, size)
	_, _ = random.Read(data)
	for at := 0; at+smallBlock < size; at += 5 * smallBlock {
		clear(data[at:min(at+smallBlock+700, size)])
	}
	return data
}

// changed returns a copy with some bytes changed and the size given.
func changed(data []byte, seed uint64, size int) []byte {
	next := content(seed, size)
	copy(next, data)
	for i := range 3 {
		at := (int(seed)*7919 + i*size/3) % max(size-40, 1)
		copy(next[at:], content(seed+uint64(i)+100, 40))
	}
	return next
}

func at(hour int) time.Time { return time.Date(2026, 3, 1, hour, 0, 0, 5, time.UTC) }

// threeMachines returns points of three machines: of both shapes, with increments, growing and shrinking disks.
func threeMachines() []*sourcetest.Point {
	disk := func(name string, data []byte) sourcetest.Object {
		return sourcetest.Object{Name: name, Data: data, Access: source.AccessRandom}
	}
	stream := func(name string, data []byte, hide bool) sourcetest.Object {
		return sourcetest.Object{Name: name, Data: data, Access: source.AccessOnePass, HideSize: hide}
	}
	config := sourcetest.Object{Role: backup.RoleConfiguration, Name: "machine.conf", Data: []byte("cores: 2\n")}
	web, db, box := sourcetest.Machine("web"), sourcetest.Machine("db"), sourcetest.Machine("box")
	vda, vdb := content(1, 30*smallBlock+123), content(2, 9*smallBlock)
	web1 := &sourcetest.Point{Machine: web, Native: "web1", Created: at(1), Objects: []sourcetest.Object{disk("vda", vda), disk("vdb", vdb), config}}
	web2 := &sourcetest.Point{
		Machine: web, Native: "web2", Created: at(2), Base: web1,
		Objects: []sourcetest.Object{disk("vda", changed(vda, 3, 33*smallBlock+9)), disk("vdb", changed(vdb[:5*smallBlock], 4, 5*smallBlock)), config},
	}
	web3 := &sourcetest.Point{Machine: web, Native: "web3", Created: at(3), Base: web2, Objects: []sourcetest.Object{disk("vda", web2.Objects[0].Data), config}}
	sda := content(5, 140<<10)
	db1 := &sourcetest.Point{Machine: db, Native: "db1", Created: at(1), Objects: []sourcetest.Object{stream("sda", sda, false), stream("state", content(6, 70<<10), true)}}
	db2 := &sourcetest.Point{Machine: db, Native: "db2", Created: at(2), Objects: []sourcetest.Object{stream("sda", changed(sda, 8, 140<<10), true)}}
	tar := sourcetest.Object{Role: backup.RoleArchive, Name: "root", Data: content(9, 150<<10), Access: source.AccessOnePass, Shifting: true, HideSize: true}
	box1 := &sourcetest.Point{Machine: box, Native: "box1", Created: at(1), Objects: []sourcetest.Object{tar, config}}
	return []*sourcetest.Point{web1, web2, web3, db1, db2, box1}
}
