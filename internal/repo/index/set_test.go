package index

import (
	"context"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

func segmentOf(t interface{ Fatalf(string, ...any) }, entries ...Entry) *Segment {
	s, err := Open(Build(testHasher, entries), testHasher)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

func add(t interface{ Fatalf(string, ...any) }, s *Set, name byte, entries ...Entry) {
	segment := segmentOf(t, entries...)
	s.AddSegment(format.Name{name}, segment, segment.Packs())
}

func wantPack(t *testing.T, s *Set, what string, id format.ID, pack byte) {
	t.Helper()
	place, ok, _ := s.Find(t.Context(), id)
	if ok != (pack != 0) || (ok && place.Pack != format.Name{pack}) {
		t.Errorf("%s: found %v in %s, want pack %d", what, ok, place.Pack, pack)
	}
}

func TestSetFollowsAPack(t *testing.T) {
	s, first, second := NewSet(format.Name{}, nil), entry(1, 1, 64), entry(2, 2, 64)
	wantPack(t, s, "empty", first.ID, 0)
	s.AddPack(first.Pack, []Entry{first})
	s.AddPack(first.Pack, []Entry{first, second}) // known already: not taken again
	wantPack(t, s, "in a pack", first.ID, 1)
	wantPack(t, s, "not in it", second.ID, 0)
	s.AddPack(second.Pack, []Entry{second})
	if entries, packs := s.Uncovered(); packs != 2 || len(entries) != 2 {
		t.Errorf("%d entries of %d packs are in no segment", len(entries), packs)
	}
	covering := segmentOf(t, first)
	s.AddSegment(format.Name{10}, covering, covering.Packs())
	wantPack(t, s, "in a segment", first.ID, 1)
	wantPack(t, s, "beside the segment", second.ID, 2)
	if entries, packs := s.Uncovered(); packs != 1 || !slices.Equal(entries, []Entry{second}) {
		t.Errorf("%v of %d packs are in no segment", entries, packs)
	}
	add(t, s, 11, first, second)
	if open, done := s.Segments(); len(open) != 2 || open[format.Name{10}] != covering {
		t.Error("the set gives other segments than were added")
	} else {
		done()
	}
	s.RemoveSegment(format.Name{10})
	s.RemoveSegment(format.Name{10})
	wantPack(t, s, "in the segment that replaces one", first.ID, 1)
	s.RemoveSegment(format.Name{11})
	wantPack(t, s, "in no segment", first.ID, 0)
}

func TestSetHides(t *testing.T) {
	s, here, there := NewSet(format.Name{}, nil), entry(1, 1, 64), entry(1, 2, 900)
	add(t, s, 10, here, entry(2, 1, 300), there)
	s.Hide(here.Pack)
	wantPack(t, s, "of two packs one is hidden", here.ID, 2)
	wantPack(t, s, "the only pack is hidden", blockID(2), 0)
	s.Hide(there.Pack)
	wantPack(t, s, "both packs are hidden", here.ID, 0)
	s.AddPack(format.Name{3}, []Entry{entry(1, 3, 64)})
	wantPack(t, s, "stored again", here.ID, 3)
	s.AddPack(here.Pack, []Entry{here})
	s.Hide(format.Name{3})
	wantPack(t, s, "a hidden pack that comes late", here.ID, 0)
	if _, packs := s.Uncovered(); packs != 0 {
		t.Errorf("%d hidden packs wait for a segment", packs)
	}
}

// Two writers may store the same block. Losing one copy must not lose the other.
func TestSetKeepsOtherCopies(t *testing.T) {
	for gone := range byte(3) {
		for _, bySegment := range []bool{false, true} {
			s := NewSet(format.Name{}, nil)
			for pack := range byte(3) {
				s.AddPack(format.Name{pack + 1}, []Entry{entry(1, pack+1, 64), entry(1, pack+1, 300)})
			}
			if bySegment {
				add(t, s, 10, entry(1, gone+1, 64))
			}
			left := []byte{1, 2, 3}
			for _, hide := range []byte{gone, (gone + 1) % 3, (gone + 2) % 3} {
				place, ok, _ := s.Find(t.Context(), blockID(1))
				if !ok || !slices.Contains(left, place.Pack[0]) {
					t.Fatalf("found %v in %s, want one of %v", ok, place.Pack, left)
				}
				s.Hide(format.Name{hide + 1})
				left = slices.DeleteFunc(left, func(pack byte) bool { return pack == hide+1 })
			}
			if place, ok, _ := s.Find(t.Context(), blockID(1)); ok {
				t.Fatalf("found in %s, though all packs are hidden", place.Pack)
			}
			for pack := range byte(3) {
				s.Forget(format.Name{pack + 1})
			}
			if len(s.recent) != 0 || len(s.others) != 0 {
				t.Fatalf("%d and %d places are kept for nothing", len(s.recent), len(s.others))
			}
		}
	}
}

// Of the places of an id the one in the pack that was named last is found, wherever they are known from and in whatever order they came.
func TestSetFindsWhatWasNamedLast(t *testing.T) {
	named := []byte{3, 1, 2}
	entries := []Entry{entry(1, 1, 64), entry(1, 2, 64), entry(1, 3, 64)}
	for where, know := range map[string]func(s *Set){
		"in memory": func(s *Set) {
			for _, e := range entries {
				s.AddPack(e.Pack, []Entry{e})
			}
		},
		"in a segment": func(s *Set) { add(t, s, 10, entries...) },
		"in segments": func(s *Set) {
			for i, e := range entries {
				add(t, s, byte(10+i), e)
			}
		},
		"in a segment, others in memory": func(s *Set) {
			add(t, s, 10, entries[1])
			s.AddPack(entries[0].Pack, entries[:1])
			s.AddPack(entries[2].Pack, entries[2:])
		},
		"in a segment read in parts": func(s *Set) {
			raw := Build(testHasher, entries)
			s.AddSegment(format.Name{10}, partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), nil), nil)
		},
	} {
		s := NewSet(format.Name{}, func(_ context.Context, pack format.Name) ([]Entry, error) {
			return []Entry{entry(1, pack[0], 64)}, nil
		})
		s.Prefer(func(a, b format.Name) int { return slices.Index(named, a[0]) - slices.Index(named, b[0]) })
		know(s)
		for _, pack := range slices.Backward(named) {
			wantPack(t, s, where, blockID(1), pack)
			s.Hide(format.Name{pack})
		}
		wantPack(t, s, where, blockID(1), 0)
	}
}

