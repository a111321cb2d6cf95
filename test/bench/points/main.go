// Command points fills a repository with small made-up restore points, for benchmarks of what many points cost: machines in turn, each point
// an increment of the machine's point before it, and a day younger.
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

// changedBlocks is how much of a disk changes from point to point.
const changedBlocks = 2

func main() {
	folder := flag.String("repository", "", "the folder of a repository that exists and is not encrypted")
	f := &filler{}
	flag.IntVar(&f.count, "count", 10000, "how many points to add")
	flag.IntVar(&f.machines, "machines", 100, "of how many machines, which take turns; all points of a turn are one commit, for the next turn's are built on them")
	flag.Int64Var(&f.diskBlocks, "blocks", 512, "the size of each machine's disk in blocks")
	flag.StringVar(&f.job, "job", "bench", "the job that claims the points")
	first := flag.String("first", "2020-01-01", "the day of the first turn")
	flag.Parse()
	day, err := time.Parse(time.DateOnly, *first)
	if *folder == "" || err != nil || f.count <= 0 || f.machines <= 0 || f.diskBlocks < changedBlocks {
		flag.Usage()
		os.Exit(2)
	}
	f.first, f.bases = day, make([]*repo.Root, f.machines)
	if err := f.fill(context.Background(), *folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fill adds the points to the repository in folder.
func (f *filler) fill(ctx context.Context, folder string) (err error) {
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
	f.ingest, f.blockSize, f.plain = ingest, r.BlockSize(), make([]byte, r.BlockSize())
	for i := range f.count {
		if err := f.add(ctx, i); err != nil {
			return err
		}
		if i%f.machines == f.machines-1 {
			if err := ingest.Flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

type filler struct {
	count, machines int
	diskBlocks      int64
	job             string
	first           time.Time

	ingest    *repo.Ingest
	blockSize int64
	plain     []byte
	// bases are the disks of the machines' last points.
	bases []*repo.Root
}

// add hands over point number i.
func (f *filler) add(ctx context.Context, i int) error {
	machine, turn := i%f.machines, i/f.machines
	var changes []repo.Change
	if turn == 0 {
		for n := range f.diskBlocks {
			changes = append(changes, repo.Change{Block: n})
		}
	} else {
		for n := range int64(changedBlocks) {
			changes = append(changes, repo.Change{Block: (int64(turn)*31 + n) % f.diskBlocks})
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
	root, err := f.ingest.BuildDisk(ctx, f.bases[machine], f.diskBlocks*f.blockSize, func(yield func(repo.Change, error) bool) {
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
			Created: f.first.AddDate(0, 0, turn), Zone: "UTC", State: backup.StateComplete,
			Origin:  backup.Origin{Format: "synthetic", NativePointID: native},
			Objects: []backup.Object{{Role: backup.RoleDisk, Name: "vda", SectorSize: 512, Format: "raw", Size: root.Size}},
		},
		Roots: []*repo.Root{&root},
	}, repo.Claim{Job: f.job}, nil, func(error) {})
}
