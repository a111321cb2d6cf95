package repo_test

import (
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// A point whose own file is lost comes back in the domain that has its blocks: they are needed by it there from the first entry
// on, whatever becomes of the healing.
func TestAHealedPointStaysInItsDomain(t *testing.T) {
	files := initialized(t, repo.Options{})
	sealed := onePoint("web", "w1", content(93, 12*smallBlock))
	r := must(openSmall(t.Context(), files, ""))(t)
	// The default domain has one of its disks, too, and another domain the other.
	copyInto(t, r, repo.IngestOptions{}, onePoint("first", "f1", sealed.Objects[0].Data))
	sealed.Objects = append(sealed.Objects, sourcetest.Object{Name: "vdb", Data: content(95, 9*smallBlock), Access: source.AccessRandom})
	copyInto(t, r, repo.IngestOptions{Sealed: true}, sealed)
	copyInto(t, r, repo.IngestOptions{Sealed: true}, onePoint("second", "s1", sealed.Objects[1].Data))
	domain := must(r.ReadPoint(t.Context(), sealed.ID()))(t).Domain
	closeRepo(t, r)
	donor := files.Clone()
	if err := files.Delete(t.Context(), r.State().Points.Of(sealed.ID()).File()); err != nil {
		t.Fatal(err)
	}
	report, after := healed(t, files, donor)
	wholeAgain(t, "the point's file lost", files, []*sourcetest.Point{sealed}, after)
	if report.Points != 1 || report.Blocks != 0 {
		t.Errorf("%+v: want no block stored again", report)
	}
	r = must(openSmall(t.Context(), files, ""))(t)
	defer closeRepo(t, r)
	if p := must(r.ReadPoint(t.Context(), sealed.ID()))(t); p.Domain != domain || !p.Sealed {
		t.Errorf("it is in domain %s, sealed %v; its blocks are in %s", p.Domain, p.Sealed, domain)
	}
}

// What is healed in a sealed domain is nobody else's: a copy that runs beside must not rely on it.
func TestNothingIsDeduplicatedAgainstWhatIsHealedInASealedDomain(t *testing.T) {
	files, data := initialized(t, repo.Options{}), content(94, 12*smallBlock)
	r := must(openSmall(t.Context(), files, ""))(t)
	copyInto(t, r, repo.IngestOptions{Sealed: true}, onePoint("web", "w1", data))
	closeRepo(t, r)
	donorFiles := files.Clone()
	for _, name := range files.Names("packs/") {
		if err := files.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r, donor := must(openSmall(t.Context(), files, ""))(t), must(openSmall(t.Context(), donorFiles, ""))(t)
	defer closeRepo(t, r)
	defer closeRepo(t, donor)
	found := must(r.Verify(t.Context(), nil))(t)
	ingest := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	if healed := must(r.Heal(t.Context(), found, []*repo.Repository{donor}))(t); healed.Blocks == 0 {
		t.Fatalf("%+v", healed)
	}
	for at := 0; at < len(data); at += smallBlock {
		if at%(5*smallBlock) == 0 {
			continue // zeros
		}
		block := data[at : at+smallBlock]
		if id := ingest.BlockID(block); must(ingest.StoreBlock(t.Context(), id, block, repo.CodecNone))(t) == 0 {
			t.Errorf("the block at %d is taken from the sealed domain", at)
		}
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}
