package commitlog

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// A table finds what a map does, after whatever was added to it, taken out and put in another place.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var claims table[storedClaims, *storedClaims]
		want := map[backup.PointID]uint32{}
		id := rapid.Custom(func(t *rapid.T) backup.PointID { return backup.PointID{rapid.Byte().Draw(t, "id")} })
		for n := range rapid.IntRange(0, 400).Draw(t, "steps") {
			of := id.Draw(t, "of")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				claims.remove(of)
				delete(want, of)
			case 2, 3:
				claims.set(of, storedClaims{of, uint32(n)})
				want[of] = uint32(n)
			case 4:
				before := claims
				claims = before.clone()
				before.set(of, storedClaims{of, 1 << 20})
				before.remove(id.Draw(t, "gone"))
			}
			if len(claims.list) != len(want) {
				t.Fatalf("%d are there, want %d", len(claims.list), len(want))
			}
		}
		for b := range 256 {
			of := backup.PointID{byte(b)}
			set, there := want[of]
			if got := claims.get(of); (got != nil) != there || there && got.set != set {
				t.Fatalf("%v is %v, want %v, %v", of, got, set, there)
			}
		}
	})
}

// crowdedState is the state of so many points of some machines, as copies leave them: claimed by one job, a few with a flag.
func crowdedState(points int) *State {
	s := NewState()
	p := &Payload{}
	for i := range points {
		machine := backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(i%100), "", "pve")
		point := Point{
			ID: backup.NewPointID(machine, fmt.Sprint(i)), Machine: format.Name{byte(i % 100)}, Created: time.Unix(1e9+int64(i), 5).UTC(), Checksum: format.ID{byte(i), byte(i >> 8)},
		}.WithNewFile()
		claim := Claim{Point: point.ID, Job: fmt.Sprint("off", "site")}
		if i%7 == 0 {
			claim.Flags = []string{"weekly"}
		}
		p.Points, p.Claims = append(p.Points, point), append(p.Claims, claim)
	}
	s.Apply(p, Head{N: 1})
	return s
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A server has the states of some repositories in memory, each of which may have hundreds of thousands of points.
func TestAPointTakesLittleInAState(t *testing.T) {
	const points = 20000
	before := heapBytes()
	s := crowdedState(points)
	if each := (heapBytes() - before) / points; each > 260 {
		t.Errorf("a point and its claim take %d bytes", each)
	} else {
		t.Logf("a point and its claim take %d bytes", each)
	}
	if s.Points.Len() != points {
		t.Errorf("%d points", s.Points.Len())
	}
	runtime.KeepAlive(s)
}

// Points are in an entry as the library would write them, and are read in whatever way they are written.
func TestPointsInEntries(t *testing.T) {
	made := Point{ID: backup.PointID{1}, Machine: format.Name{2}, Created: time.Date(2026, 11, 22, 1, 0, 0, 500_000_000, time.UTC), Checksum: format.ID{3}}.WithNewFile()
	elsewhere := made
	elsewhere.Created = made.Created.In(time.FixedZone("", 3600))
	for what, point := range map[string]Point{
		"as it is made": made, "another name": made.WithFile("points/<a>"), "no name": {}, "a name of another point": made.WithFile(Point{ID: backup.PointID{9}}.WithNewFile().File()),
		"another zone": elsewhere, "digits that are none": made.WithFile(made.File()[:madeLength-1] + "g"), "upper-case digits": made.WithFile(made.File()[:madeLength-8] + "00AABBCC"),
	} {
		want := string(mustJSON(t, pointRecord{point.ID, point.Machine, point.Created, point.File(), point.Checksum}))
		if got := string(mustJSON(t, point)); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		for _, text := range []string{want, "{ " + want[1:], `{"later":1,` + want[1:]} {
			var read Point
			if err := read.UnmarshalJSON([]byte(text)); err != nil || string(mustJSON(t, read)) != want {
				t.Errorf("%s: %s reads back as %s, %v", what, text, mustJSON(t, read), err)
			}
		}
		s := NewState()
		s.Apply(&Payload{Points: []Point{point}}, Head{N: 1})
		if got := s.Points.Of(point.ID); got.File() != point.File() || !slices.Equal(mustJSON(t, got), mustJSON(t, point)) {
			t.Errorf("%s: the state has %+v, want %+v", what, got, point)
		}
	}
}
