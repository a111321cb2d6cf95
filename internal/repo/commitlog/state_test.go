package commitlog

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// Few ids, so that entries of a sequence speak of the same things often.
func drawName(t *rapid.T) format.Name { return format.Name{rapid.ByteRange(1, 4).Draw(t, "name")} }

func drawPoint(t *rapid.T) backup.PointID {
	return backup.PointID{rapid.ByteRange(1, 4).Draw(t, "point")}
}

func drawTime(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).UTC()
}

// some draws a few things, nil rather than none: that is how JSON reads back.
func some[T any](t *rapid.T, what string, draw func(*rapid.T) T) []T {
	var list []T
	for range rapid.IntRange(-2, 2).Draw(t, what) {
		list = append(list, draw(t))
	}
	return list
}

func drawClaim(t *rapid.T) Claim {
	return Claim{Point: drawPoint(t), Job: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "job"), Reason: fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "why")),
		Flags: some(t, "flags", func(t *rapid.T) string { return rapid.SampledFrom([]string{"weekly", "Ü <&>"}).Draw(t, "flag") })}
}

func drawHold(t *rapid.T) Hold {
	hold := Hold{Point: drawPoint(t), ID: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "hold"), Reason: fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "why"))}
	if rapid.Bool().Draw(t, "ends") {
		until := drawTime(t)
		hold.Until = &until
	}
	return hold
}

func drawBad(t *rapid.T) Bad {
	n := rapid.Int64Range(0, 1).Draw(t, "bad")
	return Bad{Pack: drawName(t), Offset: 64, Length: 100 + n, ID: format.ID{byte(n)}}
}

func drawPayload(t *rapid.T) Payload {
	p := Payload{Time: drawTime(t), Writer: "w", Program: "ferry test"}
	if rapid.Bool().Draw(t, "first") {
		p.Repository = &Repository{ID: drawName(t), Checksum: format.ID{1}}
	}
	n := func() int64 { return rapid.Int64Range(0, 3).Draw(t, "n") }
	p.Domains = some(t, "domains", func(t *rapid.T) Domain { return Domain{ID: drawName(t), Sealed: rapid.Bool().Draw(t, "sealed")} })
	p.Packs = some(t, "packs", func(t *rapid.T) Pack {
		return Pack{ID: drawName(t), Kind: "data", Domain: drawName(t), Size: n(), Frames: int(n())}
	})
	p.Condemned = some(t, "condemned", drawName)
	p.Deleted = some(t, "deleted", drawName)
	drawFile := func(t *rapid.T) string { return fmt.Sprint("points/", rapid.IntRange(0, 3).Draw(t, "file")) }
	p.CondemnedFiles, p.DeletedFiles = some(t, "condemned files", drawFile), some(t, "deleted files", drawFile)
	p.Index = some(t, "index", func(t *rapid.T) Segment {
		return Segment{ID: drawName(t), Size: n(), Packs: some(t, "covers", drawName)}
	})
	p.IndexRemoved = some(t, "index removed", drawName)
	p.Points = some(t, "points", func(t *rapid.T) Point {
		point := Point{ID: drawPoint(t), Machine: drawName(t), Created: drawTime(t)}.WithNewFile()
		if rapid.Bool().Draw(t, "named otherwise") {
			point = point.WithFile(fmt.Sprint(n()))
		}
		return point
	})
	p.PointsRemoved = some(t, "points removed", drawPoint)
	p.Claims, p.ClaimsWithdrawn = some(t, "claims", drawClaim), some(t, "withdrawn", drawClaim)
	p.Holds, p.HoldsReleased = some(t, "holds", drawHold), some(t, "released", drawHold)
	p.Tombstones = some(t, "tombstones", func(t *rapid.T) Tombstone {
		return Tombstone{ID: drawPoint(t), Machine: drawName(t), Created: drawTime(t)}
	})
	p.TombstonesLifted = some(t, "lifted", drawPoint)
	p.Bad, p.BadHealed = some(t, "bad", drawBad), some(t, "healed", drawBad)
	p.Damaged = some(t, "damaged", func(t *rapid.T) Damaged { return Damaged{Point: drawPoint(t), Places: int(n()), Bytes: n()} })
	p.DamagedHealed = some(t, "damaged healed", drawPoint)
	p.Partials = some(t, "partials", func(t *rapid.T) Partial {
		return Partial{Task: drawName(t), Point: drawPoint(t), Machine: drawName(t), File: fmt.Sprint(n())}
	})
	p.PartialsEnded = some(t, "ended", drawName)
	p.Rotated = uint32(n())
	return p
}

