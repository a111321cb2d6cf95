package commitlog

import (
	"bytes"
	"encoding/json"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// crowded is a payload of so many points, each with a claim.
func crowded(points int) *Payload {
	p := samplePayload()
	for i := range points {
		id := backup.PointID{byte(i), byte(i >> 8), byte(i >> 16)}
		point := Point{ID: id, Machine: format.RandomName(), Created: time.Unix(1e9, 0).UTC()}.WithNewFile()
		if i%3 == 0 {
			point = point.WithFile("points/<" + format.RandomName().String() + ">")
		}
		p.Points = append(p.Points, point)
		p.Claims = append(p.Claims, Claim{Point: id, Job: "offsite", Flags: []string{"weekly"}})
	}
	return p
}

func TestPayloadIsEncodedAsByTheLibrary(t *testing.T) {
	for name, p := range map[string]*Payload{
		"empty": {}, "empty lists": {Packs: []Pack{}, Points: []Point{}}, "sample": samplePayload(),
		"a piece": crowded(piece), "some pieces": crowded(3*piece + 1),
	} {
		want, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendPayload([]byte("head"), p)
		if err != nil || !bytes.Equal(got, append([]byte("head"), want...)) {
			t.Errorf("%s: %v\n%.300s\nwant\n%.300s", name, err, got, want)
		}
	}
}

// Beside what it takes, a large payload needs the memory of a piece of it, not as much again.
func TestLargePayloadIsEncodedInPieces(t *testing.T) {
	p := crowded(40 * piece)
	allocated := func(encode func() []byte) (raw []byte, bytes uint64) {
		var before, after runtime.MemStats
		runtime.GC() // what the library keeps for the next time, too
		runtime.GC()
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // else what it keeps for the next piece is collected at some moments, and made anew
		runtime.ReadMemStats(&before)
		raw = encode()
		runtime.ReadMemStats(&after)
		return raw, after.TotalAlloc - before.TotalAlloc
	}
	raw, took := allocated(func() []byte {
		raw, err := appendPayload(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	})
	_, library := allocated(func() []byte { return mustJSON(t, p) })
	if most := library - uint64(len(raw)/2); took > most {
		t.Errorf("%d bytes were allocated for %d, want at most %d", took, len(raw), most)
	}
	if cap(raw) > len(raw)+len(raw)/4 {
		t.Errorf("%d bytes are held for %d", cap(raw), len(raw))
	}
}
