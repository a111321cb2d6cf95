package vzdump

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/vma"
)

var extensions = []string{".vma", ".vma.zst", ".vma.gz", ".vma.lzo"}

func compressionOf(extension string) string {
	if dot := filepath.Ext(extension); dot != ".vma" && dot != ".tar" {
		return dot[1:]
	}
	return ""
}

// tryPoint opens and streams a point and returns what went wrong.
func tryPoint(t testing.TB, point source.Point) error {
	t.Helper()
	content, err := point.Opener.Open(context.Background())
	if err != nil {
		return err
	}
	defer content.Close()
	return content.Stream(context.Background(), newRecorder(t, content.Objects()))
}

func TestContentOfAllCompressions(t *testing.T) {
	archive, contents := testVMA(conf)
	archive.Order = archive.Shuffled(9)
	raw := encodeVMA(t, archive)
	for _, extension := range extensions {
		read, content := readPoint(t, onePoint(t, qemuBase+extension, compressed(t, raw, compressionOf(extension))))
		for i := range contents {
			if !bytes.Equal(read.data[i], contents[i]) {
				t.Errorf("%s: %s differs", extension, content.Objects()[i].Name)
			}
		}
		if content.SourceVerified() != (extension != ".vma") {
			t.Errorf("%s: verified %v", extension, content.SourceVerified())
		}
		if err := content.Stream(t.Context(), read); err == nil {
			t.Errorf("%s: streamed twice", extension)
		}
	}
	tarball := testTar(t, "hostname: ct101\n")
	for _, extension := range []string{".tar", ".tar.zst", ".tgz", ".tar.lzo"} {
		read, content := readPoint(t, onePoint(t, lxcBase+extension, compressed(t, tarball, compressionOf(extension))))
		if !bytes.Equal(read.data[0], tarball) || content.SourceVerified() != (extension != ".tar") {
			t.Errorf("%s: %d bytes, verified %v", extension, len(read.data[0]), content.SourceVerified())
		}
	}
}

// bzip2 has no encoder here; testdata/README.md says how the sample was made.
func TestBzip2(t *testing.T) {
	points := scanFolder(t, "testdata/bzip2")
	if len(points) != 1 {
		t.Fatalf("%d points", len(points))
	}
	read, content := readPoint(t, points[0])
	if read.sum(0) != sumSmall || !content.SourceVerified() {
		t.Errorf("sum %s, verified %v", read.sum(0), content.SourceVerified())
	}
}

// Neighbouring clusters of zeros are one call.
func TestZerosAreJoined(t *testing.T) {
	archive := &vma.Archive{Created: created, Devices: []vma.DeviceContent{{Name: "drive-scsi0", Size: 64<<20 + 512, Content: zerosAt{}}}}
	p := onePoint(t, qemuBase+".vma.zst", compressed(t, encodeVMA(t, archive), "zst"))
	read, _ := readPoint(t, p)
	if read.calls != 1 {
		t.Errorf("%d calls for a disk of zeros", read.calls)
	}
}

type zerosAt struct{}

func (zerosAt) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// An archive that is cut off anywhere is broken, and so is one that goes on.
func TestCutAndTrailing(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	random := rand.New(rand.NewPCG(8, 8))
	for _, extension := range extensions {
		full := compressed(t, raw, compressionOf(extension))
		cuts := []int{len(full) - 1, len(full) - 4, len(full) - 8}
		for range 12 {
			cuts = append(cuts, 1+random.IntN(len(full)-1))
		}
		for _, cut := range cuts {
			p := onePoint(t, qemuBase+extension, full[:cut])
			if p.State == backup.StateBroken {
				continue
			}
			if err := tryPoint(t, p); !errors.Is(err, backup.ErrBroken) {
				t.Errorf("%s cut at %d of %d: %v", extension, cut, len(full), err)
			}
		}
		for _, trailing := range [][]byte{{0}, make([]byte, 700), []byte("garbage garbage"), full} {
			p := onePoint(t, qemuBase+extension, append(bytes.Clone(full), trailing...))
			if err := tryPoint(t, p); !errors.Is(err, backup.ErrBroken) {
				t.Errorf("%s with %d bytes behind: %v", extension, len(trailing), err)
			}
		}
	}
	tarball := testTar(t, "")
	for _, cut := range []int{512, 2048, 100_000, len(tarball) - 1024, len(tarball) - 512, len(tarball) - 1} {
		if err := tryPoint(t, onePoint(t, lxcBase+".tar", tarball[:cut])); !errors.Is(err, backup.ErrBroken) {
			t.Errorf("tar cut at %d of %d: %v", cut, len(tarball), err)
		}
	}
}

