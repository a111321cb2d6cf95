package commitlog

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"

	"ferry/internal/backup"
)

// Claims are the claims of a state, by their points: some 50 bytes for each point, since most are claimed alike. The zero value has none.
type Claims struct {
	table table[storedClaims, *storedClaims]
	// sets are claims as several points may have them, without the point; of is the number of each by its text.
	sets [][]Claim
	of   map[string]uint32
}

// storedClaims is a point and the number of its claims among the sets.
type storedClaims struct {
	id  backup.PointID
	set uint32
}

func (s *storedClaims) key() *backup.PointID { return &s.id }

// Of returns the claims on a point.
func (c Claims) Of(id backup.PointID) []Claim {
	claims := slices.Clone(c.setOf(id))
	for i := range claims {
		claims[i].Point = id
	}
	return claims
}

// Any is true if a point is claimed.
func (c Claims) Any(id backup.PointID) bool { return c.table.get(id) != nil }

// Jobs yields the jobs that claim anything, some of them several times.
func (c Claims) Jobs() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range c.table.list {
			for _, claim := range c.sets[c.table.list[i].set] {
				if !yield(claim.Job) {
					return
				}
			}
		}
	}
}

func (c Claims) setOf(id backup.PointID) []Claim {
	if stored := c.table.get(id); stored != nil {
		return c.sets[stored.set]
	}
	return nil
}

// all returns the claims, sorted by their points.
func (c Claims) all() []Claim {
	order := slices.Clone(c.table.list)
	slices.SortFunc(order, func(a, b storedClaims) int { return comparePoints(a.id, b.id) })
	count := 0
	for _, stored := range order {
		count += len(c.sets[stored.set])
	}
	if count == 0 {
		return nil // that is how JSON reads back
	}
	claims := make([]Claim, 0, count)
	for _, stored := range order {
		for _, claim := range c.sets[stored.set] {
			claim.Point = stored.id
			claims = append(claims, claim)
		}
	}
	return claims
}

// withdraw takes a job's claim off a point.
func (c *Claims) withdraw(id backup.PointID, job string) {
	if set := c.others(id, job); len(set) < len(c.setOf(id)) {
		c.put(id, set)
	}
}

// add adds a claim, in place of the one that the job has on the point.
func (c *Claims) add(claim Claim) {
	id := claim.Point
	claim.Point = backup.PointID{}
	c.put(id, append(c.others(id, claim.Job), claim))
}

// others are the claims of other jobs on a point.
func (c *Claims) others(id backup.PointID, job string) []Claim {
	return slices.DeleteFunc(slices.Clone(c.setOf(id)), func(claim Claim) bool { return claim.Job == job })
}

// put gives a point its claims, which are without the point.
func (c *Claims) put(id backup.PointID, set []Claim) {
	if len(set) == 0 {
		c.table.remove(id)
		return
	}
	c.table.set(id, storedClaims{id, c.number(set)})
}

// number is the number of a set, which is added if there is none like it.
func (c *Claims) number(set []Claim) uint32 {
	text := make([]byte, 0, 64)
	for _, claim := range set {
		text = appendText(appendText(text, claim.Job), claim.Reason)
		text = binary.AppendUvarint(text, uint64(len(claim.Flags)))
		for _, flag := range claim.Flags {
			text = appendText(text, flag)
		}
	}
	number, known := c.of[string(text)]
	if !known {
		number = uint32(len(c.sets))
		if c.of == nil {
			c.of = map[string]uint32{}
		}
		c.sets, c.of[string(text)] = append(c.sets, set), number
	}
	return number
}

func appendText(text []byte, part string) []byte {
	return append(binary.AppendUvarint(text, uint64(len(part))), part...)
}

func (c *Claims) clone() Claims {
	return Claims{c.table.clone(), slices.Clone(c.sets), maps.Clone(c.of)}
}
