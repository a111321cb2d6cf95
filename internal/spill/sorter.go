// Package spill keeps what does not fit in memory in temporary files: records to be sorted, and blocks that wait for
// their missing parts. Its files have no name, so nothing is left behind whatever happens.
package spill

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// ErrTemporary: a temporary file could not be made, written or read. Errors of this package wrap it.
var ErrTemporary = errors.New("temporary file")

// RecordSize is the size of a record's value in bytes.
const RecordSize = 40

// Record is a value with the number it is sorted by.
type Record struct {
	Key   uint64
	Value [RecordSize]byte
}

const (
	recordBytes = 8 + RecordSize
	// sortedInMemory is how many records are kept before they are sorted and written out: 12 MiB.
	sortedInMemory = 256 << 10
	// mergeWidth is how many runs of a level are merged to one of the next; each has a buffer of mergeBuffer bytes.
	mergeWidth  = 64
	mergeBuffer = 64 << 10
)

// Sorter takes records in any order and gives them back sorted by key. Records with equal keys keep their order. Memory
// is bounded: what exceeds it goes to temporary files in dir. It belongs to one goroutine.
//
//  1. Records that fill the memory become a run of level 0, sorted.
//  2. As many runs of a level as are merged at once become one of the next level, and their space comes back.
//
// So a record is written once for each level, and there is one level more for every 64 times as many records.
type Sorter struct {
	dir     string
	records []Record
	levels  []level
	limit   int // of records in memory
	width   int // of runs of a level
}

// level has runs of about one size, which are younger than those of the next level.
type level struct {
	// file holds all its runs, one behind the other: many sorters are open at once, and a descriptor for each run would be too many.
	file *os.File
	runs []run
}

// run is where one lies in a file, in bytes.
type run struct {
	file        *os.File
	start, size int64
}

// NewSorter makes a sorter; an empty dir means the system's folder for temporary files.
func NewSorter(dir string) *Sorter { return NewSmallSorter(dir, 1) }

// fewestInMemory is how many records are kept whatever the shares: 96 KiB.
const fewestInMemory = 2 << 10

// NewSmallSorter makes a sorter with one share of so many in the memory that a sorter takes, or little more than nothing.
func NewSmallSorter(dir string, shares int) *Sorter {
	return &Sorter{dir: dir, limit: max(sortedInMemory/shares, fewestInMemory), width: mergeWidth}
}

// Add adds a record.
func (s *Sorter) Add(r Record) error {
	s.records = append(s.records, r)
	if len(s.records) < s.limit {
		return nil
	}
	return s.spill()
}

func sortRecords(records []Record) {
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
}

// spill writes the records in memory out as a sorted run.
func (s *Sorter) spill() error {
	sortRecords(s.records)
	err := s.addRun(0, func(yield func(Record, error) bool) {
		for _, r := range s.records {
			if !yield(r, nil) {
				return
			}
		}
	})
	s.records = s.records[:0]
	return err
}

// addRun writes a run of a level. If there are as many as are merged at once, they become one of the next level.
func (s *Sorter) addRun(n int, records iter.Seq2[Record, error]) error {
	if n == len(s.levels) {
		file, err := temporary(s.dir)
		if err != nil {
			return err
		}
		s.levels = append(s.levels, level{file: file})
	}
	l := &s.levels[n]
	var start int64
	if last := len(l.runs) - 1; last >= 0 {
		start = l.runs[last].start + l.runs[last].size
	}
	written, err := writeRun(l.file, start, records)
	if err != nil {
		return err
	}
	if l.runs = append(l.runs, written); len(l.runs) < s.width {
		return nil
	}
	if err := s.addRun(n+1, merge(l.runs, nil)); err != nil {
		return err
	}
	l = &s.levels[n] // the levels may lie elsewhere now
	l.runs = nil
	if err := l.file.Truncate(0); err != nil {
		return failed(err)
	}
	return nil
}