// Damage to compressed data is found by its checksum.
func TestDamage(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for _, extension := range []string{"_20-01_00_00.vma.zst", "_21-01_00_00.vma.gz", "_22-01_00_00.vma.lzo"} {
		full, err := os.ReadFile(filepath.Join("testdata/golden", "vzdump-qemu-100-2026_11"+extension))
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			// Behind the header of gzip, whose name and time have no checksum.
			at := 64 + random.IntN(len(full)-64)
			full[at] ^= 0x10
			p := onePoint(t, "vzdump-qemu-100-2026_11"+extension, full)
			if p.State == backup.StateComplete {
				if err := tryPoint(t, p); !errors.Is(err, backup.ErrBroken) && !errors.Is(err, backup.ErrUnsupported) {
					t.Errorf("%s with byte %d changed: %v", extension, at, err)
				}
			}
			full[at] ^= 0x10
		}
	}
}

// What a small file unpacks to is bounded by what its header says, and by the memory a decoder may take.
func TestBombs(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	endless := append(zstdFrame(t, raw, true), zstdFrame(t, make([]byte, 256<<20), true)...)
	p := onePoint(t, qemuBase+".vma.zst", endless)
	content, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if err := content.Stream(t.Context(), newRecorder(t, content.Objects())); !errors.Is(err, backup.ErrBroken) {
		t.Errorf("256 MiB behind the archive: %v", err)
	}
	if content.SourceVerified() != true {
		t.Error("all of it has checksums")
	}

	// A frame that asks for a window of 1 GiB.
	window := binary.LittleEndian.AppendUint32(nil, zstdFrameMagic)
	window = append(window, 0x04, 20<<3, 1, 0, 0)
	if p := onePoint(t, qemuBase+".vma.zst", window); p.State != backup.StateUnsupported {
		t.Errorf("window of 1 GiB: %s (%s)", p.State, p.Reason)
	}
}

// Only frames that all have a checksum count as checked.
func TestZstdFrames(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	half := len(raw) / 2
	skippable := []byte("\x53\x2a\x4d\x18\x03\x00\x00\x00abc")
	empty := []byte("\x50\x2a\x4d\x18\x00\x00\x00\x00")
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, test := range map[string]struct {
		content []byte
		checked bool
	}{
		"one, checked":        {zstdFrame(t, raw, true), true},
		"one, unchecked":      {zstdFrame(t, raw, false), false},
		"two, checked":        {join(zstdFrame(t, raw[:half], true), zstdFrame(t, raw[half:], true)), true},
		"second is unchecked": {join(zstdFrame(t, raw[:half], true), zstdFrame(t, raw[half:], false)), false},
		"skippable ones":      {join(skippable, zstdFrame(t, raw[:100], true), empty, skippable, zstdFrame(t, raw[100:], true), empty), true},
		"an empty one":        {join(zstdFrame(t, raw, true), zstdFrame(t, nil, false)), false},
	} {
		_, content := readPoint(t, onePoint(t, qemuBase+".vma.zst", test.content))
		if content.SourceVerified() != test.checked {
			t.Errorf("%s: checked %v", name, content.SourceVerified())
		}
	}
}

var errSink = errors.New("the target is full")

// faultySink does something at its first call.
type faultySink struct{ do func() error }

func (s faultySink) Data(int, int64, []byte) error { return s.do() }
func (s faultySink) Zero(int, int64, int64) error  { return s.do() }
func (s faultySink) End(int, int64) error          { return s.do() }

