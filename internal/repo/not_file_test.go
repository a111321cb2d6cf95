package repo_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/fs"
)

// notFiles are what can lie in place of a repository's file: how each is made, in place of one whose bytes are kept outside.
var notFiles = map[string]func(t *testing.T, path, outside string) error{
	"link":     func(_ *testing.T, path, outside string) error { return os.Symlink(outside, path) },
	"dangling": func(_ *testing.T, path, outside string) error { return os.Symlink(outside+"-none", path) },
	"pipe":     func(_ *testing.T, path, _ string) error { return unix.Mkfifo(path, 0o600) },
	"folder":   func(_ *testing.T, path, _ string) error { return os.Mkdir(path, 0o700) },
	"socket": func(t *testing.T, path, _ string) error {
		short := filepath.Join(newCache(t), "s") // names of sockets are short
		listener, err := net.Listen("unix", short)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = listener.Close() })
		return os.Rename(short, path)
	},
}

// inFolder is a repository in a folder, with the points of two machines, a pack with blocks of the first of them, and a copy of all of it.
func inFolder(t *testing.T) (folder, pack string, points []*sourcetest.Point, second *repo.Repository) {
	t.Helper()
	folder, points = newCache(t), machinesAtOnce()[:2]
	store := openFolder(t, folder)
	r := must(repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: smallBlock}))(t)
	mustCopyAll(t, r, points[0])
	for id, p := range r.State().Packs.All() {
		if p.Kind == "data" {
			pack = "packs/" + id.String()[:2] + "/" + id.String()
		}
	}
	mustCopyAll(t, r, points[1])
	closeRepo(t, r)
	beside := newCache(t)
	if err := os.CopyFS(beside, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	second = must(openSmall(t.Context(), openFolder(t, beside), ""))(t)
	t.Cleanup(func() { closeRepo(t, second) })
	return folder, pack, points, second
}

func openFolder(t *testing.T, folder string) storage.Store {
	t.Helper()
	store := must(fs.Open(folder))(t)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// replaced puts something in place of a file, whose bytes lie outside then, and returns where. They must be left alone.
func replaced(t *testing.T, path string, by func(t *testing.T, path, outside string) error) {
	t.Helper()
	content := must(os.ReadFile(path))(t)
	outside := filepath.Join(newCache(t), "outside")
	if err := errors.Join(os.WriteFile(outside, content, 0o600), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if err := by(t, path, outside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if now, err := os.ReadFile(outside); err != nil || string(now) != string(content) {
			t.Errorf("what lies outside has %d bytes after %d, %v", len(now), len(content), err)
		}
	})
}

// What lies in place of a pack and is no file is damage of that pack, as if it were lost: nothing hangs on it or follows it, the others are
// proven and given out, and it is healed.
func TestNoFileInPlaceOfAPack(t *testing.T) {
	for kind, by := range notFiles {
		t.Run(kind, func(t *testing.T) {
			folder, name, points, second := inFolder(t)
			replaced(t, filepath.Join(folder, name), by)
			r := must(openSmall(t.Context(), openFolder(t, folder), ""))(t)
			defer closeRepo(t, r)
			if err := compare(t.Context(), r, points[0]); !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("a point with blocks there: %v", err)
			}
			if err := compare(t.Context(), r, points[1]); err != nil {
				t.Errorf("a point without: %v", err)
			}
			compact(t, r, repo.CompactOptions{})
			if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), name) {
				t.Errorf("reclaim: %v", err)
			}
			report := verified(t, r, repo.VerifyOptions{})
			var ofFile, ofPoint int
			for _, d := range report.Damage {
				if d.File != name && d.Point == "" || !strings.Contains(d.Reason, "what lies in its place is ") {
					t.Errorf("%+v", d)
				}
				if d.Point == "" {
					ofFile++
				} else if d.Point == points[0].ID().String() {
					ofPoint++
				}
			}
			if ofFile != 1 || ofPoint != len(report.Damage)-1 || ofPoint == 0 || report.DamagedPoints != 1 || report.Packs != r.State().Packs.Len() {
				t.Errorf("%d packs read, %d points damaged: %+v", report.Packs, report.DamagedPoints, report.Damage)
			}
			must(r.Heal(t.Context(), report, []*repo.Repository{second}))(t)
			check(t, r, points...)
			reclaim(t, r, atOnce())
			reclaim(t, r, atOnce())
			check(t, r, points...)
			_, err := os.Lstat(filepath.Join(folder, name))
			if gone := errors.Is(err, os.ErrNotExist); gone != (kind != "folder") {
				t.Errorf("after it was deleted: %v", err)
			}
		})
	}
}