// setModel is what a set should know: which packs hold an id, and how.
type setModel struct {
	held     map[byte][]Entry // packs in memory
	segments map[byte][]Entry
	hidden   map[byte]bool
}

// places of an id: all, or those in packs that are not hidden.
func (m *setModel) places(id format.ID, all bool) []Place {
	var found []Place
	for _, lists := range []map[byte][]Entry{m.held, m.segments} {
		for _, list := range lists {
			for _, e := range list {
				if e.ID == id && (all || !m.hidden[e.Pack[0]]) {
					found = append(found, e.Place)
				}
			}
		}
	}
	return found
}

func TestSetIsItsModel(t *testing.T) {
	content := map[byte][]Entry{}
	for pack := byte(1); pack <= 6; pack++ {
		for i := range uint64(4) {
			content[pack] = append(content[pack], entry(i*uint64(pack)%7, pack, uint32(64+i*100)))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, m := NewSet(format.Name{}, nil), setModel{map[byte][]Entry{}, map[byte][]Entry{}, map[byte]bool{}}
		pack := rapid.Custom(func(t *rapid.T) byte { return rapid.ByteRange(1, 6).Draw(t, "pack") })
		covered := func(pack byte) bool {
			return slices.ContainsFunc(slices.Collect(func(yield func(Entry) bool) {
				for _, list := range m.segments {
					for _, e := range list {
						_ = yield(e)
					}
				}
			}), func(e Entry) bool { return e.Pack[0] == pack })
		}
		t.Repeat(map[string]func(*rapid.T){
			"pack": func(t *rapid.T) {
				p := pack.Draw(t, "new")
				if covered(p) {
					t.Skip("callers add no pack that a segment has")
				}
				s.AddPack(format.Name{p}, content[p])
				m.held[p] = content[p]
			},
			"segment": func(t *rapid.T) {
				name := rapid.ByteRange(10, 13).Draw(t, "segment")
				if m.segments[name] != nil {
					s.RemoveSegment(format.Name{name})
					delete(m.segments, name)
					return
				}
				one, other := pack.Draw(t, "one"), pack.Draw(t, "other")
				for _, p := range slices.Compact([]byte{one, other}) {
					m.segments[name] = append(m.segments[name], content[p]...)
					delete(m.held, p)
				}
				add(t, s, name, slices.Clone(m.segments[name])...)
			},
			"hide": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
					p := pack.Draw(t, "gone")
					s.Hide(format.Name{p})
					m.hidden[p] = true
				}
			},
			"": func(t *rapid.T) {
				for i := range uint64(8) {
					want := m.places(blockID(i), false)
					place, ok, _ := s.Find(t.Context(), blockID(i))
					if ok != (len(want) > 0) || (ok && !slices.Contains(want, place)) {
						t.Fatalf("id %d: found %v %v, want one of %v", i, ok, place, want)
					}
				}
				for i := range uint64(8) {
					all := m.places(blockID(i), true) // what is given up can be read while its pack exists
					if found, _ := s.FindAll(t.Context(), blockID(i)); !sameSet(found, all) {
						t.Fatalf("id %d: found all of %v, want %v", i, found, all)
					}
				}
				waiting := 0
				for p := range m.held {
					if !m.hidden[p] {
						waiting++
					}
				}
				if _, packs := s.Uncovered(); packs != waiting {
					t.Fatalf("%d packs in no segment, want %d", packs, waiting)
				}
			},
		})
	})
}

// sameSet compares without order and number: segments may cover a pack twice while one replaces another.
func sameSet(a, b []Place) bool {
	missing := func(list []Place) func(Place) bool { return func(p Place) bool { return !slices.Contains(list, p) } }
	return !slices.ContainsFunc(a, missing(b)) && !slices.ContainsFunc(b, missing(a))
}