// However a stream ends, its goroutine ends with it (TestMain looks).
func TestStreamEndsEarly(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	open := func(ctx context.Context) source.Content {
		content, err := onePoint(t, qemuBase+".vma.zst", compressed(t, raw, "zst")).Opener.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	content := open(t.Context())
	if err := content.Stream(t.Context(), faultySink{func() error { return errSink }}); !errors.Is(err, errSink) {
		t.Errorf("faulty sink: %v", err)
	}
	content.Close()

	content = open(t.Context())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := content.Stream(ctx, faultySink{func() error { return nil }}); !errors.Is(err, context.Canceled) || errors.Is(err, backup.ErrBroken) {
		t.Errorf("called off: %v", err)
	}
	content.Close()

	// The context that the point was opened with may end before it is streamed.
	ctx, cancel = context.WithCancel(context.Background())
	content = open(ctx)
	cancel()
	if err := content.Stream(t.Context(), newRecorder(t, content.Objects())); err != nil {
		t.Errorf("opened with another context: %v", err)
	}
	content.Close()

	// Closing ends a stream and waits for it.
	content = open(t.Context())
	started, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-started
		closed <- content.Close()
	}()
	first := true
	content.Stream(t.Context(), faultySink{func() error {
		if first {
			close(started)
			first = false
		}
		return nil
	}})
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := content.Stream(t.Context(), faultySink{}); err == nil {
		t.Error("streamed after Close")
	}
	if err := content.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestChanges(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	folder := t.TempDir()
	path := put(t, folder, qemuBase+".vma", raw)
	note := put(t, folder, qemuBase+".vma.notes", []byte("note"))
	p := scanFolder(t, folder)[0]
	content, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	again, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !bytes.Equal(content.Validator(), again.Validator()) || len(content.Validator()) == 0 || content.Ancestors() != nil {
		t.Errorf("validators %s and %s", content.Validator(), again.Validator())
	}
	os.Remove(note)
	if err := content.Revalidate(t.Context()); err != nil {
		t.Errorf("without the note: %v", err)
	}
	var third []byte
	if without, err := p.Opener.Open(t.Context()); err != nil {
		t.Errorf("without the note: %v", err)
	} else {
		if third = without.Validator(); bytes.Equal(third, again.Validator()) {
			t.Error("the validator does not know of the note")
		}
		without.Close()
	}
	// Written to in place, with the old time set again.
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Millisecond) // the file system's clock is coarse
	put(t, folder, qemuBase+".vma", raw)
	if err := os.Chtimes(path, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := content.Revalidate(t.Context()); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("written to, with the old time: %v", err)
	}
	if rewritten, err := scanFolder(t, folder)[0].Opener.Open(t.Context()); err != nil {
		t.Error(err)
	} else {
		if bytes.Equal(rewritten.Validator(), third) {
			t.Error("the validator does not know of the write")
		}
		rewritten.Close()
	}
	if err := os.Chtimes(path, created, created.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := content.Revalidate(t.Context()); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("touched: %v", err)
	}
	if _, err := p.Opener.Open(t.Context()); !errors.Is(err, backup.ErrChanged) {
		t.Errorf("opened after a touch: %v", err)
	}
	// A file cut short while it is read has changed; it was not broken.
	if err := os.Truncate(path, int64(len(raw)/2)); err != nil {
		t.Fatal(err)
	}
	if err := content.Stream(t.Context(), newRecorder(t, content.Objects())); !errors.Is(err, backup.ErrChanged) || errors.Is(err, backup.ErrBroken) {
		t.Errorf("cut short while open: %v", err)
	}
	os.Remove(path)
	if err := content.Revalidate(t.Context()); !errors.Is(err, backup.ErrVanished) {
		t.Errorf("removed: %v", err)
	}
	if _, err := p.Opener.Open(t.Context()); !errors.Is(err, backup.ErrVanished) {
		t.Errorf("opened after removal: %v", err)
	}
}

// A log too large to travel in the point is read like a disk.
func TestLargeLog(t *testing.T) {
	archive, _ := testVMA(conf)
	folder := t.TempDir()
	text := bytes.Repeat([]byte("INFO: a line\n"), 10_000)
	put(t, folder, qemuBase+".vma", encodeVMA(t, archive))
	put(t, folder, qemuBase+".log", text)
	_, content := readPoint(t, scanFolder(t, folder)[0])
	last := len(content.Objects()) - 1
	object := content.Objects()[last]
	if object.Access != source.AccessRandom || object.Size != int64(len(text)) || object.Inline != nil || object.Role != backup.RoleLog {
		t.Fatalf("log is %+v", object)
	}
	disk, err := content.Disk(last)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(disk, 0, disk.Size()))
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for extent, err := range disk.Extents(t.Context(), nil) {
		if err != nil || extent.Offset != 0 || extent.End() != disk.Size() {
			t.Errorf("extent %+v, %v", extent, err)
		}
	}
	if _, err := content.Disk(0); err == nil {
		t.Error("a disk of the archive can be read at random")
	}
}
