package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// Sums of the sample data's three states of one disk, from ref/SHA256SUMS.
var goldenSums = []string{
	"8fba832aea59500a1fe10e10190493e291bbc501066404f9ea405f8394f3af65",
	"2464bcb4d9ebb4aa75b0eafee55f042b6ddfcbe716c7ffedaec2cd16a1e6c999",
	"cd29fa984ec69dd59dfa465d1967b84b05ce0f73bae1b4aa2241ab446d1955c0",
}

const goldenSize = 13633024

// tool runs a QEMU program in dir. Without it the test fails, except in short runs.
func tool(t testing.TB, dir string, command ...string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		if testing.Short() {
			t.Skip(command[0] + " is not installed")
		}
		t.Fatalf("%s is needed; install the package qemu-utils", command[0])
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// create makes a qcow2 image in dir and writes patterns to it.
func create(t testing.TB, dir, name, backing, size string, writes ...string) {
	t.Helper()
	command := []string{"qemu-img", "create", "-q", "-f", "qcow2"}
	if backing != "" {
		kind := "qcow2"
		if strings.HasSuffix(backing, ".raw") {
			kind = "raw"
		}
		command = append(command, "-u", "-b", backing, "-F", kind)
	}
	tool(t, dir, append(command, name, size)...)
	write(t, dir, name, writes...)
}

func write(t testing.TB, dir, name string, writes ...string) {
	t.Helper()
	if len(writes) == 0 {
		return
	}
	command := []string{"qemu-io"}
	for _, w := range writes {
		command = append(command, "-c", w)
	}
	tool(t, dir, append(command, "-f", "qcow2", name)...)
}

func writeFile(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	where := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(where), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(where, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// golden returns the folder of sample data, or "" where there is none.
func golden() string {
	shared := os.Getenv("FERRY_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(shared, "golden", "images")); err != nil {
		return ""
	}
	return filepath.Join(shared, "golden")
}

// scanned is a source that has been scanned.
type scanned struct {
	root    *source.Root
	listing *source.Listing
	points  []source.Point
}

func openRoot(t testing.TB, dir string) (*source.Root, *source.Listing) {
	t.Helper()
	return sourcetest.List(t, dir, "src")
}

func scanDir(t testing.TB, dir string) scanned {
	t.Helper()
	root, listing := openRoot(t, dir)
	return scanListing(t, root, listing)
}

func scanListing(t testing.TB, root *source.Root, listing *source.Listing) scanned {
	t.Helper()
	points, err := Format{}.Scan(context.Background(), listing)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if (p.Opener != nil) != (p.State == backup.StateComplete) || (p.Reason != "") != (p.State != backup.StateComplete) {
			t.Errorf("%s: opener %v in state %s, reason %q", p.Machine.Key, p.Opener, p.State, p.Reason)
		}
		if p.ID != backup.NewPointID(p.Machine.Key, p.Origin.NativePointID) || p.Created.IsZero() && p.State == backup.StateComplete {
			t.Errorf("%s: id or time is not set", p.Machine.Key)
		}
	}
	return scanned{root, listing, points}
}

// summary writes points as lines "machine state disk,disk", and checks that times ascend.
func (s scanned) summary(t testing.TB) string {
	t.Helper()
	var lines []string
	for k, p := range s.points {
		var names []string
		for _, object := range p.Objects {
			names = append(names, backup.EncodeName(object.Name))
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", strings.TrimPrefix(p.Machine.Key.String(), "image/src/"), p.State, strings.Join(names, ",")))
		if k > 0 && s.points[k-1].Machine.Key == p.Machine.Key && !p.Created.After(s.points[k-1].Created) {
			t.Errorf("%s: point at %v follows one at %v", p.Machine.Key, p.Created, s.points[k-1].Created)
		}
	}
	return strings.Join(lines, "\n")
}

// of returns the points of a machine, by its native id or name, oldest first.
func (s scanned) of(t testing.TB, machine string, count int) []source.Point {
	t.Helper()
	var found []source.Point
	for _, p := range s.points {
		if p.Machine.Key.NativeID == machine || p.Machine.Name == machine {
			found = append(found, p)
		}
	}
	if len(found) != count {
		t.Fatalf("machine %s has %d points, not %d:\n%s", machine, len(found), count, s.summary(t))
	}
	return found
}

func opened(t testing.TB, p source.Point) source.Content {
	t.Helper()
	if p.Opener == nil {
		t.Fatalf("%s: %s: %s", p.Machine.Key, p.State, p.Reason)
	}
	content, err := p.Opener.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { content.Close() })
	return content
}

func disk(t testing.TB, content source.Content, i int) source.Disk {
	t.Helper()
	d, err := content.Disk(i)
	if err != nil {
		t.Fatal(err)
	}
	if content.Objects()[i].Size != d.Size() || content.Objects()[i].Access != source.AccessRandom {
		t.Errorf("object %+v of a disk of %d bytes", content.Objects()[i], d.Size())
	}
	return d
}

// readDisk reads all of a disk and checks its extents against the content. Unchanged ranges must be as in before.
func readDisk(t testing.TB, d source.Disk, base *backup.Base, before []byte) (content []byte, bytesOf map[backup.ExtentKind]int64) {
	t.Helper()
	content = make([]byte, d.Size())
	for offset := int64(0); offset < d.Size(); offset += 1 << 20 {
		end := min(offset+1<<20, d.Size())
		if n, err := d.ReadAt(content[offset:end], offset); int64(n) != end-offset || err != nil && err != io.EOF {
			t.Fatalf("read at %d: %d, %v", offset, n, err)
		}
	}
	bytesOf = map[backup.ExtentKind]int64{}
	var next int64
	for e, err := range d.Extents(context.Background(), base) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != next || e.Length <= 0 {
			t.Fatalf("extent %+v at %d", e, next)
		}
		next = e.End()
		bytesOf[e.Kind] += e.Length
		switch part := content[e.Offset:e.End()]; e.Kind {
		case backup.ExtentZero:
			if len(bytes.Trim(part, "\x00")) > 0 {
				t.Fatalf("extent %+v is not zeros", e)
			}
		case backup.ExtentUnchanged:
			if e.End() > int64(len(before)) || !bytes.Equal(part, before[e.Offset:e.End()]) {
				t.Fatalf("extent %+v is not as before", e)
			}
		}
	}
	if next != d.Size() {
		t.Fatalf("extents end at %d of %d", next, d.Size())
	}
	return content, bytesOf
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// makeGolden makes the sample images where they are not at hand, and returns their folder and the states' sums.
func makeGolden(t testing.TB) (string, []string) {
	t.Helper()
	if dir := golden(); dir != "" {
		return filepath.Join(dir, "images"), goldenSums
	}
	dir := t.TempDir()
	size := fmt.Sprint(goldenSize)
	create(t, dir, "base.qcow2", "", size, "write -P 1 0 300k", "write -P 2 12M 1000k")
	create(t, dir, "mid.qcow2", "base.qcow2", size, "write -P 3 1M 64k")
	create(t, dir, "top.qcow2", "mid.qcow2", size, "write -P 4 2M 100k")
	for name, options := range map[string]string{"plain": "", "zlib": "", "zstd": "compression_type=zstd", "extl2": "extended_l2=on"} {
		command := []string{"qemu-img", "convert", "-O", "qcow2", "top.qcow2", name + ".qcow2"}
		if options != "" {
			command = append(command[:4:4], append([]string{"-o", options}, command[4:]...)...)
		}
		if strings.HasPrefix(name, "z") {
			command = append(command[:2:2], append([]string{"-c"}, command[2:]...)...)
		}
		tool(t, dir, command...)
	}
	for name, command := range map[string]string{
		"dyn.vhd": "vpc -o force_size=on", "dyn.vhdx": "vhdx", "d.vdi": "vdi", "fixed.vhd": "vpc -o subformat=fixed,force_size=on",
		"monolithicFlat.vmdk": "vmdk -o subformat=monolithicFlat", "monolithicSparse.vmdk": "vmdk",
		"streamOptimized.vmdk": "vmdk -o subformat=streamOptimized", "twoGbMaxExtentSparse.vmdk": "vmdk -o subformat=twoGbMaxExtentSparse",
	} {
		tool(t, dir, append(append([]string{"qemu-img", "convert", "-O"}, strings.Fields(command)...), "top.qcow2", name)...)
	}
	writeFile(t, dir, "dynamic.vhd.gz", []byte("packed"))
	writeFile(t, dir, "fixed.vhdx.gz", []byte("packed"))
	var sums []string
	for _, name := range []string{"base", "mid", "top"} {
		tool(t, dir, "qemu-img", "convert", "-O", "raw", name+".qcow2", name+".out.gz")
		content, err := os.ReadFile(filepath.Join(dir, name+".out.gz"))
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, name+".out.gz"))
		sums = append(sums, sum(content))
	}
	return dir, sums
}

