package ferry

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// What a memory keeps in files is for the next process: else a server reads the file of each point again after its start, and a command
// that looks at a job each time. Of an encrypted repository nothing is kept: the names in its points' files are its secret.

// keptHead begins such a file, and says how the rest is made: a checksum of what follows, the head in gob, and the points.
const keptHead = "ferry listing 1\n"

// keptShare is what share of the points have to be read since a listing was kept for one to be kept again: else each new point would have
// all of them written. What was not kept is read again by the next process.
const keptShare = 16

// keptListing is the head of the file.
type keptListing struct {
	Repository string
	// Alike is what points have in common.
	Alike []keptLikeness
	// Texts are all texts of the points, one after the other.
	Texts string
}

type keptLikeness struct {
	Machine repo.Pseudonym
	Point   backup.Point
}

// Keep has listings be kept for the next process in the cache, and those be used that an earlier one kept.
func (m *Memory) Keep() {
	if m != nil {
		m.keeps.Store(true)
	}
}

// recall is what is remembered of a repository, by this process or by an earlier one; nil: nothing.
func (m *Memory) recall(of *repo.Repository) *remembered {
	if known := m.of(of.ID()); known != nil {
		return known
	}
	if m == nil || !m.keeps.Load() {
		return nil
	}
	return readKept(of)
}

// found takes over what a listing has found, and keeps it for the next process if that is worth it.
func (m *Memory) found(of *repo.Repository, found *remembered) {
	m.keep(of.ID(), found)
	if m != nil && m.keeps.Load() && found.unkept.Load() > int64(len(found.points)/keptShare) && found.size <= memoryLimit {
		writeKept(of, found)
		found.unkept.Store(0)
	}
}

// readKept reads what was kept of a repository. What is not as it was written is not used: nil.
func readKept(of *repo.Repository) *remembered {
	content := of.KeptListing()
	if len(content) < len(keptHead)+sha256.Size || string(content[:len(keptHead)]) != keptHead {
		return nil
	}
	content = content[len(keptHead):]
	if sha256.Sum256(content[sha256.Size:]) != [sha256.Size]byte(content) {
		return nil
	}
	reader := bytes.NewReader(content[sha256.Size:])
	var listing keptListing
	if err := gob.NewDecoder(reader).Decode(&listing); err != nil || listing.Repository != of.ID() {
		return nil
	}
	found, err := decodePoints(&listing, content[len(content)-reader.Len():])
	if err != nil {
		return nil
	}
	return found
}

// writeKept keeps what a listing has found. Not being able to costs reading it again.
func writeKept(of *repo.Repository, found *remembered) {
	listing := keptListing{Repository: of.ID()}
	var body bytes.Buffer
	points := encodePoints(&listing, found)
	if gob.NewEncoder(&body).Encode(listing) != nil {
		return
	}
	sum := sha256.New()
	sum.Write(body.Bytes())
	sum.Write(points)
	of.KeepListing(slices.Concat([]byte(keptHead), sum.Sum(nil), body.Bytes(), points))
}

// encodePoints appends to the listing what points have in common and their texts, and returns the rest of each.
func encodePoints(listing *keptListing, found *remembered) []byte {
	numbers := map[*likeness]uint64{}
	var points, texts []byte
	for i := range found.points {
		p := &found.points[i]
		if !keepable(p) {
			continue
		}
		number, known := numbers[p.like]
		if !known {
			number = uint64(len(listing.Alike))
			numbers[p.like] = number
			listing.Alike = append(listing.Alike, keptLikeness{p.like.machine, p.like.point})
		}
		text := func(s string) {
			points = binary.AppendUvarint(points, uint64(len(s)))
			texts = append(texts, s...)
		}
		points = append(append(points, p.id[:]...), p.checksum[:]...)
		points = appendTime(binary.AppendUvarint(points, number), p.created)
		text(p.native)
		text(p.location)
		points = binary.AppendUvarint(points, uint64(len(p.hops)))
		for _, hop := range p.hops {
			text(hop.RepositoryID)
			points = appendTime(points, hop.Time)
		}
	}
	listing.Texts = string(texts)
	return points
}

// keepable is true if the point's times are read as they are: this program writes no others.
func keepable(p *rememberedPoint) bool {
	return p.created.Location() == time.UTC && !slices.ContainsFunc(p.hops, func(hop backup.Hop) bool { return hop.Time.Location() != time.UTC })
}

func appendTime(dst []byte, t time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(dst, t.Unix()), uint64(t.Nanosecond()))
}

var errKept = errors.New("not as it was kept")

// keptReader reads what encodePoints wrote.
type keptReader struct {
	left  []byte
	texts string
	err   error
}

func (r *keptReader) id() (id [32]byte) {
	if len(r.left) < len(id) {
		r.left, r.err = nil, errKept
		return id
	}
	copy(id[:], r.left)
	r.left = r.left[len(id):]
	return id
}

func (r *keptReader) number(below int) int {
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n >= uint64(below) {
		r.left, r.err = nil, errKept
		return 0
	}
	r.left = r.left[size:]
	return int(n)
}

func (r *keptReader) text() string {
	size := r.number(len(r.texts) + 1)
	text := r.texts[:size]
	r.texts = r.texts[size:]
	return text
}

func (r *keptReader) time() time.Time {
	seconds, size := binary.Varint(r.left)
	if size <= 0 {
		r.left, r.err = nil, errKept
		return time.Time{}
	}
	r.left = r.left[size:]
	return time.Unix(seconds, int64(r.number(int(time.Second)))).UTC()
}

// decodePoints puts together what encodePoints took apart.
func decodePoints(listing *keptListing, points []byte) (*remembered, error) {
	const least = 64 + 6 // bytes of a point
	found := &remembered{points: make([]rememberedPoint, 0, len(points)/least)}
	alike := make([]*likeness, len(listing.Alike))
	for i, like := range listing.Alike {
		alike[i] = &likeness{machine: like.Machine, point: like.Point}
		found.size += alike[i].size() // once: points are in the order of their ids, and alternate between those of their machine
	}
	r := &keptReader{left: points, texts: listing.Texts}
	for len(r.left) > 0 {
		p := rememberedPoint{id: r.id(), checksum: r.id()}
		like := r.number(len(alike))
		p.created, p.native, p.location = r.time(), r.text(), r.text()
		for range r.number(len(r.left) + 1) {
			p.hops = append(p.hops, backup.Hop{RepositoryID: r.text(), Time: r.time()})
		}
		if r.err != nil {
			return nil, r.err
		}
		if last := len(found.points) - 1; last >= 0 && bytes.Compare(found.points[last].id[:], p.id[:]) >= 0 {
			return nil, fmt.Errorf("%w: points are not in their order", errKept)
		}
		p.like = alike[like]
		found.append(p)
	}
	return found, r.err
}
