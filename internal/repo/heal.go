package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
)

// HealReport says what was stored again.
type HealReport struct {
	// Blocks and Nodes that were lost and have a good copy again, Bytes of their content. FromParity of them were made from
	// parity, FromDonors come from other repositories; the rest had another copy in this one.
	Blocks, Nodes, Bytes   int64
	FromParity, FromDonors int64
	// Points whose own file was lost and is written again.
	Points int
	// Remade are derived files that were damaged and are made again, or are given up because nothing needs them.
	Remade []string
}

// Heal stores again what is known to be damaged, from wherever a good copy can be had: other places in this repository,
// parity, and the donors, which are repositories with the same hash and id key. What is healed goes into new packs, by
// ids computed from the very bytes that are stored; nothing is changed in place. What verification did not note yet is not
// known to be damaged; verify again afterwards to see what is left.
//
//  1. Points whose own file is lost are taken from donors that have them, into the domain that has what they need; they stay
//     damaged until they are verified.
//  2. Packs with damaged places are repaired in memory from their parity, and the frames that were damaged stored again.
//  3. All trees are followed. A node or block that has no good copy in the point's own domain is taken from another place
//     here, or from a donor. Nodes come at once, because what is below them shows only then; blocks some hundred at a time.
//  4. Index segments, checkpoints and partials that are damaged are given up or made again.
//  5. Records of jobs that are damaged are put back from mirrors.
func (r *Repository) Heal(ctx context.Context, found *VerifyReport, donors []*Repository) (*HealReport, error) {
	if r.locked != nil {
		return nil, r.locked
	}
	if err := r.Writable(); err != nil {
		return nil, err
	}
	h := &healer{repo: r, report: &HealReport{}, good: newGoodNodes(r.nodeFrames())}
	for _, donor := range donors {
		if r.Kin(donor) {
			h.donors = append(h.donors, donor)
		}
	}
	for _, step := range []func(context.Context) error{h.points, h.fromParity, h.trees} {
		err := step(ctx)
		if closeErr := h.close(ctx, err); err == nil {
			err = closeErr
		}
		if err != nil {
			return h.report, err
		}
	}
	if err := h.derived(ctx, found); err != nil {
		return h.report, err
	}
	return h.report, h.jobs(ctx, found)
}

// Kin is true if equal content has equal ids in both repositories, and the other can be read: the same hash and id key.
func (r *Repository) Kin(other *Repository) bool {
	probe := []byte("ferry")
	return other.locked == nil && r.description.Hash == other.description.Hash && r.hasher.Sum(format.ContextBlock, probe) == other.hasher.Sum(format.ContextBlock, probe)
}

type healer struct {
	repo   *Repository
	report *HealReport
	donors []*Repository
	good   *goodNodes
	// ingest stores in one domain, that of the points that are followed just now.
	ingest *Ingest
	// blocks wait to be fetched together.
	blocks []tree.Block
	// fresh is the node that was healed last: the index does not have it yet.
	fresh   []byte
	freshID format.ID
}

// healBatch is how many blocks are fetched together.
const healBatch = 512

// in returns the ingest for a domain, and ends that of another.
func (h *healer) in(ctx context.Context, domain format.Name) (*Ingest, error) {
	if h.ingest != nil && h.ingest.domain == domain {
		return h.ingest, nil
	}
	if err := h.close(ctx, nil); err != nil {
		return nil, err
	}
	var err error
	h.ingest, err = h.repo.NewIngest(ctx, IngestOptions{into: domain})
	return h.ingest, err
}

// close makes durable what was stored.
func (h *healer) close(ctx context.Context, cause error) error {
	in := h.ingest
	if in == nil {
		return nil
	}
	if cause == nil {
		cause = h.fetch(ctx)
	}
	h.ingest, h.blocks = nil, nil
	// What was healed before an interruption stays healed.
	if err := in.Close(context.WithoutCancel(ctx), in.Failed()); cause == nil {
		cause = err
	}
	return cause
}

