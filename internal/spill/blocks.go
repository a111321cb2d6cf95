package spill

import (
	"os"
	"slices"
)

// Blocks keeps blocks of one size that wait for missing parts. A bounded number stays in memory, the others lie in a
// temporary file. It belongs to one goroutine.
type Blocks struct {
	dir    string
	size   int64
	limit  int
	memory map[Place][]byte
	// order in which blocks came into memory: the oldest is moved out first.
	order []Place
	file  *os.File
	slots map[Place]int64
	free  []int64
	next  int64
	spare [][]byte
}

// Place names a block: object and number.
type Place struct {
	Object int
	Block  int64
}

// NewBlocks keeps at most limit blocks of size bytes in memory. An empty dir means the system's folder for temporary files.
func NewBlocks(dir string, size int64, limit int) *Blocks {
	return &Blocks{dir: dir, size: size, limit: max(limit, 1), memory: map[Place][]byte{}, slots: map[Place]int64{}}
}

// Has is true if the block waits here.
func (b *Blocks) Has(at Place) bool {
	if _, ok := b.memory[at]; ok {
		return true
	}
	_, ok := b.slots[at]
	return ok
}

// Buffer returns the block's bytes to write parts into; a block that is not here yet begins as zeros. The bytes are
// valid until the next call.
func (b *Blocks) Buffer(at Place) ([]byte, error) {
	if buffer, ok := b.memory[at]; ok {
		return buffer, nil
	}
	if len(b.memory) >= b.limit {
		if err := b.moveOut(); err != nil {
			return nil, err
		}
	}
	buffer := b.buffer()
	if slot, ok := b.slots[at]; ok {
		if _, err := b.file.ReadAt(buffer, slot*b.size); err != nil {
			return nil, failed(err)
		}
		delete(b.slots, at)
		b.free = append(b.free, slot)
	} else {
		clear(buffer)
	}
	b.memory[at] = buffer
	if len(b.order) > 2*b.limit+1024 {
		b.order = slices.DeleteFunc(b.order, func(at Place) bool { _, here := b.memory[at]; return !here })
	}
	b.order = append(b.order, at)
	return buffer, nil
}

func (b *Blocks) buffer() []byte {
	if n := len(b.spare); n > 0 {
		buffer := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return buffer
	}
	return make([]byte, b.size)
}

// Drop forgets a block, whose buffer must be in memory and is not to be used any more.
func (b *Blocks) Drop(at Place) {
	if buffer, ok := b.memory[at]; ok {
		delete(b.memory, at)
		b.spare = append(b.spare, buffer)
	}
}

// moveOut writes the block that has been in memory for longest to the file.
func (b *Blocks) moveOut() error {
	for len(b.order) > 0 {
		at := b.order[0]
		b.order = b.order[1:]
		buffer, ok := b.memory[at]
		if !ok {
			continue // dropped meanwhile
		}
		if b.file == nil {
			file, err := temporary(b.dir)
			if err != nil {
				return err
			}
			b.file = file
		}
		slot := b.next
		if n := len(b.free); n > 0 {
			slot = b.free[n-1]
			b.free = b.free[:n-1]
		} else {
			b.next++
		}
		if _, err := b.file.WriteAt(buffer, slot*b.size); err != nil {
			return failed(err)
		}
		b.slots[at] = slot
		b.Drop(at)
		return nil
	}
	return nil
}

// Waiting returns the places of all blocks that are here, in no order.
func (b *Blocks) Waiting() []Place {
	places := make([]Place, 0, len(b.memory)+len(b.slots))
	for at := range b.memory {
		places = append(places, at)
	}
	for at := range b.slots {
		places = append(places, at)
	}
	return places
}

// Close removes the temporary file.
func (b *Blocks) Close() error {
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	return err
}