func TestSampleImages(t *testing.T) {
	dir, sums := makeGolden(t)
	s := scanDir(t, dir)
	want := `base.qcow2 complete base
base.qcow2 complete base
base.qcow2 complete base
d.vdi unsupported d
dyn.vhd unsupported dyn
dyn.vhdx unsupported dyn
extl2.qcow2 complete extl2
fixed.vhd unsupported fixed
monolithicFlat.vmdk unsupported monolithicFlat
monolithicSparse.vmdk unsupported monolithicSparse
plain.qcow2 complete plain
streamOptimized.vmdk unsupported streamOptimized
twoGbMaxExtentSparse.vmdk unsupported twoGbMaxExtentSparse
zlib.qcow2 complete zlib
zstd.qcow2 complete zstd`
	if got := s.summary(t); got != want {
		t.Errorf("points:\n%s", got)
	}
	if unknown := s.listing.Unknown(); unknown != 2 {
		t.Errorf("%d unknown files, not the two packed ones", unknown)
	}
	for k, p := range s.of(t, "base", 3) {
		content := opened(t, p)
		if got, _ := readDisk(t, disk(t, content, 0), nil, nil); sum(got) != sums[k] {
			t.Errorf("state %d of the chain is not the expected content", k)
		}
		if len(content.Ancestors()) != k || content.SourceVerified() || content.Revalidate(context.Background()) != nil {
			t.Errorf("state %d: %d ancestors", k, len(content.Ancestors()))
		}
	}
	for _, machine := range []string{"plain", "zlib", "zstd", "extl2"} {
		if got, _ := readDisk(t, disk(t, opened(t, s.of(t, machine, 1)[0]), 0), nil, nil); sum(got) != sums[2] {
			t.Errorf("%s is not the expected content", machine)
		}
	}
	if reason := s.of(t, "dyn.vhdx", 1)[0].Reason; reason != "VHDX images are not supported yet" {
		t.Errorf("reason %q", reason)
	}
}

