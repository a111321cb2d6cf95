package repo

import (
	"iter"
	"slices"
	"time"

	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// listing is what a storage lists of a repository. There are more packs than anything else, so of them no name is kept, and they lie
// in a list: 40 bytes for each.
type listing struct {
	// packs are in the order of their ids once done was called.
	packs []listedPack
	// others are all other files, and packs that the storage did not list and that are there.
	others map[string]storage.Info
}

// listedPack is a pack's file: when it was published in seconds and nanoseconds, as time.Unix takes them.
type listedPack struct {
	id          format.Name
	size        int64
	seconds     int64
	nanoseconds int32
}

// newListing makes room for some packs.
func newListing(packs int) *listing {
	return &listing{packs: make([]listedPack, 0, packs), others: map[string]storage.Info{}}
}

// add adds what was listed.
func (l *listing) add(info storage.Info) {
	id, isPack := packOf(info.Name)
	if !isPack {
		l.others[info.Name] = info
		return
	}
	l.packs = append(l.packs, listedPack{id, info.Size, info.Modified.Unix(), int32(info.Modified.Nanosecond())})
}

// done ends adding. What was listed twice is in it once.
func (l *listing) done() {
	slices.SortFunc(l.packs, func(a, b listedPack) int { return compareNames(a.id, b.id) })
	l.packs = slices.CompactFunc(l.packs, func(a, b listedPack) bool { return a.id == b.id })
}

// addUnlisted adds a file that is there although the storage did not list it.
func (l *listing) addUnlisted(info storage.Info) { l.others[info.Name] = info }

// pack returns what is known of a pack's file; false if it is not there.
func (l *listing) pack(id format.Name) (storage.Info, bool) {
	i, listed := slices.BinarySearchFunc(l.packs, id, func(p listedPack, id format.Name) int { return compareNames(p.id, id) })
	if listed {
		return l.packs[i].info(), true
	}
	info, there := l.others[pack.ObjectName(id)]
	return info, there
}

// file returns what is known of a file; the zero value if it is not there.
func (l *listing) file(name string) storage.Info {
	if id, isPack := packOf(name); isPack {
		info, _ := l.pack(id)
		return info
	}
	return l.others[name]
}

// all yields every file.
func (l *listing) all() iter.Seq[storage.Info] {
	return func(yield func(storage.Info) bool) {
		for _, p := range l.packs {
			if !yield(p.info()) {
				return
			}
		}
		for _, info := range l.others {
			if !yield(info) {
				return
			}
		}
	}
}

func (p listedPack) info() storage.Info {
	return storage.Info{Name: pack.ObjectName(p.id), Size: p.size, Modified: time.Unix(p.seconds, int64(p.nanoseconds))}
}
