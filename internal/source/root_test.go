package source_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// folder makes a source's folder beside a file that must not be reached.
func folder(t *testing.T) (inside string, root *source.Root) {
	t.Helper()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "not yours")
	inside = filepath.Join(outside, "backups")
	write(t, filepath.Join(inside, "a.vma"), "content of a")
	root, err := source.OpenRoot(inside, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return inside, root
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestNothingOutsideTheRootIsReached(t *testing.T) {
	inside, root := folder(t)
	link(t, "../secret", filepath.Join(inside, "relative"))
	link(t, filepath.Join(filepath.Dir(inside), "secret"), filepath.Join(inside, "absolute"))
	link(t, "..", filepath.Join(inside, "up"))
	for _, path := range []string{"../secret", "relative", "absolute", "up/secret", filepath.Join(filepath.Dir(inside), "secret"), "x/../../secret", "/etc/passwd"} {
		if file, err := root.Open(path); err == nil {
			file.Close()
			t.Errorf("%s was opened", path)
		}
		if _, err := root.Identify(path); err == nil {
			t.Errorf("%s was looked at", path)
		}
	}
}

func TestLinksInsideTheRootAreFollowed(t *testing.T) {
	inside, root := folder(t)
	link(t, "a.vma", filepath.Join(inside, "newest"))
	content, _, err := root.ReadFile("newest", 100)
	if err != nil || string(content) != "content of a" {
		t.Fatalf("read %q, %v", content, err)
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	inside, root := folder(t)
	if err := syscall.Mkfifo(filepath.Join(inside, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(inside, "sub", "file"), "x")
	for _, path := range []string{"pipe", "sub", "."} { // a pipe must not block either
		if file, err := root.Open(path); err == nil {
			file.Close()
			t.Errorf("%s was opened", path)
		}
	}
}

func TestReadFileIsBoundedAndCounted(t *testing.T) {
	_, root := folder(t)
	if _, _, err := root.ReadFile("a.vma", 5); err == nil {
		t.Fatal("a file larger than the limit was read")
	}
	if root.BytesRead() != 0 {
		t.Fatalf("%d bytes were read of a file that is too large", root.BytesRead())
	}
	if _, _, err := root.ReadFile("a.vma", 12); err != nil {
		t.Fatal(err)
	}
	file, err := root.Open("a.vma")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.ReadAt(make([]byte, 5), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(file); err != nil {
		t.Fatal(err)
	}
	if root.BytesRead() != 12+5+12 {
		t.Fatalf("counted %d bytes, want 29", root.BytesRead())
	}
}

func TestRevalidate(t *testing.T) {
	inside, root := folder(t)
	path := filepath.Join(inside, "a.vma")
	before, err := root.Identify("a.vma")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Revalidate([]source.FileIdentity{before}); err != nil {
		t.Fatalf("an unchanged file: %v", err)
	}
	if err := os.Chtimes(path, time.Time{}, before.ModTime.Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	if err := root.Revalidate([]source.FileIdentity{before}); !errors.Is(err, backup.ErrChanged) {
		t.Fatalf("another time: %v, want ErrChanged", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := root.Revalidate([]source.FileIdentity{before}); !errors.Is(err, backup.ErrVanished) {
		t.Fatalf("a file that is gone: %v, want ErrVanished", err)
	}
	if _, err := root.Open("a.vma"); !errors.Is(err, backup.ErrVanished) {
		t.Fatalf("opening a file that is gone: %v, want ErrVanished", err)
	}
}

func TestListingIsThreeLevelsDeep(t *testing.T) {
	inside, root := folder(t)
	for _, path := range []string{"1/f", "1/2/f", "1/2/3/f", "1/2/3/4/f"} {
		write(t, filepath.Join(inside, path), "x")
	}
	link(t, "1", filepath.Join(inside, "again")) // a folder is looked through once
	link(t, "..", filepath.Join(inside, "1", "loop"))
	link(t, "../../secret", filepath.Join(inside, "1", "out"))
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(listing.Paths(), " "); got != ". 1 1/2 1/2/3" {
		t.Fatalf("folders %s", got)
	}
	if listing.Unknown() != 4 { // a.vma and three f
		t.Fatalf("%d files, want 4", listing.Unknown())
	}
	listing.Claim("a.vma")
	listing.ClaimFolder("1/2")
	if listing.Unknown() != 1 || len(listing.Unclaimed(".")) != 0 || len(listing.Unclaimed("1")) != 1 {
		t.Fatalf("%d files are unclaimed, want 1/f alone", listing.Unknown())
	}
}

func TestRepositoriesAreNotLookedThrough(t *testing.T) {
	inside, root := folder(t)
	write(t, filepath.Join(inside, "vault", "repository.json"), `{"format": "ferry-repository"}`)
	write(t, filepath.Join(inside, "vault", "packs", "00", "pack"), "x")
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(listing.Paths(), " "); got != ". vault" {
		t.Fatalf("folders %s", got)
	}
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func TestListingClosesTheLastFirst(t *testing.T) {
	_, root := folder(t)
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	order := ""
	for _, name := range []string{"a", "b"} {
		listing.CloseWith(closeFunc(func() error { order += name; return errors.New(name) }))
	}
	if err := listing.Close(); err == nil || order != "ba" {
		t.Fatalf("closed %q with %v; want ba and both errors", order, err)
	}
}

func TestAStrayDescriptionHidesNothing(t *testing.T) {
	inside, root := folder(t)
	write(t, filepath.Join(inside, "repository.json"), "{}")
	write(t, filepath.Join(inside, "sub", "f"), "x")
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(listing.Repositories) != 0 || len(listing.Unclaimed("sub")) != 1 {
		t.Fatalf("repositories %q, %d files in sub", listing.Repositories, len(listing.Unclaimed("sub")))
	}
}

func TestDamagedRepositoriesAreStillRepositories(t *testing.T) {
	inside, root := folder(t)
	write(t, filepath.Join(inside, "a", "repository.json"), "\x00\x01")
	write(t, filepath.Join(inside, "a", "log", "000000000001"), "x")
	write(t, filepath.Join(inside, "b", "repository.json"), `{"format": "ferry-repository"}`)
	write(t, filepath.Join(inside, "c", "repository.json", "f"), "x")
	write(t, filepath.Join(inside, "c", "log", "000000000001"), "x")
	write(t, filepath.Join(inside, "d", "repository.json", "f"), "x")
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(listing.Repositories, " "); got != "a b c" {
		t.Fatalf("repositories %s", got)
	}
}

func TestFoldersOfAnyNameAreListed(t *testing.T) {
	inside, root := folder(t)
	name := "B\xfcro\n"
	write(t, filepath.Join(inside, name, "f"), "x")
	listing, err := source.List(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(listing.Unclaimed(name)) != 1 || len(listing.Problems) != 0 {
		t.Fatalf("folders %q, problems %v", listing.Paths(), listing.Problems)
	}
}

// With a pace each byte of a file is told of before it is read, in pieces, and an error of the pace is that of the read.
func TestFilesAreReadAtAPace(t *testing.T) {
	inside, root := folder(t)
	content := strings.Repeat("content ", 40_000)
	write(t, filepath.Join(inside, "b.vma"), content)
	told, largest := 0, 0
	var refuses error
	root.SetPace(func(n int) error {
		told, largest = told+n, max(largest, n)
		return refuses
	})
	file, err := root.Open("b.vma")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	whole, err := io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
	if err != nil || string(whole) != content || told < len(content) || largest > 64<<10 {
		t.Errorf("ReadAt: %d bytes, %d told, %d at once, %v", len(whole), told, largest, err)
	}
	at := make([]byte, 200_000)
	if n, err := file.ReadAt(at, 8); n != len(at) || err != nil || string(at) != content[:len(at)] {
		t.Errorf("%d bytes in one read, %v", n, err)
	}
	if n, err := file.ReadAt(at, file.Size()-100_000); n != 100_000 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes up to the end, %v", n, err)
	}
	if whole, err = io.ReadAll(file); err != nil || string(whole) != content {
		t.Errorf("Read: %d bytes, %v", len(whole), err)
	}
	if want := int64(2*len(content) + 300_000); root.BytesRead() != want {
		t.Errorf("%d bytes counted, want %d", root.BytesRead(), want)
	}
	refuses = errors.New("stopped")
	if n, err := file.ReadAt(at, 0); n != 0 || !errors.Is(err, refuses) {
		t.Errorf("%d bytes read, %v", n, err)
	}
}
