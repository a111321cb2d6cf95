package repo_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// copyInto copies points through one ingest and commits them.
func copyInto(t testing.TB, r *repo.Repository, options repo.IngestOptions, points ...*sourcetest.Point) *repo.Ingest {
	t.Helper()
	ctx := context.Background()
	ingest := must(r.NewIngest(ctx, options))(t)
	m := mover.New(ingest, mover.Options{Job: "manual", Codec: mover.CodecS2})
	for _, p := range points {
		err := m.Copy(ctx, p.Described(), func(_ mover.Result, err error) {
			if err != nil {
				t.Errorf("commit of %s: %v", p.Native, err)
			}
		})
		if err != nil {
			t.Fatalf("copy of %s: %v", p.Native, err)
		}
	}
	if err := ingest.Close(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return ingest
}

// packsByDomain are the log's packs by domain.
func packsByDomain(r *repo.Repository) map[format.Name][]commitlog.Pack {
	byDomain := map[format.Name][]commitlog.Pack{}
	for _, p := range r.State().Packs.All() {
		byDomain[p.Domain] = append(byDomain[p.Domain], p)
	}
	return byDomain
}

// A sealed domain shares nothing: all is read and stored again, also what the repository has and what the point is an
// increment of, and nothing that comes later is deduplicated against it.
func TestSealedDomainSharesNothing(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	points := threeMachines()
	web1, web2, web3 := points[0], points[1], points[2]
	copyInto(t, r, repo.IngestOptions{}, web1)
	before := packsByDomain(r)
	if len(before) != 1 {
		t.Fatalf("packs of %d domains", len(before))
	}

	stats := copyInto(t, r, repo.IngestOptions{Sealed: true}, web2).Stats()
	if known := stats.KnownBlocks.Load(); known != 0 {
		t.Errorf("%d blocks of the sealed point were taken from elsewhere", known)
	}
	if got, all := web2.Read.Load(), int64(len(web2.Objects[0].Data)+len(web2.Objects[1].Data)); got > all || got < all/2 {
		t.Errorf("%d of %d bytes were read", got, all)
	}
	p := must(r.ReadPoint(t.Context(), web2.ID()))(t)
	if !p.Sealed || p.Domain.String() == r.ID() || !r.State().Domains[p.Domain].Sealed {
		t.Errorf("the point is in domain %s, sealed %v", p.Domain, p.Sealed)
	}
	packs := packsByDomain(r)
	if len(packs) != 2 || !slices.EqualFunc(sortedPacks(packs[r.State().Repository.ID]), sortedPacks(before[r.State().Repository.ID]), samePack) {
		t.Errorf("the default domain has changed")
	}
	needs(t, r, p, packs[p.Domain])

	// What comes later shares with the default domain alone, and its base must be there.
	copyInto(t, r, repo.IngestOptions{}, web3)
	third := must(r.ReadPoint(t.Context(), web3.ID()))(t)
	if third.Sealed || third.Domain.String() != r.ID() {
		t.Errorf("the later point is in domain %s, sealed %v", third.Domain, third.Sealed)
	}
	after := packsByDomain(r)
	needs(t, r, third, after[third.Domain])
	if len(after) != 2 || len(after[p.Domain]) != len(packs[p.Domain]) {
		t.Errorf("the sealed domain has changed")
	}
	check(t, r, points[:3]...)

	// Another process has the same borders from the log and the packs.
	again := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, again)
	stats = copyInto(t, again, repo.IngestOptions{Sealed: true}, web1).Stats()
	if stats.KnownBlocks.Load() != 0 {
		t.Errorf("a second sealed copy shares %d blocks", stats.KnownBlocks.Load())
	}
	moved := must(again.ReadPoint(t.Context(), web1.ID()))(t)
	if !moved.Sealed || moved.Domain == p.Domain || len(again.Entries()) != 3 {
		t.Errorf("a point that was there did not move to a domain of its own")
	}
	needs(t, again, moved, packsByDomain(again)[moved.Domain])
	check(t, again, points[:3]...)
}

func sortedPacks(packs []commitlog.Pack) []commitlog.Pack {
	return slices.SortedFunc(slices.Values(packs), func(a, b commitlog.Pack) int { return slices.Compare(a.ID[:], b.ID[:]) })
}

func samePack(a, b commitlog.Pack) bool { return a.ID == b.ID && a.Root == b.Root }

