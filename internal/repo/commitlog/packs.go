package commitlog

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"slices"

	"ferry/internal/repo/format"
)

// Packs are the packs that a state has: a list, and where in it each is. Of hundreds of thousands, a map of the records would take
// twice as much, and as much again while it is made of a checkpoint's list, which this takes over. The zero value has none.
type Packs struct {
	list []Pack
	at   map[format.Name]uint32
}

// packsOf takes a list over. Of several with one id the last counts.
func packsOf(list []Pack) Packs {
	p := Packs{list: list[:0]}
	p.reserve(len(list))
	for i := range list {
		p.set(list[i])
	}
	return p
}

// Len is how many there are.
func (p Packs) Len() int { return len(p.list) }

// Get returns a pack, and whether there is one with the id.
func (p Packs) Get(id format.Name) (Pack, bool) {
	i, there := p.at[id]
	if !there {
		return Pack{}, false
	}
	return p.list[i], true
}

// Of returns a pack, the zero value if there is none with the id.
func (p Packs) Of(id format.Name) Pack {
	pack, _ := p.Get(id)
	return pack
}

// Has is true if there is a pack with the id.
func (p Packs) Has(id format.Name) bool {
	_, there := p.at[id]
	return there
}

// All yields the packs by id, in no order.
func (p Packs) All() iter.Seq2[format.Name, Pack] {
	return func(yield func(format.Name, Pack) bool) {
		for _, pack := range p.list {
			if !yield(pack.ID, pack) {
				return
			}
		}
	}
}

// Names returns the ids, in no order.
func (p Packs) Names() []format.Name {
	names := make([]format.Name, len(p.list))
	for i := range p.list {
		names[i] = p.list[i].ID
	}
	return names
}

func (p Packs) clone() Packs { return Packs{slices.Clone(p.list), maps.Clone(p.at)} }

// reserve makes room for further packs: growing to many takes several times the memory.
func (p *Packs) reserve(further int) {
	p.list = slices.Grow(p.list, further)
	if p.at == nil && further > 0 {
		p.at = make(map[format.Name]uint32, further)
	}
}

// set adds a pack, for which there is room, or puts it in the place of the one with its id.
func (p *Packs) set(pack Pack) {
	if i, there := p.at[pack.ID]; there {
		p.list[i] = pack
		return
	}
	p.at[pack.ID] = uint32(len(p.list)) // they all fit a log entry: less than 1 GiB
	p.list = append(p.list, pack)
}

// remove removes a pack, if it is there: the last one takes its place.
func (p *Packs) remove(id format.Name) {
	i, there := p.at[id]
	if !there {
		return
	}
	last := p.list[len(p.list)-1]
	p.list[i], p.at[last.ID] = last, i
	delete(p.at, id)
	p.list = p.list[:len(p.list)-1]
}

// Names is a list of ids, which may be long.
type Names []format.Name

// leastName is what an id takes in a list at least, in bytes: in hex, quoted.
const leastName = 2*len(format.Name{}) + 2

// UnmarshalJSON reads the list into room for just as many: growing to that takes several times the memory.
func (n *Names) UnmarshalJSON(raw []byte) error {
	names := make([]format.Name, 0, min(bytes.Count(raw, []byte(`,`))+1, len(raw)/leastName))
	if err := json.Unmarshal(raw, &names); err != nil {
		return err
	}
	*n = names
	return nil
}
