package parity

import (
	"errors"
	"fmt"
	"io"

	"ferry/internal/repo/format"
)

// Repaired is a pack of which the damaged shards were made again. What was good is read from the file.
type Repaired struct {
	pack   io.ReaderAt
	layout Layout
	// made are the shards that were damaged.
	made map[int][]byte
}

// Size of the pack in bytes, as it was when it was whole.
func (r *Repaired) Size() int64 { return r.layout.Size }

// ReadAt reads the pack as it was.
func (r *Repaired) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("offset %d in a pack", offset)
	}
	done := 0
	for done < len(p) && offset < r.layout.Size {
		shard, within := int(offset/r.layout.Shard), offset%r.layout.Shard
		n := int(min(int64(len(p)-done), r.layout.Shard-within, r.layout.Size-offset))
		if made := r.made[shard]; made != nil {
			copy(p[done:done+n], made[within:])
		} else if err := readFull(r.pack, p[done:done+n], offset); err != nil {
			return done, err
		}
		done += n
		offset += int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// Repair finds the damaged shards of a pack by their checksums and makes them again; a pack that is cut or gone (nil)
// lacks the shards behind its end. It gives ErrTooMuch if that are too many.
//
//  1. Each shard of the pack, and then of the parity, is read and compared with its checksum.
//  2. D good ones are read again, one after the other; each adds its share to every shard that is to be made.
//  3. The shards that were made must have their checksums, too.
func (c *Coder) Repair(pack, file io.ReaderAt, opened *File) (*Repaired, error) {
	if pack == nil {
		pack = nothing{}
	}
	shards := opened.Data + opened.Parity
	good, missing, err := c.survey(pack, file, opened)
	if err != nil {
		return nil, err
	}
	r := &Repaired{pack: pack, layout: opened.Layout, made: map[int][]byte{}}
	if len(missing) == 0 {
		return r, nil
	}
	code, err := c.code(opened.Data, opened.Parity)
	if err != nil {
		return nil, err
	}
	made := make([][]byte, shards)
	for _, i := range missing {
		made[i] = make([]byte, opened.Shard)
	}
	shard, input := make([]byte, opened.Shard), make([][]byte, shards)
	for i := range shards {
		if !good[i] {
			continue
		}
		if err := opened.readShard(pack, file, shard, i); err != nil {
			return nil, err
		}
		input[i] = shard
		if err := code.DecodeIdx(made, good, input); err != nil {
			return nil, err
		}
		input[i] = nil
	}
	for _, i := range missing {
		if c.sum(made[i]) != opened.sums[i] {
			return nil, fmt.Errorf("%w: shard %d made from parity differs from its checksum", format.ErrCorrupt, i)
		}
		r.made[i] = made[i]
	}
	return r, nil
}

// survey says which shards are to be used, as many as there are data shards, and which data shards are missing.
func (c *Coder) survey(pack, file io.ReaderAt, opened *File) (good []bool, missing []int, err error) {
	good = make([]bool, opened.Data+opened.Parity)
	shard, found := make([]byte, opened.Shard), 0
	for i := range good {
		if found == opened.Data {
			break
		}
		err := opened.readShard(pack, file, shard, i)
		if err != nil && !errors.Is(err, format.ErrCorrupt) {
			return nil, nil, err
		}
		good[i] = err == nil && c.sum(shard) == opened.sums[i]
		if good[i] {
			found++
		} else if i < opened.Data {
			missing = append(missing, i)
		}
	}
	if found < opened.Data {
		return nil, nil, fmt.Errorf("%w: %d of %d shards", ErrTooMuch, len(missing), opened.Data)
	}
	return good, missing, nil
}

// readShard reads a shard of the pack or of its parity.
func (f *File) readShard(pack, file io.ReaderAt, shard []byte, i int) error {
	if i < f.Data {
		return f.read(pack, shard, i)
	}
	return f.readParity(file, shard, i-f.Data)
}

// nothing is a pack that is gone.
type nothing struct{}

// ReadAt finds no byte.
func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
