package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

const (
	kibibyte = 1 << 10
	mebibyte = 1 << 20
	// pageSize in bytes is the grain that content is made in. Each page is drawn from a seed of its own, so that a file
	// that grows, or of which a part is written again, keeps the rest.
	pageSize = 4 * kibibyte
)

// texture is what bytes look like to a compressor.
type texture uint8

const (
	// textLines compress well, as logs do.
	textLines texture = iota
	// programs compress by half.
	programs
	// pictures do not compress.
	pictures
)

// canvas is a disk that is being painted. What is not painted is zeros, as the holes of a real disk.
type canvas []byte

// paint writes a file, at an offset on the disk. Its content depends on nothing but its name and texture: the same
// name gives the same bytes on another disk and on another day, and a longer file begins like a shorter one.
func (c canvas) paint(name string, look texture, offset, length int64) {
	seed := sha256.Sum256([]byte(name))
	high, low := binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])
	for at := int64(0); at < length; at += pageSize {
		random := rand.NewPCG(high, low+uint64(at/pageSize))
		page := c[offset+at : offset+min(at+pageSize, length)]
		switch look {
		case textLines:
			fillLines(page, random)
		case programs:
			fillPrograms(page, random)
		case pictures:
			fillNoise(page, random)
		}
	}
}

// scatter writes single pages again, spread over a file that was painted before, as a database does.
func (c canvas) scatter(name string, look texture, offset, length int64, pages int) {
	step := length / pageSize / int64(pages)
	for i := range int64(pages) {
		c.paint(fmt.Sprintf("%s, page %d", name, i), look, offset+i*step*pageSize, pageSize)
	}
}

// erase makes a hole, as deleting a file and trimming the disk does.
func (c canvas) erase(offset, length int64) { clear(c[offset : offset+length]) }

var (
	verbs = []string{"GET", "GET", "GET", "POST", "HEAD"}
	words = []string{
		"basket", "checkout", "harbour", "island", "lighthouse", "login", "manifest", "mooring", "passage", "pier",
		"price", "quay", "rope", "search", "ticket", "tide", "timetable", "vessel", "weather", "winter",
	}
	results = []string{"200", "200", "200", "204", "301", "404"}
)

// fillLines writes lines of a web server's log.
func fillLines(page []byte, random *rand.PCG) {
	below := func(limit int) int { return int(random.Uint64() % uint64(limit)) }
	pick := func(list []string) string { return list[below(len(list))] }
	line := make([]byte, 0, 128)
	for filled := 0; filled < len(page); filled += copy(page[filled:], line) {
		line = fmt.Appendf(line[:0], "10.0.%d.%d \"%s /%s/%s\" %s %d\n",
			below(4), below(256), pick(verbs), pick(words), pick(words), pick(results), below(9000))
	}
}

// fillPrograms alternates what recurs with what does not, as machine code does.
func fillPrograms(page []byte, random *rand.PCG) {
	for i := 0; i+8 <= len(page); i += 8 {
		value := random.Uint64() % 16 * 0x0101_4889_e548_89c7
		if i%16 == 8 {
			value = random.Uint64()
		}
		binary.LittleEndian.PutUint64(page[i:], value)
	}
}

func fillNoise(page []byte, random *rand.PCG) {
	for i := 0; i+8 <= len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], random.Uint64())
	}
}
