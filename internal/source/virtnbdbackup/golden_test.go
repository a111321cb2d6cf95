package virtnbdbackup_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/source/virtnbdbackup"
)

// shared returns the folder with the sample data, which is not part of the repository.
func shared(t testing.TB) string {
	t.Helper()
	path := os.Getenv("FERRY_SHARED")
	if path == "" {
		path = "../../../../shared"
	}
	if _, err := os.Stat(filepath.Join(path, "golden", "virtnbdbackup")); err != nil {
		t.Skip("no sample data; set FERRY_SHARED")
	}
	return path
}

// scan lists a folder's points, and checks what every listing promises.
func scan(t testing.TB, path string) (*source.Root, []source.Point, *source.Listing) {
	t.Helper()
	root, listing := sourcetest.List(t, path, "")
	points, err := virtnbdbackup.Format{}.Scan(context.Background(), listing)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[backup.PointID]bool{}
	for _, p := range points {
		if (p.Opener != nil) != (p.State == backup.StateComplete) || (p.Reason == "") != (p.State == backup.StateComplete) {
			t.Errorf("%s: state %s, reason %q, opener %v", p.Origin.NativePointID, p.State, p.Reason, p.Opener)
		}
		if ids[p.ID] {
			t.Errorf("%s: the same id twice", p.Origin.NativePointID)
		}
		ids[p.ID] = true
	}
	return root, points, listing
}

func open(t testing.TB, p source.Point) source.Content {
	t.Helper()
	if p.Opener == nil {
		t.Fatalf("%s is %s: %s", p.Origin.NativePointID, p.State, p.Reason)
	}
	content, err := p.Opener.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { content.Close() })
	return content
}

// diskNamed opens the disk with that name.
func diskNamed(t testing.TB, content source.Content, name string) source.Disk {
	t.Helper()
	for i, object := range content.Objects() {
		if object.Role == backup.RoleDisk && object.Name == name {
			disk, err := content.Disk(i)
			if err != nil {
				t.Fatal(err)
			}
			if disk.Size() != object.Size {
				t.Errorf("%s: object of %d bytes, disk of %d", name, object.Size, disk.Size())
			}
			return disk
		}
	}
	t.Fatalf("no disk %s", name)
	return nil
}

// sumOf hashes a disk, reading odd pieces so that structures are crossed at all places.
func sumOf(t testing.TB, disk source.Disk) string {
	t.Helper()
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, struct{ io.Reader }{io.NewSectionReader(disk, 0, disk.Size())}, make([]byte, 300_007)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// expectedSums reads the sums of the reference images, by name.
func expectedSums(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sums := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if sum, name, ok := strings.Cut(lines.Text(), "  "); ok {
			sums[name] = sum
		}
	}
	return sums
}

func TestGoldenDisks(t *testing.T) {
	base := shared(t)
	sums := expectedSums(t, filepath.Join(base, "golden", "ref", "virtnbdbackup.SHA256SUMS"))
	_, points, listing := scan(t, filepath.Join(base, "golden", "virtnbdbackup"))
	if listing.Unknown() != 0 {
		t.Errorf("%d files were not claimed", listing.Unknown())
	}
	states := map[string]map[string]string{
		"lz4":   {"virtnbdbackup.0@": "3", "virtnbdbackup.1@": "4"},
		"plain": {"virtnbdbackup.0@": "0", "virtnbdbackup.1@": "1", "virtnbdbackup.2@": "2", "diff@": "3"},
	}
	if len(points) != 6 {
		t.Fatalf("%d points, not 6", len(points))
	}
	for _, p := range points {
		if p.Machine.Key.String() != "libvirt/3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f" || p.Machine.Name != "tinyvm" || p.Zone != "UTC" {
			t.Errorf("machine %v, zone %s", p.Machine, p.Zone)
		}
		name, _, _ := strings.Cut(p.Origin.NativePointID, "@")
		state := states[p.Origin.Location][name+"@"]
		content := open(t, p)
		disks := 0
		for _, object := range content.Objects() {
			if object.Role != backup.RoleDisk {
				continue
			}
			disks++
			if sum := sumOf(t, diskNamed(t, content, object.Name)); sum != sums[object.Name+"."+state+".raw"] {
				t.Errorf("%s %s %s: wrong content", p.Origin.Location, name, object.Name)
			}
		}
		if want := map[string]int{"lz4": 3, "plain": 2}[p.Origin.Location]; disks != want {
			t.Errorf("%s %s: %d disks, not %d", p.Origin.Location, name, disks, want)
		}
		if verified := content.SourceVerified(); verified != (p.Origin.Location == "lz4") {
			t.Errorf("%s %s: source verified: %v", p.Origin.Location, name, verified)
		}
		if err := content.Revalidate(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestGoldenInParallel reads the disk with a multi-part extent by several readers, as the engine does.
func TestGoldenInParallel(t *testing.T) {
	base := shared(t)
	_, points, _ := scan(t, filepath.Join(base, "golden", "virtnbdbackup", "lz4"))
	disk := diskNamed(t, open(t, points[len(points)-1]), "vdc")
	const block = 256 << 10
	image := make([]byte, disk.Size())
	offsets := make(chan int64)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for offset := range offsets {
				if n, err := disk.ReadAt(image[offset:min(offset+block, disk.Size())], offset); n == 0 {
					t.Errorf("at %d: %v", offset, err)
				}
			}
		})
	}
	for offset := int64(0); offset < disk.Size(); offset += block {
		offsets <- offset
	}
	close(offsets)
	readers.Wait()
	sums := expectedSums(t, filepath.Join(base, "golden", "ref", "virtnbdbackup.SHA256SUMS"))
	if sum := sha256.Sum256(image); hex.EncodeToString(sum[:]) != sums["vdc.4.raw"] {
		t.Error("wrong content")
	}
}

// TestGoldenIncrements: on its parent, each increment of the sample data asks only for what it has frames of.
func TestGoldenIncrements(t *testing.T) {
	base := shared(t)
	_, points, _ := scan(t, filepath.Join(base, "golden", "virtnbdbackup", "plain"))
	want := map[string]int64{"virtnbdbackup.1": 589824, "virtnbdbackup.2": 5242880, "diff": 1048576}
	for i, p := range points[1:] {
		parent := points[i]
		content := open(t, p)
		if ancestors := content.Ancestors(); len(ancestors) != i+1 || ancestors[0] != parent.ID {
			t.Errorf("%s: ancestors %v", p.Origin.NativePointID, ancestors)
		}
		offered := &backup.Base{ID: parent.ID, Validator: open(t, parent).Validator()}
		data := int64(0)
		for _, extent := range extentsOf(t, diskNamed(t, content, "vda"), offered) {
			if extent.Kind == backup.ExtentData {
				data += extent.Length
			}
		}
		name, _, _ := strings.Cut(p.Origin.NativePointID, "@")
		if data != want[name] {
			t.Errorf("%s: %d bytes to read, not %d", name, data, want[name])
		}
	}
}