// A checkpoint says all that the entries before it say: it does not matter after which one a reader begins with it.
func TestCheckpointIsTheState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replayed, begun := NewState(), NewState()
		for n := range uint64(rapid.IntRange(1, 6).Draw(t, "entries")) {
			payload := drawPayload(t)
			head := Head{N: n + 1, Checksum: format.ID{byte(n)}}
			replayed.Apply(&payload, head)
			begun.Apply(&payload, head)
			raw, err := EncodeCheckpoint(testHasher, head, replayed.Payload())
			if err != nil {
				t.Fatal(err)
			}
			read, _, err := DecodeCheckpoint(testHasher, head.N, raw)
			if err != nil {
				t.Fatal(err)
			}
			kept, _, err := EncodeRemembered(testHasher, replayed)
			if err != nil {
				t.Fatal(err)
			}
			remembered, err := DecodeRemembered(testHasher, kept)
			if err != nil || !sameState(remembered, replayed) {
				t.Fatalf("after entry %d, remembered, %v:\n%+v\nreplayed:\n%+v", head.N, err, remembered, replayed)
			}
			switch rapid.IntRange(0, 2).Draw(t, "begin here") {
			case 1:
				begun = Begin(&read, head)
			case 2:
				begun = remembered
			}
			if !sameState(begun, replayed) {
				t.Fatalf("after entry %d, begun with a checkpoint:\n%+v\nreplayed:\n%+v", head.N, begun, replayed)
			}
			if again, err := EncodeCheckpoint(testHasher, head, begun.Payload()); err != nil || !slices.Equal(again, raw) {
				t.Fatalf("one state, two checkpoints: %v", err)
			}
		}
	})
}

// sameState compares what states say, whatever the order in which their packs, points and claims came.
func sameState(a, b *State) bool {
	one, other := *a, *b
	for _, s := range []*State{&one, &other} {
		s.Packs, s.Points, s.Claims = Packs{}, Points{}, Claims{}
	}
	return reflect.DeepEqual(one, other) && reflect.DeepEqual(a.Payload(), b.Payload())
}

func TestAPointThatIsAddedHasNoTombstone(t *testing.T) {
	s, point := NewState(), backup.PointID{1}
	s.Apply(&Payload{Tombstones: []Tombstone{{ID: point}, {ID: backup.PointID{2}}}}, Head{N: 1})
	s.Apply(&Payload{Points: []Point{{ID: point}}}, Head{N: 2})
	if _, there := s.Tombstones[point]; there || len(s.Tombstones) != 1 {
		t.Fatalf("tombstones %v", s.Tombstones)
	}
	s.Apply(&Payload{PointsRemoved: []backup.PointID{point}, Tombstones: []Tombstone{{ID: point}}}, Head{N: 3})
	if _, there := s.Tombstones[point]; !there {
		t.Fatal("a point that was removed again has no tombstone")
	}
}

// rules are those of section 4 that an entry by itself shows.
func TestApplyRemovesBeforeItAdds(t *testing.T) {
	name, point := format.Name{1}, backup.PointID{1}
	bad, gone := Bad{Pack: name, Offset: 64}, Bad{Pack: name, Offset: 900}
	s := NewState()
	s.Apply(&Payload{
		Packs: []Pack{{ID: name, Frames: 1}}, Condemned: []format.Name{name}, Index: []Segment{{ID: name}}, Points: []Point{Point{ID: point}.WithFile("old")},
		Claims: []Claim{{Point: point, Job: "a", Reason: "old"}, {Point: point, Job: "b"}}, Holds: []Hold{{Point: point, ID: "a"}, {Point: point, ID: "b"}},
		Tombstones: []Tombstone{{ID: point}}, Bad: []Bad{bad, gone}, Partials: []Partial{{Task: name, File: "old"}},
	}, Head{N: 1})
	s.Apply(&Payload{
		Packs: []Pack{{ID: name, Frames: 2}}, Deleted: []format.Name{name}, Index: []Segment{{ID: name, Size: 2}}, IndexRemoved: []format.Name{name},
		Points: []Point{Point{ID: point}.WithFile("new")}, PointsRemoved: []backup.PointID{point},
		Claims: []Claim{{Point: point, Job: "a", Reason: "new"}}, ClaimsWithdrawn: []Claim{{Point: point, Job: "a"}},
		Holds: []Hold{{Point: point, ID: "a", Reason: "new"}}, HoldsReleased: []Hold{{Point: point, ID: "a"}},
		Tombstones: []Tombstone{{ID: point, Reason: "new"}}, TombstonesLifted: []backup.PointID{point},
		Bad: []Bad{bad}, BadHealed: []Bad{bad}, Partials: []Partial{{Task: name, File: "new"}}, PartialsEnded: []format.Name{name},
	}, Head{N: 2})
	want := NewState()
	want.Head.N = 2
	want.Packs = packsOf([]Pack{{ID: name, Frames: 2, Entry: 2}})
	want.Index[name] = Segment{ID: name, Size: 2}
	want.Points.set(Point{ID: point}.WithFile("new"))
	want.Tombstones[point] = Tombstone{ID: point, Reason: "new"}
	want.Claims.add(Claim{Point: point, Job: "a", Reason: "new"})
	want.Holds[point] = []Hold{{Point: point, ID: "a", Reason: "new"}}
	want.Bad[bad] = true
	want.Partials[name] = []Partial{{Task: name, File: "new"}}
	if !sameState(s, want) {
		t.Errorf("state\n%+v, want\n%+v", s, want)
	}
	if !s.Live(name) || s.Live(format.Name{2}) {
		t.Error("the deleted pack was condemned, the pack that came again is not")
	}
}

