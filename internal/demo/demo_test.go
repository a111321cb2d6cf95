package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/vzdump"
)

// listener is a narrator that remembers, and may interfere when a command is about to be carried out.
type listener struct {
	headings, said, commands []string
	rows                     int
	before                   func(command string)
}

func (l *listener) Heading(text string)     { l.headings = append(l.headings, text) }
func (l *listener) Say(text string)         { l.said = append(l.said, text) }
func (l *listener) Result(rows ...[]string) { l.rows += len(rows) }
func (l *listener) Output(string)           {}
func (l *listener) Command(text string) {
	l.commands = append(l.commands, text)
	if l.before != nil {
		l.before(text)
	}
}

func prepared(t *testing.T) (Options, *listener) {
	t.Helper()
	dir, remove, err := MakeFolder(filepath.Join(t.TempDir(), "demo"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	heard := &listener{}
	environment := repo.Environment{CacheDir: filepath.Join(dir, "cache"), Program: "test"}
	return Options{
		Dir: dir, Formats: []source.Format{ferry.Format{Environment: environment}, vzdump.Format{}}, Environment: environment, Narrator: heard,
	}, heard
}

func TestStory(t *testing.T) {
	options, heard := prepared(t)
	summary, err := tell(context.Background(), options, byHand()...)
	if err != nil {
		t.Fatal(err)
	}
	type run struct{ copied, there int }
	var runs []run
	for _, c := range summary.Copies {
		runs = append(runs, run{c.Copied, c.AlreadyThere})
		if nothing := c.Copied == 0; nothing != (c.DataBytesRead == 0) || nothing != (c.StoredBytes == 0) || nothing != (c.ReadBytes == 0) {
			t.Errorf("%+v: data is read and stored exactly if a point is copied", c)
		}
	}
	if expected := []run{{2, 0}, {2, 2}, {2, 4}, {0, 6}, {6, 0}, {0, 6}}; !slices.Equal(runs, expected) {
		t.Errorf("copied and already there: %v, expected %v", runs, expected)
	}
	first := summary.Copies[0]
	if first.NewBytes >= first.ReadBytes {
		t.Errorf("%+v: the operating system was stored twice", first)
	}
	for _, c := range summary.Copies[1:3] {
		if c.NewBytes*3 > first.NewBytes || c.ReadBytes < first.ReadBytes {
			t.Errorf("%+v: more than what changed was stored", c)
		}
	}
	checkSummary(t, summary)
	if len(heard.headings) != 5 || len(heard.said) == 0 || heard.rows == 0 || len(heard.commands) != 13 {
		t.Errorf("told: %q, %d rows, %q", heard.headings, heard.rows, heard.commands)
	}
}

func checkSummary(t *testing.T, summary Summary) {
	t.Helper()
	if summary.GeneratedBytes != 168*mebibyte || summary.Vault.LogicalBytes <= summary.GeneratedBytes || summary.Vault.StoredBytes*3 > summary.ArchiveBytes*2 {
		t.Errorf("generated %d in archives of %d; vault %+v", summary.GeneratedBytes, summary.ArchiveBytes, summary.Vault)
	}
	if summary.Vault.Points != 6 || summary.Offsite.Points != 6 || summary.Vault.ID == summary.Offsite.ID ||
		summary.Vault.VerifiedBytes != summary.Vault.StoredBytes || summary.Offsite.VerifiedBytes != summary.Offsite.StoredBytes {
		t.Errorf("vault %+v, offsite %+v", summary.Vault, summary.Offsite)
	}
	if len(summary.FlippedBit.Points) == 0 || summary.FlippedBit.File == "" {
		t.Errorf("flipped bit %+v", summary.FlippedBit)
	}
	if len(summary.Machines) != 2 || len(summary.Machines[0].Points) != 3 || len(summary.Machines[1].Points) != 3 {
		t.Errorf("machines %+v", summary.Machines)
	}
	if len(summary.Restores) != 3 || summary.Restores[0].Point == summary.Restores[1].Point {
		t.Errorf("restores %+v", summary.Restores)
	}
	for _, r := range summary.Restores {
		if !r.Equal || r.Bytes < 20*mebibyte || r.Files < 4 {
			t.Errorf("restore %+v", r)
		}
	}
}

// TestStoryNoticesAWrongBit spoils what was restored, as a broken restore would.
func TestStoryNoticesAWrongBit(t *testing.T) {
	options, _ := prepared(t)
	options.restored = func(folder string) error { return flip(filepath.Join(folder, "drive-scsi1.raw"), 3_000_001) }
	summary, err := tell(context.Background(), options, byHand()...)
	if !errors.Is(err, errDiffers) || !strings.HasSuffix(err.Error(), "drive-scsi1.raw differs at byte 3000001") {
		t.Errorf("error %v", err)
	}
	if len(summary.Restores) != 1 || summary.Restores[0].Equal {
		t.Errorf("restores %+v", summary.Restores)
	}
}

func TestComparison(t *testing.T) {
	const victim = "drive-scsi1.raw"
	d, err := dump(context.Background(), t.TempDir(), machines()[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(folder string) error
		want  string
	}{
		"nothing":        {func(string) error { return nil }, ""},
		"a wrong bit":    {func(folder string) error { return flip(filepath.Join(folder, victim), 3_000_001) }, victim + " differs at byte 3000001"},
		"a byte too few": {func(folder string) error { return os.Truncate(filepath.Join(folder, victim), 12*mebibyte-1) }, victim + " has 12582911 bytes, not 12582912"},
		"no file":        {func(folder string) error { return os.Remove(filepath.Join(folder, victim)) }, victim + " is missing"},
		"one file too many": {func(folder string) error {
			return os.WriteFile(filepath.Join(folder, "config", "more"), nil, 0o600)
		}, filepath.Join("config", "more") + " is in no backup"},
		"a wrong configuration": {func(folder string) error { return flip(filepath.Join(folder, "config", configName), 0) }, configName + " differs at byte 0"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.Mkdir(filepath.Join(folder, "config"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, f := range d.files {
				if err := os.WriteFile(filepath.Join(folder, f.path), f.content(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.spoil(folder); err != nil {
				t.Fatal(err)
			}
			compared, err := d.compare(context.Background(), folder)
			if c.want == "" {
				if err != nil || compared <= 36*mebibyte {
					t.Errorf("%d bytes compared, %v", compared, err)
				}
				return
			}
			if !errors.Is(err, errDiffers) || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("error %v, expected one that ends with %q", err, c.want)
			}
		})
	}
}

// TestGenerationIsCheckedTwice: content that is not what was written into the archive has another SHA-256.
func TestGenerationIsCheckedTwice(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "disk"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := expect("disk", []byte("wrote"), func() []byte { return []byte("other") })
	if err := e.compare(folder); !errors.Is(err, errDiffers) || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("error %v", err)
	}
}

// TestStoryNoticesDamage spoils the repository before it is verified.
func TestStoryNoticesDamage(t *testing.T) {
	options, heard := prepared(t)
	heard.before = func(command string) {
		if command != "ferry verify vault" {
			return
		}
		packs := filepath.Join(options.Dir, vaultFolder, "packs")
		name, size, err := largestFile(packs)
		if err == nil {
			err = flip(filepath.Join(packs, name), size/3)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := tell(context.Background(), options, byHand()...); err == nil || !strings.Contains(err.Error(), "damaged places") {
		t.Errorf("error %v", err)
	}
}

func TestCopiesMustComeOutAsExpected(t *testing.T) {
	for _, c := range []struct {
		summary       CopySummary
		copied, there int
		good          bool
	}{
		{CopySummary{Copied: 2, AlreadyThere: 4, DataBytesRead: 5, StoredBytes: 5}, 2, 4, true},
		{CopySummary{Copied: 1, AlreadyThere: 4}, 2, 4, false},
		{CopySummary{Copied: 2, AlreadyThere: 3}, 2, 4, false},
		{CopySummary{AlreadyThere: 6}, 0, 6, true},
		{CopySummary{AlreadyThere: 6, DataBytesRead: 1}, 0, 6, false},
		{CopySummary{AlreadyThere: 6, StoredBytes: 1}, 0, 6, false},
	} {
		if err := expectCopy(c.summary, c.copied, c.there); (err == nil) != c.good {
			t.Errorf("%+v, %d copied, %d there: %v", c.summary, c.copied, c.there, err)
		}
	}
}

func TestStoryEndsWhenInterrupted(t *testing.T) {
	for _, at := range []string{"ferry points dump", "ferry copy dump vault", "ferry copy vault offsite --all"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			options, heard := prepared(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			heard.before = func(command string) {
				if command == at {
					cancel()
				}
			}
			if _, err := tell(ctx, options, byHand()...); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if last := heard.commands[len(heard.commands)-1]; last != at {
				t.Errorf("went on to %s", last)
			}
		})
	}
}

func TestFolders(t *testing.T) {
	parent := t.TempDir()
	made, remove, err := MakeFolder("", parent)
	if err != nil || filepath.Dir(made) != parent {
		t.Fatalf("made %s, %v", made, err)
	}
	fill(t, made)
	if _, _, err := MakeFolder(made, ""); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("a folder with something in it: %v", err)
	}
	if err := remove(); err != nil || exists(made) {
		t.Errorf("a folder that was made is still there: %v", err)
	}
	given := filepath.Join(parent, "given")
	if err := os.Mkdir(given, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, remove, err := MakeFolder(given, "")
	if err != nil || dir != given {
		t.Fatalf("took %s, %v", dir, err)
	}
	fill(t, given)
	if err := remove(); err != nil || !exists(given) || exists(filepath.Join(given, "vault")) {
		t.Errorf("a folder that was there before: %v", err)
	}
	if _, _, err := MakeFolder(filepath.Join(given, "a", "b"), ""); err != nil {
		t.Error(err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := MakeFolder(file, ""); err == nil || errors.Is(err, ErrNotEmpty) {
		t.Errorf("a file: %v", err)
	}
}

func fill(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(folder, "vault", "packs"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestFractions(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        string
	}{{10, 20, "half"}, {10, 49, "fifth"}, {10, 100, "tenth"}, {1, 100, "1 %"}, {0, 0, "0 %"}, {99, 100, "99 %"}} {
		if got := fraction(c.part, c.whole); got != c.want {
			t.Errorf("%s: %q, expected %q", fmt.Sprintf("%d of %d", c.part, c.whole), got, c.want)
		}
	}
}
