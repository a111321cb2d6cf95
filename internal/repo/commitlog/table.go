package commitlog

import (
	"hash/maphash"
	"slices"

	"ferry/internal/backup"
)

// table is a list of things that each have a point's id of their own, and where in it each is. Of a hundred thousand, a map would take
// half as much again as the things. The zero value has none.
type table[T any, P interface {
	*T
	key() *backup.PointID
}] struct {
	list []T
	// slots has numbers of the list, plus one: each in the first slot that is free (0) from the one on that the id's hash says. It
	// is a power of two long, and at most three quarters full.
	slots []uint32
	seed  maphash.Seed
}

// find returns the number of a thing in the list, -1 if there is none, and its slot, or the one that it would be in.
func (t *table[T, P]) find(id *backup.PointID) (number, slot int) {
	if len(t.slots) == 0 {
		return -1, 0
	}
	for slot = t.home(id); ; slot = t.after(slot) {
		number = int(t.slots[slot]) - 1
		if number < 0 || *P(&t.list[number]).key() == *id {
			return number, slot
		}
	}
}

func (t *table[T, P]) get(id backup.PointID) *T {
	if number, _ := t.find(&id); number >= 0 {
		return &t.list[number]
	}
	return nil
}

func (t *table[T, P]) home(id *backup.PointID) int {
	return int(maphash.Bytes(t.seed, id[:]) & uint64(len(t.slots)-1))
}

func (t *table[T, P]) after(slot int) int { return (slot + 1) & (len(t.slots) - 1) }

// reserve makes room for further things: growing to many takes several times the memory.
func (t *table[T, P]) reserve(further int) {
	t.list = slices.Grow(t.list, further)
	need := len(t.list) + further
	if need*4 <= len(t.slots)*3 {
		return
	}
	size := max(16, len(t.slots))
	for need*4 > size*3 {
		size *= 2
	}
	if t.slots == nil {
		t.seed = maphash.MakeSeed()
	}
	t.slots = make([]uint32, size)
	for i := range t.list {
		_, slot := t.find(P(&t.list[i]).key())
		t.slots[slot] = uint32(i + 1) // they all fit a log entry: less than 1 GiB
	}
}

// set adds a thing, or puts it in the place of the one with its id.
func (t *table[T, P]) set(id backup.PointID, thing T) {
	number, slot := t.find(&id)
	if number >= 0 {
		t.list[number] = thing
		return
	}
	if (len(t.list)+1)*4 > len(t.slots)*3 {
		t.reserve(1)
		_, slot = t.find(&id)
	}
	t.list = append(t.list, thing)
	t.slots[slot] = uint32(len(t.list))
}

// remove removes a thing, if it is there: the last one takes its place.
func (t *table[T, P]) remove(id backup.PointID) {
	number, slot := t.find(&id)
	if number < 0 {
		return
	}
	t.free(slot)
	last := len(t.list) - 1
	if number != last {
		_, slot = t.find(P(&t.list[last]).key())
		t.list[number], t.slots[slot] = t.list[last], uint32(number+1)
	}
	clear(t.list[last:])
	t.list = t.list[:last]
}

// free frees a slot, and moves into it what would not be found behind it any more.
func (t *table[T, P]) free(slot int) {
	for next := t.after(slot); t.slots[next] != 0; next = t.after(next) {
		home := t.home(P(&t.list[t.slots[next]-1]).key())
		if (next-home)&(len(t.slots)-1) >= (next-slot)&(len(t.slots)-1) {
			t.slots[slot] = t.slots[next]
			slot = next
		}
	}
	t.slots[slot] = 0
}

func (t *table[T, P]) clone() table[T, P] {
	return table[T, P]{list: slices.Clone(t.list), slots: slices.Clone(t.slots), seed: t.seed}
}