func writeRun(file *os.File, start int64, records iter.Seq2[Record, error]) (run, error) {
	out := bufio.NewWriterSize(io.NewOffsetWriter(file, start), 256<<10)
	written := run{file: file, start: start}
	var raw [recordBytes]byte
	for r, err := range records {
		if err == nil {
			binary.LittleEndian.PutUint64(raw[:], r.Key)
			copy(raw[8:], r.Value[:])
			_, err = out.Write(raw[:])
		}
		if err != nil {
			return run{}, failed(err)
		}
		written.size += recordBytes
	}
	if err := out.Flush(); err != nil {
		return run{}, failed(err)
	}
	return written, nil
}

// Sorted yields all records in order. It may be called again; nothing may be added meanwhile.
func (s *Sorter) Sorted() iter.Seq2[Record, error] {
	sortRecords(s.records)
	return merge(s.runs(), s.records)
}

// runs of all levels, the oldest first.
func (s *Sorter) runs() (runs []run) {
	for _, l := range slices.Backward(s.levels) {
		runs = append(runs, l.runs...)
	}
	return runs
}

// Close removes the temporary files.
func (s *Sorter) Close() error {
	var errs []error
	for _, l := range s.levels {
		errs = append(errs, l.file.Close())
	}
	s.levels, s.records = nil, nil
	return errors.Join(errs...)
}

// merge yields the records of sorted runs, and of records in memory that are younger than all of them, in order.
func merge(runs []run, young []Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var heads mergeHeap
		for i, r := range runs {
			reader := bufio.NewReaderSize(io.NewSectionReader(r.file, r.start, r.size), mergeBuffer)
			heads = append(heads, &mergeHead{order: i, next: func() (Record, error) { return readRecord(reader) }})
		}
		heads = append(heads, &mergeHead{order: len(runs), next: func() (Record, error) {
			if len(young) == 0 {
				return Record{}, io.EOF
			}
			r := young[0]
			young = young[1:]
			return r, nil
		}})
		alive := heads[:0]
		for _, head := range heads {
			var err error
			if head.record, err = head.next(); err == nil {
				alive = append(alive, head)
			} else if err != io.EOF {
				yield(Record{}, err)
				return
			}
		}
		heap.Init(&alive)
		for len(alive) > 0 {
			head := alive[0]
			if !yield(head.record, nil) {
				return
			}
			var err error
			if head.record, err = head.next(); err == nil {
				heap.Fix(&alive, 0)
			} else if err == io.EOF {
				heap.Pop(&alive)
			} else {
				yield(Record{}, err)
				return
			}
		}
	}
}

func readRecord(reader io.Reader) (Record, error) {
	var raw [recordBytes]byte
	if _, err := io.ReadFull(reader, raw[:]); err == io.EOF {
		return Record{}, err
	} else if err != nil {
		return Record{}, failed(err)
	}
	r := Record{Key: binary.LittleEndian.Uint64(raw[:])}
	copy(r.Value[:], raw[8:])
	return r, nil
}

type mergeHead struct {
	record Record
	order  int
	next   func() (Record, error)
}

type mergeHeap []*mergeHead

func (h mergeHeap) Len() int { return len(h) }
func (h mergeHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].record.Key, h[j].record.Key), cmp.Compare(h[i].order, h[j].order)) < 0
}
func (h mergeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *mergeHeap) Push(x any) { *h = append(*h, x.(*mergeHead)) }

// Pop is for package heap.
func (h *mergeHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// temporary makes a file that has no name and goes when it is closed.
func temporary(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "ferry-*")
	if err != nil {
		return nil, failed(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, failed(err)
	}
	return file, nil
}

// failed makes an error one of a temporary file.
func failed(err error) error {
	if errors.Is(err, ErrTemporary) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTemporary, err)
}

var zeros [64 << 10]byte

// AllZero is true if p holds nothing but zeros.
func AllZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
