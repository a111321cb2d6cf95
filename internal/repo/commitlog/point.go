package commitlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// Point is a restore point: enough to plan with, without reading its file.
type Point struct {
	ID       backup.PointID
	Machine  format.Name
	Created  time.Time
	Checksum format.ID
	file     fileName
}

// fileName is the name of a point's file. Of those that this program makes it has what the point does not say already: names of a
// hundred thousand points take more memory than all else that the log says of them.
type fileName struct {
	made   bool
	digits [4]byte // random, so that a point copied again later, after it was removed, has another file
	other  string  // if it is not made so
}

// pointRecord is a point in an entry (docs/format.md section 4).
type pointRecord struct {
	ID       backup.PointID `json:"id"`
	Machine  format.Name    `json:"machine"`
	Created  time.Time      `json:"created"`
	File     string         `json:"file"`
	Checksum format.ID      `json:"checksum"`
}

// File is the name of the point's file.
func (p Point) File() string {
	if !p.file.made {
		return p.file.other
	}
	return string(p.appendFile(make([]byte, 0, madeLength)))
}

// WithFile returns the point with the name of its file.
func (p Point) WithFile(name string) Point {
	p.setFile([]byte(name))
	return p
}

// WithNewFile returns the point with a name for its file that no other has.
func (p Point) WithNewFile() Point {
	random := format.RandomName()
	p.file = fileName{made: true, digits: [4]byte(random[:])}
	return p
}

const (
	madeTime = "20060102T150405.000000000Z"
	// madeLength is how long the name of a point's file is.
	madeLength = len("points/") + 32 + 1 + len(madeTime) + 1 + 64 + 1 + 8
)

func (p Point) appendFile(name []byte) []byte {
	name = append(hex.AppendEncode(append(name, "points/"...), p.Machine[:]), '/')
	name = append(p.Created.UTC().AppendFormat(name, madeTime), '-')
	name = append(hex.AppendEncode(name, p.ID[:]), '-')
	return hex.AppendEncode(name, p.file.digits[:])
}

func (p *Point) setFile(name []byte) {
	if len(name) == madeLength {
		p.file = fileName{made: true}
		if _, err := hex.Decode(p.file.digits[:], name[madeLength-8:]); err == nil {
			var made [madeLength]byte
			if bytes.Equal(p.appendFile(made[:0]), name) {
				return
			}
		}
	}
	p.file = fileName{other: string(name)}
}

// MarshalJSON writes the point as an entry has it.
func (p Point) MarshalJSON() ([]byte, error) {
	if year := p.Created.Year(); !p.file.made || year < 0 || year > 9999 {
		return json.Marshal(pointRecord{p.ID, p.Machine, p.Created, p.File(), p.Checksum})
	}
	raw := make([]byte, 0, len(`{"id":"","machine":"","created":"","file":"","checksum":""}`)+64+32+len(time.RFC3339Nano)+madeLength+64)
	raw = hex.AppendEncode(append(raw, `{"id":"`...), p.ID[:])
	raw = hex.AppendEncode(append(raw, `","machine":"`...), p.Machine[:])
	raw = p.Created.AppendFormat(append(raw, `","created":"`...), time.RFC3339Nano)
	raw = p.appendFile(append(raw, `","file":"`...))
	raw = hex.AppendEncode(append(raw, `","checksum":"`...), p.Checksum[:])
	return append(raw, `"}`...), nil
}

// UnmarshalJSON reads what MarshalJSON wrote, and what says the same in another way.
func (p *Point) UnmarshalJSON(raw []byte) error {
	if p.readWritten(raw) {
		return nil
	}
	record := pointRecord{p.ID, p.Machine, p.Created, p.File(), p.Checksum}
	if err := json.Unmarshal(raw, &record); err != nil {
		return err
	}
	*p = Point{ID: record.ID, Machine: record.Machine, Created: record.Created, Checksum: record.Checksum}
	p.setFile([]byte(record.File))
	return nil
}

// readWritten reads a point that is written to the byte as MarshalJSON does it; false if it is not. The library would take ten times
// as long.
func (p *Point) readWritten(raw []byte) bool {
	var read Point
	value := func(key string) []byte {
		rest, is := bytes.CutPrefix(raw, []byte(key))
		end := bytes.IndexByte(rest, '"')
		if !is || end < 0 {
			raw = nil
			return nil
		}
		raw = rest[end:]
		return rest[:end]
	}
	text := [...][]byte{value(`{"id":"`), value(`","machine":"`), value(`","created":"`), value(`","file":"`), value(`","checksum":"`)}
	if string(raw) != `"}` || len(text[0]) != 64 || len(text[3]) != madeLength {
		return false
	}
	if read.ID.UnmarshalText(text[0]) != nil || read.Machine.UnmarshalText(text[1]) != nil || read.Created.UnmarshalText(text[2]) != nil || read.Checksum.UnmarshalText(text[4]) != nil {
		return false
	}
	read.setFile(text[3])
	if read.file.made { // a name of another make may need more than this to be read
		*p = read
	}
	return read.file.made
}
