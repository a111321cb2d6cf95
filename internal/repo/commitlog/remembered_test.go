package commitlog

import (
	"runtime"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// What is remembered of a state is small, as it is made, as it lies there, and as it is read.
func TestAPointTakesLittleThatIsRemembered(t *testing.T) {
	const points = 20000
	s := crowdedState(points)
	allocated := func(work func()) int64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		work()
		runtime.ReadMemStats(&after)
		return int64(after.TotalAlloc-before.TotalAlloc) / points
	}
	var raw []byte
	made := allocated(func() {
		var err error
		if raw, _, err = EncodeRemembered(testHasher, s); err != nil {
			t.Fatal(err)
		}
	})
	var read *State
	took := allocated(func() {
		var err error
		if read, err = DecodeRemembered(testHasher, raw); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("a point: %d bytes remembered, %d allocated to write them, %d to read them", len(raw)/points, made, took)
	if len(raw)/points > 140 || made > 400 || took > 400 {
		t.Errorf("a point: %d bytes remembered, %d allocated to write them, %d to read them", len(raw)/points, made, took)
	}
	if !sameState(read, s) {
		t.Error("another state is read")
	}
}

// What is remembered is believed if every byte of it is what was written.
func TestEveryBitFlipOfWhatIsRememberedIsFound(t *testing.T) {
	s := NewState()
	s.Apply(samplePayload(), Head{N: 3, Checksum: format.ID{9}})
	s.Apply(&Payload{Points: []Point{Point{ID: backup.PointID{8}}.WithNewFile()}, Claims: []Claim{{Point: backup.PointID{8}, Job: "a"}}}, Head{N: 4, Checksum: format.ID{9}})
	raw, _, err := EncodeRemembered(testHasher, s)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeRemembered(testHasher, raw); !classified(err) {
			t.Errorf("bit %d: %v", bit, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for size := range raw {
		if _, err := DecodeRemembered(testHasher, raw[:size]); !classified(err) {
			t.Errorf("%d of %d bytes: %v", size, len(raw), err)
		}
	}
	checkpoint, err := EncodeCheckpoint(testHasher, s.Head, s.Payload())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeRemembered(testHasher, checkpoint); !classified(err) {
		t.Errorf("a checkpoint, as was remembered before: %v", err)
	}
}
