package commitlog

import (
	"encoding/binary"
	"maps"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

// The table of packs does what a map does.
func TestPacksAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packs, want := Packs{}, map[format.Name]Pack{}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			pack := Pack{ID: drawName(t), Frames: rapid.IntRange(0, 9).Draw(t, "frames")}
			if rapid.Bool().Draw(t, "remove") {
				packs.remove(pack.ID)
				delete(want, pack.ID)
			} else {
				packs.reserve(1)
				packs.set(pack)
				want[pack.ID] = pack
			}
			if got := maps.Collect(packs.All()); !maps.Equal(got, want) || packs.Len() != len(want) || len(packs.Names()) != len(want) {
				t.Fatalf("%v, want %v", got, want)
			}
			for n := range byte(6) {
				got, there := packs.Get(format.Name{n})
				if other, known := want[format.Name{n}]; got != other || there != known || packs.Has(format.Name{n}) != known || packs.Of(format.Name{n}) != other {
					t.Fatalf("pack %d is %v, %v", n, got, there)
				}
			}
		}
	})
}

// Of several packs of a list with one id the last counts, as of those that come one after the other.
func TestAListOfPacksMayHaveOneTwice(t *testing.T) {
	packs := packsOf([]Pack{{ID: format.Name{1}, Frames: 1}, {ID: format.Name{2}, Frames: 2}, {ID: format.Name{1}, Frames: 3}})
	if packs.Len() != 2 || packs.Of(format.Name{1}).Frames != 3 || packs.Of(format.Name{2}).Frames != 2 {
		t.Errorf("packs %+v", packs.list)
	}
}

// checkpointOf makes a checkpoint of so many packs, which one index segment covers, as they are where there are many.
func checkpointOf(t *testing.T, packs int) []byte {
	t.Helper()
	state, segment := NewState(), Segment{ID: format.Name{1}}
	payload := &Payload{}
	for i := range packs {
		name := format.Name{byte(i), byte(i >> 8), byte(i >> 16)}
		binary.BigEndian.PutUint64(name[8:], uint64(i)*0x9e3779b97f4a7c15)
		payload.Packs = append(payload.Packs, Pack{ID: name, Kind: "block", Domain: format.Name{2}, Size: 64 << 20, Frames: 512, Root: format.ID{3, byte(i)}})
		segment.Packs = append(segment.Packs, name)
	}
	payload.Index = []Segment{segment}
	state.Apply(payload, Head{N: 1})
	raw, err := EncodeCheckpoint(testHasher, state.Head, state.Payload())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What beginning with a checkpoint allocates for each pack is the slope of the memory that opening a repository takes: garbage is
// counted like what stays, so that no setting of the collector makes it more.
func TestAPackOfACheckpointAllocatesLittle(t *testing.T) {
	allocated := func(packs int) uint64 {
		raw := checkpointOf(t, packs)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		payload, _, err := DecodeCheckpoint(testHasher, 1, raw)
		if err != nil {
			t.Fatal(err)
		}
		state := Begin(&payload, Head{N: 1})
		runtime.ReadMemStats(&after)
		if state.Packs.Len() != packs || cap(state.Packs.list) != packs {
			t.Errorf("%d packs in room for %d, want %d", state.Packs.Len(), cap(state.Packs.list), packs)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	const few, many = 1 << 13, 1 << 16 // powers of two: just too many for half of a map's room
	if each := (allocated(many) - allocated(few)) / (many - few); each > 190 {
		t.Errorf("a pack allocates %d bytes, want 190 at most", each)
	}
}