// In place of a log entry, of the next one or one far behind, or of repository.json it is an error that names the file: a repository that goes on
// without them is another. So it is for a machine that remembers the state after an entry in whose place a link lies; a folder is as none.
func TestNoFileInPlaceOfTheLog(t *testing.T) {
	for kind, by := range notFiles {
		for name, cache := range map[string]string{
			"repository.json": "", "log/000000000002": "", "log/000000000004": "", "log/000000000009": "", "log/000000000003": newCache(t),
		} {
			if kind == "folder" && (name == "log/000000000009" || cache != "") {
				continue // it is listed as none, and read by what else there is
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				folder, _, _, _ := inFolder(t)
				if cache != "" {
					r := must(openSmall(t.Context(), openFolder(t, folder), cache))(t)
					if err := r.WriteCheckpoint(t.Context()); err != nil {
						t.Fatal(err)
					}
					closeRepo(t, r)
				}
				path := filepath.Join(folder, name)
				if _, err := os.Lstat(path); err != nil { // the next entry
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				replaced(t, path, by)
				r, err := openSmall(t.Context(), openFolder(t, folder), cache)
				if err == nil {
					closeRepo(t, r)
				}
				if !errors.Is(err, storage.ErrNotFile) || !errors.Is(err, repo.ErrCorrupt) || errors.Is(err, repo.ErrNoRepository) || !strings.Contains(err.Error(), path) || backup.Hint(err) == "" {
					t.Errorf("opened: %v; %s", err, backup.Hint(err))
				}
			})
		}
	}
}

// In place of all else that can be lost it is as if that were: point, index segment, checkpoint, unfinished copy.
func TestNoFileInPlaceOfOthers(t *testing.T) {
	for kind, by := range notFiles {
		for _, folderOf := range []string{"points/*", "index", "checkpoints", "partials"} {
			t.Run(kind+" "+folderOf, func(t *testing.T) {
				folder, _, points, _ := inFolder(t)
				r := must(openSmall(t.Context(), openFolder(t, folder), newCache(t)))(t)
				unfinished := onePoint("unfinished", "u", content(83, 2*smallBlock))
				unfinished.Revalidated = errInjected
				_, _ = copyAll(t.Context(), r, sourcetest.Open(t, unfinished))
				if err := r.WriteCheckpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				closeRepo(t, r)
				files := must(filepath.Glob(filepath.Join(folder, folderOf, "*")))(t)
				if len(files) == 0 {
					t.Fatal("there is none")
				}
				name := strings.TrimPrefix(files[0], folder+"/")
				replaced(t, files[0], by)
				r = must(openSmall(t.Context(), openFolder(t, folder), ""))(t)
				defer closeRepo(t, r)
				report := verified(t, r, repo.VerifyOptions{})
				missed := folderOf != "checkpoints" || kind != "folder" // in which there is none
				if len(report.Damage) != boolInt(missed) || missed && report.Damage[0].File != name {
					t.Errorf("%+v", report.Damage)
				}
				whole := 0
				for _, p := range points {
					if compare(t.Context(), r, p) == nil {
						whole++
					}
				}
				if want := len(points) - boolInt(folderOf == "points/*"); whole != want {
					t.Errorf("%d points are whole, want %d", whole, want)
				}
				compact(t, r, repo.CompactOptions{})
				if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); err != nil && !errors.Is(err, backup.ErrDamaged) {
					t.Errorf("reclaim: %v", err)
				}
			})
		}
	}
}

// In place of a key file it is as if that were damaged: who needs it is told, and others verify and list it so.
func TestNoFileInPlaceOfAKeyFile(t *testing.T) {
	for kind, by := range notFiles {
		t.Run(kind, func(t *testing.T) {
			folder, holders := newCache(t), []holder{newHolder(t, "first"), newHolder(t, "second")}
			options := repo.Options{BlockSize: smallBlock, Encrypt: []repo.KeyRecipient{holders[0].to, holders[1].to}}
			closeRepo(t, must(repo.Init(t.Context(), openFolder(t, folder), repo.Environment{}, options))(t))
			file := must(filepath.Glob(filepath.Join(folder, "keys", "*-*[0-9a-f]")))(t)[0]
			name := strings.TrimPrefix(file, folder+"/")
			replaced(t, file, by)
			opened := 0
			for _, h := range holders {
				r, err := repo.Open(t.Context(), openFolder(t, folder), repo.Environment{Keys: keysOf{h}})
				if err != nil {
					if !errors.Is(err, repo.ErrWrongKey) || !strings.Contains(err.Error(), file) {
						t.Errorf("who needs it: %v", err)
					}
					continue
				}
				opened++
				if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) != 1 || report.Damage[0].File != name {
					t.Errorf("verify: %+v", report.Damage)
				}
				list, err := r.ListKeys(t.Context())
				if err != nil || len(list) != 2 || list[0].Damaged == list[1].Damaged {
					t.Errorf("listed: %+v, %v", list, err)
				}
				closeRepo(t, r)
			}
			if opened != 1 {
				t.Errorf("%d of the two keys open it", opened)
			}
		})
	}
}

