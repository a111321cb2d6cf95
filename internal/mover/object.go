package mover

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"sync"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/spill"
)

// object is an object of the point while it is copied: what is known of its blocks, until its tree is built.
type object struct {
	source.Object
	index     int
	blockSize int64
	base      *repo.Root
	root      *repo.Root

	mu     sync.Mutex // guards blocks and done
	blocks *spill.Sorter
	done   bitmap
}

// newObject takes one share of so many in the memory for ids.
func newObject(index int, described source.Object, blockSize int64, tempDir string, shares int) *object {
	return &object{Object: described, index: index, blockSize: blockSize, blocks: spill.NewSmallSorter(tempDir, shares)}
}

func (o *object) close() error { return o.blocks.Close() }

// baseRoot finds the tree of the same object in the base.
func (t *task) baseRoot(described backup.Object) *repo.Root {
	for i, o := range t.base.Objects {
		if o.Role == described.Role && o.Name == described.Name {
			if root := t.base.Roots[i]; t.mover.ingest.Repository().FixedBlocks(root) && !described.Shifting {
				return root
			}
		}
	}
	return nil
}

// put notes a block's id. For streams number counts the blocks in order; length is the block's.
func (o *object) put(number int64, id repo.ID, length int64) error {
	record := spill.Record{Key: uint64(number)}
	copy(record.Value[:], id[:])
	binary.LittleEndian.PutUint64(record.Value[32:], uint64(length))
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blocks.Add(record)
}

// resumable is true if a copy goes on behind what an interrupted one has stored of the object. Others read it again from its beginning.
func (o *object) resumable() bool {
	return o.Access == source.AccessRandom && !o.Shifting && o.Size > 0
}

// readsAgain notes blocks that an interrupted copy stored of an object that is read again, and returns how many of them are new to it. Only
// zeros make runs, which do not count.
func (o *object) readsAgain(done repo.Done) int64 {
	if done.ID.IsZero() || done.Count != 1 || o.done.get(done.First) {
		return 0
	}
	if o.done.room == nil { // the size may not be known, and the numbers are what a file says
		room := againPages
		o.done.room = &room
	}
	o.done.set(done.First)
	return 1
}

// againPages is how many pages the blocks of an object take at most that are read again: 16 MiB. What is beyond counts as if it had not been
// stored before.
const againPages = 4096

// resume takes over blocks that an interrupted copy stored, and returns how many bytes they have.
func (o *object) resume(done repo.Done) (bytes int64, err error) {
	blocks := (o.Size-1)/o.blockSize + 1
	for n := done.First; n < blocks && n-done.First < done.Count; n++ {
		if o.done.get(n) {
			continue
		}
		o.done.set(n)
		if err := o.put(n, done.ID, 0); err != nil {
			return bytes, err
		}
		bytes += min(o.blockSize, o.Size-n*o.blockSize)
	}
	return bytes, nil
}

// build makes the object's tree of all that was put.
func (o *object) build(ctx context.Context, ingest *repo.Ingest) error {
	if o.Access == source.AccessInline || o.Size == 0 {
		return nil
	}
	if o.Size < 0 {
		return fmt.Errorf("the source did not end object %s", backup.EncodeName(o.Name))
	}
	var root repo.Root
	var err error
	if o.Shifting {
		root, err = o.buildStream(ctx, ingest)
	} else {
		root, err = ingest.BuildDisk(ctx, o.base, o.Size, o.changes())
	}
	if err != nil {
		return err
	}
	o.root = &root
	return nil
}

func (o *object) changes() iter.Seq2[repo.Change, error] {
	return func(yield func(repo.Change, error) bool) {
		for record, err := range o.blocks.Sorted() {
			if !yield(repo.Change{Block: int64(record.Key), ID: repo.ID(record.Value[:32])}, err) || err != nil {
				return
			}
		}
	}
}

func (o *object) buildStream(ctx context.Context, ingest *repo.Ingest) (repo.Root, error) {
	builder := ingest.NewStream()
	for record, err := range o.blocks.Sorted() {
		if err == nil {
			err = builder.Add(ctx, repo.ID(record.Value[:32]), int64(binary.LittleEndian.Uint64(record.Value[32:])))
		}
		if err != nil {
			return repo.Root{}, err
		}
	}
	return builder.Finish(ctx)
}

// bitmap is a set of numbers that takes memory only where it has some of 32,768 neighbours and not all: 4 KiB.
type bitmap struct {
	pages map[int64]*bitmapPage
	// room, if set, is how many more pages there may be, for several sets: without room for it a number is not noted.
	room *int
}

const bitmapWords = 512

type bitmapPage struct {
	count int
	bits  [bitmapWords]uint64
}

// fullBitmapPage stands for every page that has all. It is never written to.
var fullBitmapPage = &bitmapPage{count: bitmapWords * 64}

func (b *bitmap) set(n int64) {
	number := n / (bitmapWords * 64)
	page := b.pages[number]
	if page == nil {
		if b.room != nil {
			if *b.room == 0 {
				return
			}
			*b.room--
		}
		if b.pages == nil {
			b.pages = map[int64]*bitmapPage{}
		}
		page = new(bitmapPage)
		b.pages[number] = page
	}
	word, bit := n/64%bitmapWords, uint64(1)<<(n%64)
	if page == fullBitmapPage || page.bits[word]&bit != 0 {
		return
	}
	page.bits[word] |= bit
	if page.count++; page.count < bitmapWords*64 {
		return
	}
	b.pages[number] = fullBitmapPage
	if b.room != nil {
		*b.room++
	}
}

func (b *bitmap) get(n int64) bool {
	page := b.pages[n/(bitmapWords*64)]
	return page != nil && (page == fullBitmapPage || page.bits[n/64%bitmapWords]&(1<<(n%64)) != 0)
}
