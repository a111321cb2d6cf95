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
	// mergeWidth is how many runs are read at once; each has a buffer of mergeBuffer bytes.
	mergeWidth  = 128
	mergeBuffer = 64 << 10
)

// Sorter takes records in any order and gives them back sorted by key. Records with equal keys keep their order. Memory
// is bounded: what exceeds it goes to temporary files in dir. It belongs to one goroutine.
type Sorter struct {
	dir     string
	records []Record
	// file holds all runs, one behind the other: many sorters are open at once, and a descriptor for each run would be too many.
	file  *os.File
	runs  []run
	limit int // of records in memory
	width int // of runs
}

// run is where one lies in the file, in bytes.
type run struct{ start, size int64 }

func (r run) end() int64 { return r.start + r.size }

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

// spill writes the records in memory out as a sorted run. When there are many runs they are merged into one.
func (s *Sorter) spill() error {
	sortRecords(s.records)
	if s.file == nil {
		file, err := temporary(s.dir)
		if err != nil {
			return err
		}
		s.file = file
	}
	var start int64
	if len(s.runs) > 0 {
		start = s.runs[len(s.runs)-1].end()
	}
	written, err := writeRun(s.file, start, func(yield func(Record, error) bool) {
		for _, r := range s.records {
			if !yield(r, nil) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	s.records = s.records[:0]
	s.runs = append(s.runs, written)
	if len(s.runs) < s.width {
		return nil
	}
	return s.join()
}

// join merges all runs into one in a file of its own, so that the space of the others comes back.
func (s *Sorter) join() error {
	file, err := temporary(s.dir)
	if err != nil {
		return err
	}
	merged, err := writeRun(file, 0, merge(s.file, s.runs, nil))
	if err != nil {
		file.Close()
		return err
	}
	old := s.file
	s.file, s.runs = file, []run{merged}
	return old.Close()
}

func writeRun(file *os.File, start int64, records iter.Seq2[Record, error]) (run, error) {
	out := bufio.NewWriterSize(io.NewOffsetWriter(file, start), 256<<10)
	written := run{start: start}
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
	return merge(s.file, s.runs, s.records)
}

// Close removes the temporary file.
func (s *Sorter) Close() error {
	file := s.file
	s.file, s.runs, s.records = nil, nil, nil
	if file == nil {
		return nil
	}
	return file.Close()
}

// merge yields the records of sorted runs in a file, and of records in memory that are younger than all of them, in order.
func merge(file *os.File, runs []run, young []Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var heads mergeHeap
		for i, r := range runs {
			reader := bufio.NewReaderSize(io.NewSectionReader(file, r.start, r.size), mergeBuffer)
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
