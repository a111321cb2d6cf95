// Command points fills a repository with small made-up restore points, for benchmarks of what many points cost: a hundred machines in turn,
// each point an increment of the machine's point before it.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage/fs"
)

const (
	// machines take turns; all points of a turn are one commit, for the next turn's are built on them.
	machines = 100
	// diskBlocks is the size of each machine's disk, changedBlocks what changes from point to point.
	diskBlocks, changedBlocks = 512, 2
)

func main() {
	folder := flag.String("repository", "", "the folder of a repository that exists and is not encrypted")
	count := flag.Int("count", 10000, "how many points to add")
	flag.Parse()
	if *folder == "" || *count <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := fill(context.Background(), *folder, *count); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fill adds count points to the repository in folder.
func fill(ctx context.Context, folder string, count int) (err error) {
	store, err := fs.Open(folder)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := repo.Open(ctx, store, repo.Environment{})
	if err != nil {
		return err
	}
	defer r.Close()
	ingest, err := r.NewIngest(ctx, repo.IngestOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if closed := ingest.Close(ctx, err); err == nil {
			err = closed
		}
	}()
	f := &filler{ingest: ingest, blockSize: r.BlockSize(), plain: make([]byte, r.BlockSize())}
	for i := range count {
		if err := f.add(ctx, i); err != nil {
			return err
		}
		if i%machines == machines-1 {
			if err := ingest.Flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

type filler struct {
	ingest    *repo.Ingest
	blockSize int64
	plain     []byte
	// bases are the disks of the machines' last points.
	bases [machines]*repo.Root
}

// add hands over point number i.
func (f *filler) add(ctx context.Context, i int) error {
	machine, turn := i%machines, i/machines
	var changes []repo.Change
	if turn == 0 {
		for n := range int64(diskBlocks) {
			changes = append(changes, repo.Change{Block: n})
		}
	} else {
		for n := range int64(changedBlocks) {
			changes = append(changes, repo.Change{Block: (int64(turn)*31 + n) % diskBlocks})
		}
		slices.SortFunc(changes, func(a, b repo.Change) int { return int(a.Block - b.Block) })
	}
	for n, change := range changes {
		binary.LittleEndian.PutUint64(f.plain, uint64(i)<<32|uint64(change.Block)|1<<63)
		id := f.ingest.BlockID(f.plain)
		if _, err := f.ingest.StoreBlock(ctx, id, f.plain, repo.CodecS2); err != nil {
			return err
		}
		changes[n].ID = id
	}
	root, err := f.ingest.BuildDisk(ctx, f.bases[machine], diskBlocks*f.blockSize, func(yield func(repo.Change, error) bool) {
		for _, change := range changes {
			if !yield(change, nil) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	f.bases[machine] = &root
	key := backup.MachineKey{Platform: "synthetic", NativeID: fmt.Sprint(machine)}
	native := fmt.Sprint(turn)
	return f.ingest.CommitPoint(&repo.Point{
		Point: backup.Point{
			ID: backup.NewPointID(key, native), Machine: backup.Machine{Key: key, Name: fmt.Sprintf("machine%03d", machine)},
			Created: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, turn), Zone: "UTC", State: backup.StateComplete,
			Origin:  backup.Origin{Format: "synthetic", NativePointID: native},
			Objects: []backup.Object{{Role: backup.RoleDisk, Name: "vda", SectorSize: 512, Format: "raw", Size: root.Size}},
		},
		Roots: []*repo.Root{&root},
	}, repo.Claim{Job: "bench"}, nil, func(error) {})
}
