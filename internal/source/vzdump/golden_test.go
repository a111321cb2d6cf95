package vzdump

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// goldenFolder is where the samples of Proxmox's own tool are: $FERRY_SHARED/golden/vzdump, or beside the repository,
// or the copies in testdata (testdata/README.md).
func goldenFolder(t testing.TB) string {
	t.Helper()
	for _, shared := range []string{os.Getenv("FERRY_SHARED"), "../../../../shared"} {
		folder := filepath.Join(shared, "golden", "vzdump")
		if _, err := os.Stat(folder); err == nil && shared != "" {
			return folder
		}
	}
	return "testdata/golden"
}

// Sums of the images that the samples were made from.
const (
	sumDisk0 = "8fba832aea59500a1fe10e10190493e291bbc501066404f9ea405f8394f3af65"
	sumDisk1 = "2464bcb4d9ebb4aa75b0eafee55f042b6ddfcbe716c7ffedaec2cd16a1e6c999"
	sumDisk2 = "cd29fa984ec69dd59dfa465d1967b84b05ce0f73bae1b4aa2241ab446d1955c0"
	sumSmall = "92dc30800ff5d9f4df6811ab817e2e1dcf1e703975608a30a9802eaec7bd879f"
)

func TestGoldenContent(t *testing.T) {
	points := scanFolder(t, goldenFolder(t))
	if len(points) != 3 {
		t.Fatalf("%d points, want 3", len(points))
	}
	for i, disk := range []string{sumDisk0, sumDisk1, sumDisk2} {
		point := points[i]
		if point.State != backup.StateComplete {
			t.Fatalf("point %d is %s: %s", i, point.State, point.Reason)
		}
		read, content := readPoint(t, point)
		if got := read.sum(0); got != disk {
			t.Errorf("point %d: drive-scsi0 has sum %s, want %s", i, got, disk)
		}
		if got := read.sum(1); got != sumSmall {
			t.Errorf("point %d: drive-scsi1 has sum %s, want %s", i, got, sumSmall)
		}
		if !content.SourceVerified() {
			t.Errorf("point %d: not verified by its compression's checksum", i)
		}
		if err := content.Revalidate(t.Context()); err != nil {
			t.Errorf("point %d: %v", i, err)
		}
	}
}

// recorder is a sink that keeps what it is given and checks the rules of source.Sink.
type recorder struct {
	t       testing.TB
	objects []source.Object
	data    map[int][]byte
	given   map[int]int64 // bytes given as data or zeros
	ended   map[int]int64
	calls   int
}

func newRecorder(t testing.TB, objects []source.Object) *recorder {
	return &recorder{t: t, objects: objects, data: map[int][]byte{}, given: map[int]int64{}, ended: map[int]int64{}}
}

func (r *recorder) room(i int, offset, length int64) []byte {
	r.calls++
	object := r.objects[i]
	if object.Access != source.AccessOnePass {
		r.t.Fatalf("object %d is not one-pass", i)
	}
	if object.Shifting {
		if offset != int64(len(r.data[i])) {
			r.t.Fatalf("archive continues at %d, want %d", offset, len(r.data[i]))
		}
	} else if end := offset + length; offset%source.SinkGrain != 0 || (end%source.SinkGrain != 0 && end != object.Size) {
		r.t.Fatalf("object %d: range %d+%d is not aligned", i, offset, length)
	}
	if length <= 0 {
		r.t.Fatalf("object %d: empty range at %d", i, offset)
	}
	if missing := offset + length - int64(len(r.data[i])); missing > 0 {
		r.data[i] = append(r.data[i], make([]byte, missing)...)
	}
	r.given[i] += length
	return r.data[i][offset : offset+length]
}

func (r *recorder) Data(i int, offset int64, p []byte) error {
	copy(r.room(i, offset, int64(len(p))), p)
	return nil
}

func (r *recorder) Zero(i int, offset, length int64) error {
	clear(r.room(i, offset, length))
	return nil
}

func (r *recorder) End(i int, size int64) error {
	if _, twice := r.ended[i]; twice || int64(len(r.data[i])) != size || r.given[i] != size {
		r.t.Fatalf("object %d ends at %d with %d bytes given, up to %d", i, size, r.given[i], len(r.data[i]))
	}
	r.ended[i] = size
	return nil
}

func (r *recorder) sum(i int) string {
	sum := sha256.Sum256(r.data[i])
	return hex.EncodeToString(sum[:])
}

// scanFolder scans a folder under the source name "pve".
func scanFolder(t testing.TB, folder string) []source.Point {
	t.Helper()
	points, _ := scanListing(t, folder)
	return points
}

func scanListing(t testing.TB, folder string) ([]source.Point, *source.Listing) {
	t.Helper()
	_, listing := sourcetest.List(t, folder, "pve")
	points, err := New().Scan(context.Background(), listing)
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range points {
		if (point.Opener == nil) != (point.State != backup.StateComplete) || (point.Reason == "") != (point.State == backup.StateComplete) {
			t.Errorf("%s: state %s, reason %q, opener %v", point.Origin.Location, point.State, point.Reason, point.Opener != nil)
		}
	}
	return points, listing
}

// readPoint streams a point and demands that it is sound.
func readPoint(t testing.TB, point source.Point) (*recorder, source.Content) {
	t.Helper()
	content, err := point.Opener.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { content.Close() })
	read := newRecorder(t, content.Objects())
	if err := content.Stream(context.Background(), read); err != nil {
		t.Fatal(err)
	}
	for i, object := range content.Objects() {
		if _, ended := read.ended[i]; ended != (object.Access == source.AccessOnePass) {
			t.Errorf("object %d (%s): ended %v", i, object.Name, ended)
		}
	}
	return read, content
}
