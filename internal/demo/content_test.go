package demo

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/vma"
)

// generated is the SHA-256 over all images of all days. It changes when the story's machines are changed, and must not
// change by itself: not from run to run, nor with another version of Go.
const generated = "1623a11f67697b4222212b5c83b0b88bcb9e9d2ae0e4a0bb5f5565a4b59444b9"

func TestGeneratedContentIsAlwaysTheSame(t *testing.T) {
	hash := sha256.New()
	for day := range days {
		for _, m := range machines() {
			for _, d := range m.disks {
				hash.Write(d.image(day))
			}
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != generated {
		t.Errorf("generated content is %s, not %s", got, generated)
	}
}

func TestBackupsAreAlwaysTheSame(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for _, folder := range []string{first, second} {
		for _, m := range machines() {
			if _, err := dump(context.Background(), folder, m, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	files := 0
	err := fs.WalkDir(os.DirFS(first), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		a, b := look(t, filepath.Join(first, name)), look(t, filepath.Join(second, name))
		if !bytes.Equal(a.content, b.content) || !a.modified.Equal(b.modified) {
			t.Errorf("%s is another file the second time", name)
		}
		return nil
	})
	if err != nil || files != 6 {
		t.Errorf("%d files, %v: an archive, notes and a log of each machine are 6", files, err)
	}
}

type seen struct {
	content  []byte
	modified time.Time
}

func look(t *testing.T, path string) seen {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return seen{content, info.ModTime()}
}

func TestArchivesSayWhoseTheyAre(t *testing.T) {
	m := machines()[0]
	archive, images := m.archive(2)
	var written bytes.Buffer
	if _, err := archive.WriteTo(&written); err != nil {
		t.Fatal(err)
	}
	header, err := vma.ReadHeader(&written)
	if err != nil {
		t.Fatal(err)
	}
	if header.UUID != m.backupUUID(2) || !header.Created.Equal(m.created(2)) || len(header.Devices) != 2 || len(images) != 2 {
		t.Errorf("header %+v", header)
	}
	if len(header.Configs) != 1 || !bytes.Contains(header.Configs[0].Data, []byte("smbios1: uuid="+m.uuid+"\n")) ||
		!bytes.Contains(header.Configs[0].Data, []byte("tags: linux;web\n")) {
		t.Errorf("configurations %q", header.Configs)
	}
}

func TestFilesGrowAndKeepTheirBeginning(t *testing.T) {
	short, long, other := make(canvas, mebibyte), make(canvas, mebibyte), make(canvas, mebibyte)
	short.paint("log", textLines, 0, 300*kibibyte)
	long.paint("log", textLines, 0, 700*kibibyte)
	other.paint("another log", textLines, 0, 300*kibibyte)
	if !bytes.Equal(short[:300*kibibyte], long[:300*kibibyte]) {
		t.Error("a file that grew does not begin as it did")
	}
	if bytes.Equal(short[:pageSize], other[:pageSize]) || bytes.Equal(short[:pageSize], short[pageSize:2*pageSize]) {
		t.Error("different pages have the same content")
	}
	if !bytes.Equal(short[300*kibibyte:], make([]byte, mebibyte-300*kibibyte)) {
		t.Error("something was painted behind the file")
	}
	long.erase(0, mebibyte)
	if !bytes.Equal(long, make([]byte, mebibyte)) {
		t.Error("what was erased is not a hole")
	}
}

func TestTexturesCompressAsTheySay(t *testing.T) {
	for look, bounds := range map[texture][2]float64{textLines: {0.05, 0.4}, programs: {0.4, 0.7}, pictures: {0.99, 1.1}} {
		c := make(canvas, 256*kibibyte)
		c.paint("sample", look, 0, int64(len(c)))
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(c); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if ratio := float64(out.Len()) / float64(len(c)); ratio < bounds[0] || ratio > bounds[1] {
			t.Errorf("texture %d compresses to %.2f, not between %v", look, ratio, bounds)
		}
	}
}

func TestDaysChangeALittle(t *testing.T) {
	for _, m := range machines() {
		for _, d := range m.disks {
			for day := 1; day < days; day++ {
				before, after := d.image(day-1), d.image(day)
				changed, data := 0, 0
				for at := 0; at < len(after); at += pageSize {
					page := after[at : at+pageSize]
					if !bytes.Equal(page, before[at:at+pageSize]) {
						changed++
					}
					if !bytes.Equal(page, make([]byte, pageSize)) {
						data++
					}
				}
				if changed == 0 || changed*2 > data || data*pageSize*2 > len(after) {
					t.Errorf("%s %s day %d: %d of %d pages changed, of %d", m.name, d.slot, day, changed, data, len(after)/pageSize)
				}
			}
		}
	}
}