// A state and its clones do not change with each other, whichever of them changes first, and again.
func TestClonesDoNotChangeWithEachOther(t *testing.T) {
	name := func(n byte) format.Name { return format.Name{n} }
	packs := func(s *State) string { return fmt.Sprint(s.Payload().Packs) }
	want := func(s *State, what string, names ...byte) {
		t.Helper()
		other := NewState()
		for _, n := range names {
			other.Apply(&Payload{Packs: []Pack{{ID: name(n), Entry: 1}}}, Head{N: 1})
		}
		if packs(s) != packs(other) {
			t.Errorf("%s has the packs %s, want %s", what, packs(s), packs(other))
		}
	}
	add := func(s *State, n byte) {
		s.Apply(&Payload{Packs: []Pack{{ID: name(n), Entry: 1}}}, Head{N: 1})
	}
	s := NewState()
	add(s, 1)
	first := s.Clone()
	add(s, 2)
	second := s.Clone()
	add(second, 3)
	third := second.Clone()
	s.Apply(&Payload{Deleted: []format.Name{name(1)}}, Head{N: 2})
	third.Apply(&Payload{Deleted: []format.Name{name(2), name(3)}}, Head{N: 2})
	want(first, "the first clone", 1)
	want(s, "the state", 2)
	want(second, "the second clone", 1, 2, 3)
	want(third, "the clone of the second", 1)
}

func TestApplyIgnoresUnknownRemovals(t *testing.T) {
	name, point := format.Name{1}, backup.PointID{1}
	s := NewState()
	s.Apply(&Payload{
		Deleted: []format.Name{name}, IndexRemoved: []format.Name{name}, PointsRemoved: []backup.PointID{point}, ClaimsWithdrawn: []Claim{{Point: point}},
		HoldsReleased: []Hold{{Point: point}}, TombstonesLifted: []backup.PointID{point}, BadHealed: []Bad{{Pack: name}}, PartialsEnded: []format.Name{name},
	}, Head{})
	if !reflect.DeepEqual(s, NewState()) {
		t.Errorf("state %+v, want nothing", s)
	}
}

// What a caller took from the state stays as it was when entries follow.
func TestApplyLeavesTakenListsAlone(t *testing.T) {
	point := backup.PointID{1}
	s := NewState()
	s.Apply(&Payload{Claims: []Claim{{Point: point, Job: "a"}, {Point: point, Job: "b"}}}, Head{})
	taken := s.Claims.Of(point)
	s.Apply(&Payload{Claims: []Claim{{Point: point, Job: "a", Reason: "later"}}, ClaimsWithdrawn: []Claim{{Point: point, Job: "b"}}}, Head{})
	if taken[0].Job != "a" || taken[0].Reason != "" || taken[1].Job != "b" {
		t.Errorf("a list taken before has become %+v", taken)
	}
}

func TestSortPoints(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	points := []Point{
		{ID: backup.PointID{2}, Created: day(2)}, {ID: backup.PointID{1}, Created: day(2)}, {ID: backup.PointID{3}, Created: day(1)},
	}
	SortPoints(points)
	var order []byte
	for _, point := range points {
		order = append(order, point.ID[0])
	}
	if !slices.Equal(order, []byte{3, 1, 2}) {
		t.Errorf("points in the order %v", order)
	}
}

// What is condemned stays condemned by the entry that did it first, until it is deleted; a checkpoint remembers which.
func TestCondemnedByTheFirstEntry(t *testing.T) {
	pack, file := format.Name{1}, "points/a"
	s := NewState()
	s.Apply(&Payload{Condemned: []format.Name{pack}, CondemnedFiles: []string{file}}, Head{N: 5})
	s.Apply(&Payload{Condemned: []format.Name{pack, {2}}, CondemnedFiles: []string{file}}, Head{N: 7})
	begun := Begin(s.Payload(), Head{N: 9})
	for _, state := range []*State{s, begun} {
		for what, want := range map[string]uint64{pack.String(): 5, file: 5, format.Name{2}.String(): 7} {
			if got := state.CondemnedIn[what]; got != want {
				t.Errorf("%s was condemned by entry %d, not %d", what, got, want)
			}
		}
	}
	begun.Apply(&Payload{Deleted: []format.Name{pack}, DeletedFiles: []string{file}}, Head{N: 10})
	if len(begun.Condemned) != 1 || len(begun.CondemnedFiles) != 0 || len(begun.CondemnedIn) != 1 {
		t.Errorf("what is deleted is still condemned: %+v", begun)
	}
}
