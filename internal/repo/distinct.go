package repo

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	"ferry/internal/repo/format"
	"ferry/internal/spill"
)

// distinct yields the values of a sorter's records, each once, ascending. Each begins with an id, whose first eight bytes
// are the record's key.
func distinct(ids *spill.Sorter) iter.Seq2[[spill.RecordSize]byte, error] {
	type value = [spill.RecordSize]byte
	return func(yield func(value, error) bool) {
		var equal []value // those of the same key
		flush := func() bool {
			slices.SortFunc(equal, func(a, b value) int { return bytes.Compare(a[:], b[:]) })
			for _, v := range slices.Compact(equal) {
				if !yield(v, nil) {
					return false
				}
			}
			equal = equal[:0]
			return true
		}
		key := uint64(0)
		for record, err := range ids.Sorted() {
			if err != nil {
				yield(value{}, err)
				return
			}
			if record.Key != key && !flush() {
				return
			}
			key = record.Key
			if len(equal) == 0 || equal[len(equal)-1] != record.Value {
				equal = append(equal, record.Value)
			}
		}
		flush()
	}
}

// idRecord is a record of a sorter that distinct reads: an id and what follows it, up to eight bytes.
func idRecord(id format.ID, more ...byte) spill.Record {
	record := spill.Record{Key: binary.BigEndian.Uint64(id[:])}
	copy(record.Value[copy(record.Value[:], id[:]):], more)
	return record
}
