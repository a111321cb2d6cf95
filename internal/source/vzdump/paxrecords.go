package vzdump

import (
	"bytes"
	"math"
)

// paxRecordKept is how many bytes of a record are kept: the longest one with a size has fewer.
const paxRecordKept = 40

// paxRecords finds the size that a tar archive's extended header states for the next member, as it does for files of
// 8 GiB and more. The header is a row of records "LENGTH KEY=VALUE\n" of any length, most of which are passed over. What is
// no such record ends the search: then the member's own header has the size.
type paxRecords struct {
	// size is valid if seen.
	size int64
	seen bool
	// record is the beginning of the current record; length is all of it, 0 until its digits are complete.
	record [paxRecordKept]byte
	kept   int
	length int64
	// position in the current record.
	position int64
	lost     bool
}

// write takes the header's next bytes.
func (r *paxRecords) write(p []byte) {
	for len(p) > 0 && !r.lost {
		if r.length > 0 && r.kept == paxRecordKept {
			n := min(int64(len(p)), r.length-r.position)
			r.position += n
			p = p[n:]
		} else {
			r.record[r.kept] = p[0]
			r.kept++
			r.position++
			p = p[1:]
			if r.length == 0 {
				r.readLength()
			}
		}
		if r.length > 0 && r.position == r.length {
			r.readSize()
			r.kept, r.length, r.position = 0, 0, 0
		}
	}
}

// readLength looks at the newest byte of a record whose length is not known yet.
func (r *paxRecords) readLength() {
	if r.record[r.kept-1] != ' ' {
		r.lost = r.kept == paxRecordKept
		return
	}
	length, ok := decimal(r.record[:r.kept-1])
	// What is there so far, a key of a byte, '=' and the line's end.
	r.lost = !ok || length < r.position+3
	r.length = length
}

// readSize looks at a whole record, or the beginning of one that is too long to matter.
func (r *paxRecords) readSize() {
	_, record, _ := bytes.Cut(r.record[:r.kept], []byte(" "))
	value, isSize := bytes.CutPrefix(record, []byte("size="))
	if !isSize || r.length > paxRecordKept {
		return
	}
	r.size, r.seen = decimal(bytes.TrimSuffix(value, []byte("\n")))
}

// decimal reads digits and nothing else.
func decimal(digits []byte) (int64, bool) {
	number := int64(0)
	for _, b := range digits {
		if b < '0' || b > '9' || number > (math.MaxInt64-9)/10 {
			return 0, false
		}
		number = number*10 + int64(b-'0')
	}
	return number, len(digits) > 0
}
