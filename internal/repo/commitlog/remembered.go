package commitlog

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// A machine remembers states of repositories to open them sooner. That file says what a checkpoint does, is proven in the same way, and
// has no format that lasts: what cannot be read is not used. Points and claims, of which there may be hundreds of thousands, are no JSON in it:
// that takes five times the memory and twenty times the time.
//
// Its payload is four parts, each behind its length: the state without points and claims as in a checkpoint, with those points that are
// not stored whole; the sets of claims in JSON; the stored points; each claimed point's id and the number of its set.
const (
	rememberedPoint = 32 + 16 + 32 + 8 + 4 + 4
	rememberedClaim = 32 + 4
)

// EncodeRemembered makes the bytes of a state to be remembered, and returns the generation of the key of its MAC.
func EncodeRemembered(hasher *format.Hasher, s *State) (raw []byte, generation uint32, err error) {
	rest := s.without()
	rest.Points = slices.DeleteFunc(slices.Clone(s.Points.others), func(p Point) bool { return s.Points.Of(p.ID) != p })
	sets, claims := s.Claims.used()
	encoded, err := json.Marshal(sets)
	if err != nil {
		return nil, 0, err
	}
	generation = hasher.Generation()
	raw, _, err = enclose(hasher, format.MagicRemembered, format.ContextCheckpoint, s.Head.N, s.Head.Checksum, func(raw []byte) ([]byte, error) {
		raw, begin := beginPart(raw)
		raw, err := appendPayload(raw, rest)
		if err != nil {
			return nil, err
		}
		endPart(raw, begin)
		raw = slices.Grow(raw, len(encoded)+s.Points.Len()*rememberedPoint+len(claims)*rememberedClaim+3*4+tailSize)
		raw, begin = beginPart(raw)
		raw = append(raw, encoded...)
		endPart(raw, begin)
		raw, begin = beginPart(raw)
		for i := range s.Points.table.list {
			if p := &s.Points.table.list[i]; p.other == 0 {
				raw = p.append(raw)
			}
		}
		endPart(raw, begin)
		raw, begin = beginPart(raw)
		for _, c := range claims {
			raw = binary.LittleEndian.AppendUint32(append(raw, c.id[:]...), c.set)
		}
		endPart(raw, begin)
		return raw, nil
	})
	return raw, generation, err
}

func (s *storedPoint) append(raw []byte) []byte {
	raw = append(append(append(raw, s.id[:]...), s.machine[:]...), s.checksum[:]...)
	raw = binary.LittleEndian.AppendUint64(raw, uint64(s.seconds))
	raw = binary.LittleEndian.AppendUint32(raw, uint32(s.nanoseconds))
	return append(raw, s.digits[:]...)
}

func readPoint(raw []byte) storedPoint {
	s := storedPoint{seconds: int64(binary.LittleEndian.Uint64(raw[80:])), nanoseconds: int32(binary.LittleEndian.Uint32(raw[88:]))}
	copy(s.id[:], raw)
	copy(s.machine[:], raw[32:])
	copy(s.checksum[:], raw[48:])
	copy(s.digits[:], raw[92:])
	return s
}

func beginPart(raw []byte) (grown []byte, begin int) { return append(raw, 0, 0, 0, 0), len(raw) + 4 }

func endPart(raw []byte, begin int) {
	binary.LittleEndian.PutUint32(raw[begin-4:], uint32(len(raw)-begin))
}

// DecodeRemembered reads a state that is remembered. Nothing of raw is kept. Errors are as those of Decode.
func DecodeRemembered(hasher *format.Hasher, raw []byte) (*State, error) {
	n := NumberOf(raw)
	opened, err := disclose(hasher, format.MagicRemembered, format.ContextCheckpoint, n, raw)
	if err != nil {
		return nil, err
	}
	if opened.keyless {
		return nil, fmt.Errorf("%w: a state without a MAC", format.ErrForged)
	}
	var parts [4][]byte
	left := opened.payload
	for i := range parts {
		if len(left) < 4 || uint64(binary.LittleEndian.Uint32(left)) > uint64(len(left)-4) {
			return nil, fmt.Errorf("%w: the state that is remembered ends early", format.ErrCorrupt)
		}
		size := binary.LittleEndian.Uint32(left)
		parts[i], left = left[4:4+size], left[4+size:]
	}
	if len(parts[2])%rememberedPoint > 0 || len(parts[3])%rememberedClaim > 0 {
		return nil, fmt.Errorf("%w: points or claims that are remembered", format.ErrCorrupt)
	}
	payload := Payload{Packs: roomForPacks(parts[0])}
	var sets [][]Claim
	for i, into := range []any{&payload, &sets} {
		if err := json.Unmarshal(parts[i], into); err != nil {
			return nil, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
		}
	}
	payload.Generation = opened.generation
	s := Begin(&payload, Head{N: n, Checksum: opened.link})
	s.Points.table.reserve(len(parts[2]) / rememberedPoint)
	for point := range slices.Chunk(parts[2], rememberedPoint) {
		p := readPoint(point)
		s.Points.table.set(p.id, p)
	}
	return s, s.Claims.take(sets, parts[3])
}

// used are those sets that a point has, and the points that are claimed, with the numbers of their sets among these.
func (c Claims) used() (sets [][]Claim, claims []storedClaims) {
	numbers := map[uint32]uint32{}
	claims = slices.Clone(c.table.list)
	for i := range claims {
		number, is := numbers[claims[i].set]
		if !is {
			number = uint32(len(sets))
			numbers[claims[i].set] = number
			sets = append(sets, c.sets[claims[i].set])
		}
		claims[i].set = number
	}
	return sets, claims
}

// take takes over what used has given, from how EncodeRemembered has written it.
func (c *Claims) take(sets [][]Claim, claims []byte) error {
	numbers := make([]uint32, len(sets))
	for i, set := range sets {
		numbers[i] = c.number(set)
	}
	c.table.reserve(len(claims) / rememberedClaim)
	for raw := range slices.Chunk(claims, rememberedClaim) {
		id, set := backup.PointID(raw[:32]), binary.LittleEndian.Uint32(raw[32:])
		if uint64(set) >= uint64(len(numbers)) {
			return fmt.Errorf("%w: claims that are remembered", format.ErrCorrupt)
		}
		c.table.set(id, storedClaims{id, numbers[set]})
	}
	return nil
}