// In place of a parity file it is removed, and the file made again. A folder is left: it is told that it lies there.
func TestNoFileInPlaceOfParity(t *testing.T) {
	for kind, by := range notFiles {
		t.Run(kind, func(t *testing.T) {
			folder := newCache(t)
			r := must(repo.Init(t.Context(), openFolder(t, folder), repo.Environment{}, repo.Options{BlockSize: smallBlock, Parity: &repo.Parity{Data: 8, Parity: 2}}))(t)
			defer closeRepo(t, r)
			mustCopyAll(t, r, machinesAtOnce()[0])
			file := must(filepath.Glob(filepath.Join(folder, "parity/*")))(t)[0]
			name := strings.TrimPrefix(file, folder+"/")
			replaced(t, file, by)
			report := verified(t, r, repo.VerifyOptions{})
			if kind != "folder" {
				if len(report.Damage) != 0 || len(report.Remade) != 1 || report.Remade[0] != name {
					t.Errorf("made again: %q, %+v", report.Remade, report.Damage)
				}
				return
			}
			if len(report.Remade) != 0 || len(report.Damage) != 1 || report.Damage[0].File != name || !strings.Contains(report.Damage[0].Reason, "what lies in its place is a folder") {
				t.Errorf("made again: %q, %+v", report.Remade, report.Damage)
			}
		})
	}
}

// A folder in place of a mark, which is a hint, costs what the mark is for, and that is told. Only who must know the storage's time cannot go on.
func TestFolderInPlaceOfMarks(t *testing.T) {
	for _, mark := range []string{"clock", "reclaim-lease", "reclaim", "verified", "last-run"} {
		t.Run(mark, func(t *testing.T) {
			folder, _, points, _ := inFolder(t)
			path := filepath.Join(folder, "marks", mark)
			if err := errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o700)); err != nil {
				t.Fatal(err)
			}
			r := must(openSmall(t.Context(), openFolder(t, folder), ""))(t)
			defer closeRepo(t, r)
			mustCopyAll(t, r, machinesAtOnce()[2])
			if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) != 0 {
				t.Errorf("verify: %+v", report.Damage)
			}
			check(t, r, append(points, machinesAtOnce()[2])...)
			_, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch})
			if mark == "clock" {
				if !errors.Is(err, storage.ErrNotFile) || !strings.Contains(err.Error(), path) || backup.Hint(err) == "" {
					t.Errorf("reclaim: %v", err)
				}
				return
			}
			told := strings.Join(r.Warnings(), "\n")
			if err != nil || strings.Count(told, path) != 1 {
				t.Errorf("reclaim: %v; told is %q", err, told)
			}
		})
	}
}

// A link in place of a folder hides all that lay there. That is no damage of so many files, which would be noted, and given up: it is an
// error that names the link, and nothing is done.
func TestLinkInPlaceOfAFolder(t *testing.T) {
	for _, of := range []string{"packs", "points"} {
		t.Run(of, func(t *testing.T) {
			folder, _, points, _ := inFolder(t)
			hidden := must(filepath.Glob(filepath.Join(folder, of, "*")))(t)[0]
			outside := filepath.Join(newCache(t), "outside")
			if err := errors.Join(os.Rename(hidden, outside), os.Symlink(outside, hidden)); err != nil {
				t.Fatal(err)
			}
			before := len(must(filepath.Glob(filepath.Join(outside, "*")))(t))
			r := must(openSmall(t.Context(), openFolder(t, folder), ""))(t)
			defer closeRepo(t, r)
			head := r.State().Head.N
			done := map[string]error{}
			_, done["reclaim"] = r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch})
			_, done["verify"] = r.VerifyWith(t.Context(), repo.VerifyOptions{})
			for what, err := range done {
				if err == nil || errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), "is a symbolic link") || !strings.Contains(err.Error(), hidden) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if now := r.State().Head.N; now != head {
				t.Errorf("%d log entries were written", now-head)
			}
			if after := len(must(filepath.Glob(filepath.Join(outside, "*")))(t)); after != before || before == 0 {
				t.Errorf("outside are %d files after %d", after, before)
			}
			if err := errors.Join(os.Remove(hidden), os.Rename(outside, hidden)); err != nil {
				t.Fatal(err)
			}
			check(t, r, points...)
		})
	}
}