// needs fails the test unless all nodes and blocks of the point are in those packs.
func needs(t testing.TB, r *repo.Repository, p *repo.Point, packs []commitlog.Pack) {
	t.Helper()
	ids := map[format.ID]bool{}
	for _, pack := range packs {
		for _, id := range must(r.FrameOrder(t.Context(), pack))(t) {
			ids[id] = true
		}
	}
	for i, root := range p.Roots {
		if root == nil {
			continue
		}
		load := func(ctx context.Context, id format.ID) ([]byte, error) {
			if !ids[id] {
				t.Errorf("%s: node %s is not in the domain", p.Objects[i].Name, id)
			}
			return r.LoadNode(ctx, id)
		}
		for blocks, err := range tree.Leaves(t.Context(), load, *root) {
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range blocks {
				if !ids[block.ID] {
					t.Errorf("%s: block at %d is not in the domain", p.Objects[i].Name, block.Offset)
				}
			}
		}
	}
}

func TestOnlySealedDomainsArePlain(t *testing.T) {
	r := must(openSmall(t.Context(), initialized(t, repo.Options{}), ""))(t)
	defer closeRepo(t, r)
	if _, err := r.NewIngest(t.Context(), repo.IngestOptions{Plain: true}); err == nil {
		t.Error("the default domain took an ingest of plain blocks")
	}
}

// The point of a sealed copy that fails leaves no domain behind in which it is half there.
func TestSealedCopyThatFails(t *testing.T) {
	r := must(openSmall(t.Context(), initialized(t, repo.Options{}), ""))(t)
	defer closeRepo(t, r)
	p := threeMachines()[0]
	copyInto(t, r, repo.IngestOptions{}, p)
	p.Revalidated = errors.New("changed meanwhile")
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{Sealed: true}))(t)
	err := mover.New(ingest, mover.Options{Job: "manual"}).Copy(t.Context(), p.Described(), func(mover.Result, error) {})
	if err == nil {
		t.Fatal("a point that changed while it was read was copied")
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	kept := must(r.ReadPoint(t.Context(), p.ID()))(t)
	if kept.Sealed {
		t.Error("the point that was there is not the one that was there")
	}
	check(t, r, p)
}

// The blocks of a sealed domain lie in the order of the objects, whatever else works in parallel.
func TestSealedBlocksLieInOrder(t *testing.T) {
	r := must(repo.Open(t.Context(), initialized(t, repo.Options{}), repo.Environment{Keys: identities{testIdentity()}}))(t)
	defer closeRepo(t, r)
	p := &sourcetest.Point{Machine: sourcetest.Machine("large"), Native: "large", Created: at(1), Objects: []sourcetest.Object{
		{Name: "vda", Data: content(1, 9<<20), Access: source.AccessRandom}, {Name: "vdb", Data: content(2, 5<<20), Access: source.AccessRandom},
	}}
	copyInto(t, r, repo.IngestOptions{Sealed: true}, p)
	stored := must(r.ReadPoint(t.Context(), p.ID()))(t)
	var want []format.ID
	for _, root := range stored.Roots {
		for blocks, err := range r.Leaves(t.Context(), *root) {
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range blocks {
				want = append(want, block.ID)
			}
		}
	}
	var got []format.ID
	for _, pack := range packsByDomain(r)[stored.Domain] {
		if pack.Kind == "data" {
			got = append(got, must(r.FrameOrder(t.Context(), pack))(t)...)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d blocks lie in another order than the %d of the objects", len(got), len(want))
	}
}

// What is damaged in a domain is stored again there by the next copy, though another domain has it: that goes when its own point
// does. What is damaged in another domain is no reason to read a source whole.
func TestDamageIsTheDomainsOwn(t *testing.T) {
	for _, ofSealed := range []bool{false, true} {
		store := initialized(t, repo.Options{})
		r := must(openSmall(t.Context(), store, ""))(t)
		data := content(7, 30*smallBlock)
		first, sealed := onePoint("web", "w1", data), onePoint("db", "d1", data)
		next := onePoint("web", "w2", changed(data, 3, 30*smallBlock))
		next.Base = first
		copyInto(t, r, repo.IngestOptions{}, first)
		copyInto(t, r, repo.IngestOptions{Sealed: true}, sealed)
		for id, p := range r.State().Packs.All() {
			if p.Kind == "data" && (p.Domain.String() != r.ID()) == ofSealed {
				tamper(t, store, "packs/"+id.String()[:2]+"/"+id.String(), func(b []byte) []byte { b[64+200] ^= 1; return b })
				break
			}
		}
		must(r.Verify(t.Context(), nil))(t)
		if len(r.State().Bad) != 1 {
			t.Fatalf("bad %v", r.State().Bad)
		}
		var read atomic.Int64
		next.OnRead = func(_ int, _ int64, n int) (int, error) { read.Add(int64(n)); return n, nil }
		mustCopyAll(t, r, next)
		if whole := read.Load() >= int64(len(data)); whole == ofSealed {
			t.Errorf("damage in the sealed domain: %v: %d bytes of %d were read", ofSealed, read.Load(), len(data))
		}
		if !ofSealed {
			forget(t, r, sealed)
			for range 3 {
				reclaim(t, r, atOnce())
			}
			check(t, r, first, next)
		}
		closeRepo(t, r)
	}
}