func TestIncrementReadsOnlyTheOverlay(t *testing.T) {
	dir, sums := makeGolden(t)
	s := scanDir(t, dir)
	chain := s.of(t, "base", 3)
	var validators, contents [][]byte
	for _, p := range chain {
		content := opened(t, p)
		got, _ := readDisk(t, disk(t, content, 0), nil, nil)
		validators, contents = append(validators, content.Validator()), append(contents, got)
	}
	for _, c := range []struct{ point, base int }{{1, 0}, {2, 1}, {2, 0}, {2, 2}} {
		content := opened(t, chain[c.point])
		base := &backup.Base{ID: chain[c.base].ID, Validator: validators[c.base]}
		d := disk(t, content, 0)
		before := s.root.BytesRead()
		var data, unchanged int64
		for e, err := range d.Extents(context.Background(), base) {
			if err != nil {
				t.Fatal(err)
			}
			switch e.Kind {
			case backup.ExtentData:
				data += e.Length
				if _, err := d.ReadAt(make([]byte, e.Length), e.Offset); err != nil && err != io.EOF {
					t.Fatal(err)
				}
			case backup.ExtentUnchanged:
				unchanged += e.Length
			}
		}
		read := s.root.BytesRead() - before
		// The overlays have at most six clusters of 64 KiB between them; tables are read on top.
		if unchanged < goldenSize-7*65536 || data > 7*65536 || (c.point == c.base) != (data == 0) || read > data+(64<<10)*2 {
			t.Errorf("point %d over %d: %d data, %d unchanged, %d read", c.point, c.base, data, unchanged, read)
		}
		if got, _ := readDisk(t, d, base, contents[c.base]); sum(got) != sums[c.point] {
			t.Errorf("point %d: wrong content", c.point)
		}
	}
	// What was recorded for another file, or is no record at all, proves nothing.
	for _, validator := range [][]byte{nil, []byte("{"), bytes.Replace(validators[0], []byte(`"inode":`), []byte(`"inode":9`), 1), opened(t, s.of(t, "plain", 1)[0]).Validator()} {
		_, kinds := readDisk(t, disk(t, opened(t, chain[2]), 0), &backup.Base{ID: chain[0].ID, Validator: validator}, nil)
		if kinds[backup.ExtentUnchanged] != 0 {
			t.Errorf("%q proves %d bytes", validator, kinds[backup.ExtentUnchanged])
		}
	}
}