// fromParity stores again what was damaged in packs that their parity can make whole.
func (h *healer) fromParity(ctx context.Context) error {
	r := h.repo
	if r.description.Parity == nil {
		return nil
	}
	r.mu.Lock()
	var packs []commitlog.Pack
	for bad := range r.state.Bad {
		packs = append(packs, r.state.Packs.Of(bad.Pack))
	}
	r.mu.Unlock()
	slices.SortFunc(packs, func(a, b commitlog.Pack) int {
		if c := a.Domain.Compare(b.Domain); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	packs = slices.CompactFunc(packs, func(a, b commitlog.Pack) bool { return a.ID == b.ID })
	for _, p := range packs {
		if err := h.repair(ctx, p); err != nil {
			if err := errors.Join(ctx.Err(), h.failed()); err != nil {
				return err
			}
			r.warn("pack %s cannot be made whole from its parity: %v", p.ID, err)
		}
	}
	return nil
}

func (h *healer) failed() error {
	if h.ingest == nil {
		return nil
	}
	return h.ingest.Failed()
}

// repair makes a pack whole in memory and stores again the frames that have no good copy in their domain.
func (h *healer) repair(ctx context.Context, p commitlog.Pack) error {
	r := h.repo
	whole, done, err := r.repaired(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	in, err := h.in(ctx, p.Domain)
	if err != nil {
		return err
	}
	table, err := pack.CheckContent(whole, p.Size, r.hasher, r.opener, func(entry pack.Entry, plain []byte) error {
		if r.contentID(entry.Kind, plain) != entry.ID {
			return fmt.Errorf("%w: content differs from its id", ErrCorrupt)
		}
		stored, err := h.store(ctx, in, entry.Kind, entry.ID, plain)
		if stored {
			h.report.FromParity++
		}
		return err
	}, func(pack.Entry, error) {})
	if err == nil {
		err = r.matchLog(table, p.Size, p)
	}
	return err
}

// store stores content whose id is proven, unless there is a good copy of it.
func (h *healer) store(ctx context.Context, in *Ingest, kind pack.Kind, id format.ID, plain []byte) (bool, error) {
	codec := CodecZstd
	if kind == pack.KindNode {
		codec = CodecNone
	}
	took, err := in.store(ctx, kind, id, plain, codec)
	if took == 0 || err != nil {
		return false, err
	}
	h.report.Bytes += int64(len(plain))
	if kind == pack.KindNode {
		h.report.Nodes++
	} else {
		h.report.Blocks++
	}
	return true, nil
}

// trees follows the trees of all points, domain by domain.
func (h *healer) trees(ctx context.Context) error {
	entries := h.repo.Entries()
	var sealed []*Point // those of other domains than the default one: few
	for _, entry := range entries {
		point, err := h.repo.ReadPoint(ctx, entry.ID)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue // it is reported as damaged
		}
		if point.Domain != h.repo.defaultDomain() {
			sealed = append(sealed, point)
			continue
		}
		if err := h.follow(ctx, point); err != nil {
			return err
		}
	}
	slices.SortStableFunc(sealed, func(a, b *Point) int { return a.Domain.Compare(b.Domain) })
	for _, point := range sealed {
		if err := h.follow(ctx, point); err != nil {
			return err
		}
	}
	return nil
}

func (h *healer) follow(ctx context.Context, point *Point) error {
	for _, root := range point.Roots {
		if root == nil || root.Top.IsZero() {
			continue
		}
		w := &treeWalk{
			load: h.load, root: *root, domain: point.Domain, good: h.good, answers: h.repo.answers,
			readable: func(ctx context.Context, kind pack.Kind, id format.ID, length int64) (bool, string, error) {
				good, err := h.mend(ctx, point.Domain, kind, id, length)
				return good, "", err
			},
			lost: func(tree.Block, pack.Kind, string) error { return nil },
		}
		if _, err := w.walk(ctx, root.Top, root.Height-1, 0, root.Size); err != nil {
			return err
		}
	}
	return nil
}

// mend is true if there is a good copy of an id in the domain, or is one now. Blocks that lack one are fetched later; then
// it is true, too.
func (h *healer) mend(ctx context.Context, domain format.Name, kind pack.Kind, id format.ID, length int64) (bool, error) {
	set, err := h.repo.lookup(ctx)
	if err != nil {
		return false, err
	}
	if _, found, err := set.FindIn(ctx, domain, id); err != nil || found || id == h.freshID {
		return err == nil, err
	}
	in, err := h.in(ctx, domain)
	if err != nil {
		return false, err
	}
	if kind == pack.KindBlock {
		h.blocks = append(h.blocks, tree.Block{ID: id, Length: length})
		if len(h.blocks) >= healBatch {
			return true, h.fetch(ctx)
		}
		return true, nil
	}
	for i, from := range append([]*Repository{h.repo}, h.donors...) {
		node, err := from.readFrame(ctx, pack.KindNode, id)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			continue
		}
		stored, err := h.store(ctx, in, pack.KindNode, id, node)
		if err != nil {
			return false, err
		}
		if stored && i > 0 {
			h.report.FromDonors++
		}
		h.fresh, h.freshID = node, id
		return true, nil
	}
	return false, nil
}

// load reads a node, also one that was healed just now.
func (h *healer) load(ctx context.Context, id format.ID) ([]byte, error) {
	if id == h.freshID && h.fresh != nil {
		return h.fresh, nil
	}
	return h.repo.LoadNode(ctx, id)
}

// fetch stores the blocks that wait, each from the first repository that has it.
func (h *healer) fetch(ctx context.Context) error {
	wanted := h.blocks
	h.blocks = nil
	for i, from := range append([]*Repository{h.repo}, h.donors...) {
		if len(wanted) == 0 {
			break
		}
		var missing []tree.Block
		err := from.NewBlockReader().Read(ctx, wanted, func(b tree.Block, plain []byte) error {
			stored, err := h.store(ctx, h.ingest, pack.KindBlock, b.ID, plain)
			if stored && i > 0 {
				h.report.FromDonors++
			}
			return err
		}, func(b tree.Block, _ error) error {
			missing = append(missing, b)
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		wanted = missing
	}
	return nil
}
