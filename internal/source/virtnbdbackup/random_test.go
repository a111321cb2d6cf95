package virtnbdbackup_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// TestRandomChains makes chains with frames anywhere and disks of changing sizes, and compares each point with what it was made
// of: bytes, zeros, and what is said to be unchanged since each other point.
func TestRandomChains(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			c := newChain(t, t.TempDir(), random.IntN(2) == 0, "vda", "vdb")
			idents := map[string]string{}
			for range 2 + random.IntN(6) {
				if random.IntN(2) == 0 {
					c.sizes[c.disks[random.IntN(2)]] = int64(1+random.IntN(3000)) * 512
				}
				ident := c.backup(randomFrames(random, min(c.sizes["vda"], c.sizes["vdb"]))...)
				idents[ident] = ident
			}
			idents["diff"] = c.diff(created+int64(c.last)*3600+100, randomFrames(random, min(c.sizes["vda"], c.sizes["vdb"]))...)
			points := c.points()
			if len(points) != len(idents) {
				t.Fatalf("%d points of %d backups", len(points), len(idents))
			}
			for native, ident := range idents {
				opened := open(t, points[native])
				for _, name := range c.disks {
					disk, want := diskNamed(t, opened, name), c.images[ident][name]
					if !bytes.Equal(content(t, disk), want) {
						t.Fatalf("%s %s: wrong content", native, name)
					}
					readAnywhere(t, random, disk, want)
					for other, before := range idents {
						base := &backup.Base{ID: points[other].ID, Validator: open(t, points[other]).Validator()}
						checkExtents(t, extentsOf(t, disk, base), want, c.images[before][name])
					}
				}
			}
		})
	}
}

// randomFrames are frames of a disk, ascending, with gaps and without.
func randomFrames(random *rand.Rand, size int64) []streamtest.Frame {
	var frames []streamtest.Frame
	for at := int64(0); ; {
		if random.IntN(2) == 0 {
			at += int64(random.IntN(200)) * 512
		}
		length := int64(1+random.IntN(300)) * 512
		if at+length > size || len(frames) > 12 {
			return frames
		}
		frame := streamtest.Frame{Offset: at, Zero: length}
		if random.IntN(4) > 0 {
			frame = streamtest.Frame{Offset: at, Data: fill(byte(random.IntN(256)), int(length))}
		}
		frames = append(frames, frame)
		at += length
	}
}

func readAnywhere(t *testing.T, random *rand.Rand, disk source.Disk, want []byte) {
	t.Helper()
	for range 5 {
		from := random.IntN(len(want))
		piece := make([]byte, 1+random.IntN(len(want)-from))
		if n, err := disk.ReadAt(piece, int64(from)); n != len(piece) || (err != nil && err != io.EOF) || !bytes.Equal(piece, want[from:from+n]) {
			t.Fatalf("%d bytes at %d: %d, %v", len(piece), from, n, err)
		}
	}
}

// checkExtents compares what extents say with the content, now and in the base.
func checkExtents(t *testing.T, extents []backup.Extent, now, before []byte) {
	t.Helper()
	for _, extent := range extents {
		part := now[extent.Offset:extent.End()]
		switch {
		case extent.Kind == backup.ExtentZero && len(bytes.Trim(part, "\x00")) > 0:
			t.Fatalf("%+v is not zeros", extent)
		case extent.Kind == backup.ExtentUnchanged && (extent.End() > int64(len(before)) || !bytes.Equal(part, before[extent.Offset:extent.End()])):
			t.Fatalf("%+v is not as before", extent)
		}
	}
}
