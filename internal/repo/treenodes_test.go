package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage/memory"
)

const (
	crowdMachines = 8
	crowdPoints   = 10
	crowdLeaves   = 512   // of a disk: three levels of nodes
	crowdPieces   = 20000 // of a stream
)

// crowd is a repository of machines that were copied together, and changed one leaf of ten between their points: the nodes of
// each lie among those of all. There are trees only, no blocks. It returns the newest point of one: a disk and a stream.
func crowd(t *testing.T) (*memory.Store, backup.PointID) {
	t.Helper()
	store := initialized(t, repo.Options{})
	r := must(repo.Open(t.Context(), store, repo.Environment{CacheDir: newCache(t), Keys: identities{testIdentity()}}))(t)
	defer closeRepo(t, r)
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	roots := make([]*tree.Root, crowdMachines)
	var newest backup.PointID
	for point := range crowdPoints {
		for machine := range crowdMachines {
			root := must(tree.BuildFixed(t.Context(), ingest, roots[machine], crowdLeaves*tree.Fanout*smallBlock, smallBlock, crowdChanges(machine, point)))(t)
			roots[machine] = &root
			p := onePoint(fmt.Sprint("machine", machine), fmt.Sprint("point", machine, "-", point), nil).Described().Point
			p.Created = at(point)
			p.Objects = []backup.Object{{Role: backup.RoleDisk, Name: "disk", Size: root.Size}}
			described := &repo.Point{Point: p, Roots: []*tree.Root{&root}}
			if newest = p.ID; point == crowdPoints-1 {
				stream := crowdStream(t, ingest)
				described.Roots = append(described.Roots, &stream)
				described.Objects = append(described.Objects, backup.Object{Role: backup.RoleArchive, Name: "archive", Size: stream.Size})
			}
			if err := ingest.CommitPoint(described, repo.Claim{Job: "manual", Reason: "copied by hand"}, nil, func(err error) {
				if err != nil {
					t.Error(err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := ingest.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return store, newest
}

// crowdStream is a tree of a stream, with two levels at least.
func crowdStream(t *testing.T, nodes tree.Nodes) tree.Root {
	t.Helper()
	stream := tree.NewStreamBuilder(nodes)
	random := rand.NewChaCha8([32]byte{1})
	for range crowdPieces {
		var id format.ID
		must(random.Read(id[:]))(t)
		if err := stream.Add(t.Context(), id, smallBlock); err != nil {
			t.Fatal(err)
		}
	}
	return must(stream.Finish(t.Context()))(t)
}

// crowdChanges are all blocks at first, then one in each of some leaves.
func crowdChanges(machine, point int) iter.Seq2[tree.Change, error] {
	return func(yield func(tree.Change, error) bool) {
		for block := range crowdLeaves * tree.Fanout {
			changed := point == 0
			if leaf := block / tree.Fanout; !changed && block%tree.Fanout == point {
				changed = (leaf*7+machine+point*3)%10 == 0
			}
			id := format.ID{1, byte(machine), byte(point), byte(block), byte(block >> 8), byte(block >> 16)}
			if changed && !yield(tree.Change{Block: int64(block), ID: id}, nil) {
				return
			}
		}
	}
}

// walked is what a walk through a point's tree gives.
func walked(t *testing.T, r *repo.Repository, id backup.PointID) (blocks []repo.Block, said []string) {
	t.Helper()
	point := must(r.ReadPoint(t.Context(), id))(t)
	for _, root := range point.Roots {
		for some, err := range r.Leaves(t.Context(), *root) {
			var damage *tree.Damage
			if errors.As(err, &damage) {
				said = append(said, fmt.Sprint(damage, errors.Is(err, backup.ErrDamaged)))
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, some...)
		}
	}
	return blocks, said
}

// Where each read is a round trip, what a tree takes is in proportion to it, however many others lie beside it.
func TestTreeTakesFewReads(t *testing.T) {
	store, id := crowd(t)
	local := must(openSmall(t.Context(), store, newCache(t)))(t)
	want, _ := walked(t, local, id)
	packs := len(nodePackNames(local))
	closeRepo(t, local)
	if len(want) != crowdLeaves*tree.Fanout+crowdPieces {
		t.Fatalf("%d blocks", len(want))
	}
	const nodes = crowdLeaves*(8<<10) + crowdPieces*36
	for _, c := range []struct {
		ahead, requests int // what opens a pack included
		bytes           int64
	}{
		// The top is read with all of its pack. Of what was there from the first point, half of the leaves are current, and
		// what lies between them is read, too.
		{4096, 3 * packs, 2*nodes + 4<<20},
		{100, 6 * 3 * packs, 3*nodes + 4<<20},
		{1, 1 << 30, 1 << 40},
	} {
		r := must(openSmall(t.Context(), newDistant(store), newCache(t)))(t)
		r.SetLeavesAhead(c.ahead)
		must(r.PlacesOf(t.Context(), format.ID{1}))(t) // the index is here
		store.ResetCounts()
		got, said := walked(t, r, id)
		requests, bytes := store.Calls(memory.OpRead, "packs"), store.Bytes(memory.OpRead, "packs")
		t.Logf("%d leaves ahead: %d requests, %d KiB of %d in %d packs", c.ahead, requests, bytes>>10, nodes>>10, packs)
		if requests > c.requests || bytes > c.bytes {
			t.Errorf("%d leaves ahead: %d requests and %d bytes, want at most %d and %d", c.ahead, requests, bytes, c.requests, c.bytes)
		}
		if len(said) > 0 || !slices.Equal(got, want) {
			t.Errorf("%d leaves ahead: %d blocks of %d, or others; %q", c.ahead, len(got), len(want), said)
		}
		closeRepo(t, r)
	}
}

// What is damaged or lost is told as without reading ahead, and nothing else is.
func TestTreeOfDamagedNodes(t *testing.T) {
	for _, c := range []struct {
		name    string
		damaged func(node int) bool // by its place in the walk: the top, a parent, 256 leaves, a parent, 256 leaves, the stream's
		lost    bool                // the pack of a leaf that is in another than the top
		places  int                 // that are told at least
	}{
		{"some leaves", func(node int) bool { return node%40 == 2 && node != 258 }, false, 12},
		{"some leaves and a pack of leaves", func(node int) bool { return node%60 == 4 && node != 258 }, true, 30},
		{"a parent", func(node int) bool { return node == 1 }, false, 1},
		{"the last parent and some leaves", func(node int) bool { return node == 258 || node%70 == 3 }, false, 4},
		{"the top", func(node int) bool { return node == 0 }, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) { treeOfDamagedNodes(t, c.damaged, c.lost, c.places) })
	}
}

func treeOfDamagedNodes(t *testing.T, damaged func(node int) bool, lost bool, places int) {
	store, id := crowd(t)
	local := must(openSmall(t.Context(), store, newCache(t)))(t)
	var nodes []format.ID
	point := must(local.ReadPoint(t.Context(), id))(t)
	for _, root := range point.Roots {
		for _, err := range tree.Leaves(t.Context(), func(ctx context.Context, id format.ID) ([]byte, error) {
			nodes = append(nodes, id)
			return local.LoadNode(ctx, id)
		}, *root) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, node := range nodes {
		if !damaged(i) {
			continue
		}
		tamper(t, store, pack.ObjectName(must(local.PlacesOf(t.Context(), node))(t)[0]), func(raw []byte) []byte {
			raw[bytes.Index(raw, node[:])+110] ^= 4 // its frame comes before what refers to it
			return raw
		})
	}
	if lost {
		packOf := func(node format.ID) format.Name { return must(local.PlacesOf(t.Context(), node))(t)[0] }
		i := slices.IndexFunc(nodes, func(node format.ID) bool { return packOf(node) != packOf(nodes[0]) })
		if err := store.Delete(t.Context(), pack.ObjectName(packOf(nodes[i]))); err != nil {
			t.Fatal(err)
		}
	}
	closeRepo(t, local)
	local = must(openSmall(t.Context(), store, newCache(t)))(t)
	want, wantSaid := walked(t, local, id)
	closeRepo(t, local)
	if len(wantSaid) < places {
		t.Fatalf("%d places that are damaged: %q", len(wantSaid), wantSaid)
	}
	for _, ahead := range []int{4096, 100, 7, 1} {
		r := must(openSmall(t.Context(), newDistant(store), newCache(t)))(t)
		r.SetLeavesAhead(ahead)
		if got, said := walked(t, r, id); !slices.Equal(got, want) || !slices.Equal(said, wantSaid) {
			t.Errorf("%d leaves ahead: %d blocks, want %d; said %q, want %q", ahead, len(got), len(want), said, wantSaid)
		}
		closeRepo(t, r)
	}
}
