package repo

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// ReclaimPolicy says when space is given back. docs/reclaim.md has the reasons at length.
type ReclaimPolicy struct {
	// Grace is how long what was given up is kept before it is deleted, and how old a file must be to be taken for garbage
	// or given up at all. Readers and writers of this program need none: they see in the log what was given up. It is
	// for those who read without asking, for storage whose listings lag, and for people who notice a mistake.
	Grace time.Duration
	// LiveShare is the share of a pack's frames, by size, below which what is live is moved out. At a half, each byte that is won costs
	// at most one byte written, and a repository holds at most as much dead as live.
	LiveShare float64
	// SmallShare is the share of a full pack's size below which packs are merged, MergeAtLeast how many there must be of
	// them. Small packs cost requests and memory; merging four at a time writes each byte a few times over the years.
	SmallShare   float64
	MergeAtLeast int
	// UnfinishedFor is how long an interrupted copy can go on from what it has stored.
	UnfinishedFor time.Duration
}

// DefaultReclaimPolicy returns the policy that is used where nothing else is said.
func DefaultReclaimPolicy() ReclaimPolicy {
	return ReclaimPolicy{Grace: 24 * time.Hour, LiveShare: 0.5, SmallShare: 0.25, MergeAtLeast: 4, UnfinishedFor: 14 * 24 * time.Hour}
}

// ReclaimAction is what is done with a pack.
type ReclaimAction string

// The actions.
const (
	// ReclaimGiveUp: nothing in the pack is live. It is condemned.
	ReclaimGiveUp ReclaimAction = "give up"
	// ReclaimRepack: what is live is moved to another pack, and the pack is condemned.
	ReclaimRepack ReclaimAction = "re-pack"
	// ReclaimMerge: small packs are moved to one.
	ReclaimMerge ReclaimAction = "merge"
	// ReclaimKeep: the pack would go or be moved, but something keeps it.
	ReclaimKeep ReclaimAction = "keep"
)

// ReclaimStep is what becomes of one pack, and why. Packs of which nothing is to be said have none.
type ReclaimStep struct {
	Action ReclaimAction
	Pack   format.Name
	Kind   string
	// Size of the pack and LiveBytes of it, frame headers included.
	Size, LiveBytes int64
	Reason          string

	domain format.Name
}

// planPack is what the plan needs to know of a pack.
type planPack struct {
	commitlog.Pack
	use packUse
	// age of the file by the storage's clock.
	age time.Duration
	// damaged: the log knows of damage in it.
	damaged bool
	// others: points of another domain need something in it that has no good copy there.
	others bool
	// domain says what of its domain is known.
	domain *planDomain
}

type planDomain struct {
	// incomplete: what is live is not known for certain, and why.
	incomplete string
	// lost counts live ids without a good place.
	lost int
	// sealed domains are not marked block by block: roots says whether anything needs them.
	sealed bool
	roots  int
}

// planReclaim decides about every pack that is not condemned. It is pure: the same packs give the same steps, in whatever order they come.
func planReclaim(packs iter.Seq[planPack], policy ReclaimPolicy, target func(kind string) int64) []ReclaimStep {
	var steps []ReclaimStep
	small := map[string][]ReclaimStep{}
	for p := range packs {
		step := decide(p, policy)
		if step.Action == "" && !p.domain.sealed && p.domain.incomplete == "" && p.age >= policy.Grace && float64(p.Size) < policy.SmallShare*float64(target(p.Kind)) {
			key := p.Kind + p.Domain.String()
			small[key] = append(small[key], ReclaimStep{
				Action: ReclaimMerge, Pack: p.ID, Kind: p.Kind, Size: p.Size, LiveBytes: p.use.bytes, domain: p.Domain, Reason: "it is small",
			})
		}
		if step.Action != "" {
			steps = append(steps, step)
		}
	}
	for _, some := range small {
		if len(some) >= policy.MergeAtLeast {
			steps = append(steps, some...)
		}
	}
	order := map[ReclaimAction]int{ReclaimGiveUp: 0, ReclaimRepack: 1, ReclaimMerge: 2, ReclaimKeep: 3}
	slices.SortFunc(steps, func(a, b ReclaimStep) int {
		won := func(s ReclaimStep) float64 { return float64(s.Size-s.LiveBytes) / float64(s.Size) }
		if byAction := cmp.Compare(order[a.Action], order[b.Action]); byAction != 0 || a.Action == ReclaimMerge {
			return cmp.Or(byAction, bytes.Compare(a.domain[:], b.domain[:]), cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Pack[:], b.Pack[:]))
		}
		return cmp.Or(cmp.Compare(won(b), won(a)), bytes.Compare(a.Pack[:], b.Pack[:])) // what wins most comes first
	})
	return steps
}

// decide says what becomes of a pack by itself.
func decide(p planPack, policy ReclaimPolicy) ReclaimStep {
	step := ReclaimStep{Pack: p.ID, Kind: p.Kind, Size: p.Size, LiveBytes: p.use.bytes, domain: p.Domain}
	say := func(action ReclaimAction, reason string, args ...any) ReclaimStep {
		if len(args) > 0 { // else all packs share the text
			reason = fmt.Sprintf(reason, args...)
		}
		step.Action, step.Reason = action, reason
		return step
	}
	if p.domain.sealed {
		switch {
		case p.domain.roots > 0:
			return ReclaimStep{}
		case p.domain.incomplete != "":
			return say(ReclaimKeep, "what is live is not known for certain: %s", p.domain.incomplete)
		case p.age < policy.Grace:
			return say(ReclaimKeep, "it is younger than the grace: a copy that runs may need it")
		case p.others:
			return say(ReclaimKeep, "blocks or nodes that points of another domain need have no good copy there: heal them first")
		}
		return say(ReclaimGiveUp, "its domain has no point any more")
	}
	dead, listed := p.use.frames == 0, int(p.use.listed)
	inFrames := p.Size - pack.Overhead(p.Frames)
	mostlyDead := float64(p.use.bytes) < policy.LiveShare*float64(inFrames)
	switch {
	case !dead && !mostlyDead && !p.damaged:
		return ReclaimStep{}
	case p.domain.incomplete != "":
		return say(ReclaimKeep, "what is live is not known for certain: %s", p.domain.incomplete)
	case p.use.only > 0:
		return say(ReclaimKeep, "%d damaged blocks or nodes that points need are nowhere else: heal them first", p.use.only)
	case listed < p.Frames && p.domain.lost > 0:
		return say(ReclaimKeep, "not all of its frames are known, and %d blocks or nodes that points need are missing", p.domain.lost)
	case p.age < policy.Grace:
		return say(ReclaimKeep, "it is younger than the grace: a copy that runs may need it")
	case dead:
		return say(ReclaimGiveUp, "no point needs anything in it")
	case listed < p.Frames:
		return say(ReclaimKeep, "its table is damaged: heal it first")
	case mostlyDead:
		return say(ReclaimRepack, "%d%% of it is live", 100*p.use.bytes/inFrames)
	}
	return say(ReclaimRepack, "a part of it is damaged, and nothing needs that part")
}

// groups divides steps into those that are moved into one pack each.
func groups(steps []ReclaimStep, target func(kind string) int64) [][]ReclaimStep {
	open := map[string]int{}
	var all [][]ReclaimStep
	filled := map[string]int64{}
	for _, step := range steps {
		if step.Action != ReclaimRepack && step.Action != ReclaimMerge {
			continue
		}
		key := string(step.Action) + step.Kind + step.domain.String()
		i, ok := open[key]
		if !ok || filled[key]+step.LiveBytes > target(step.Kind) {
			i, filled[key] = len(all), 0
			open[key] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], step)
		filled[key] += step.LiveBytes
	}
	// A merge of one pack is none.
	return slices.DeleteFunc(all, func(group []ReclaimStep) bool { return len(group) == 1 && group[0].Action == ReclaimMerge })
}

// plan decides about every pack.
func (c *reclaimer) plan() {
	damaged := map[format.Name]bool{}
	for bad := range c.state.Bad {
		damaged[bad.Pack] = true
	}
	domains := map[format.Name]*planDomain{}
	for name, d := range c.marker.domains {
		domains[name] = &planDomain{sealed: d.sealed, roots: d.roots, lost: c.placing[name].lost}
		if len(d.incomplete) > 0 {
			domains[name].incomplete = d.incomplete[0]
		}
	}
	packs := func(yield func(planPack) bool) {
		for id, p := range c.state.Packs.All() {
			if c.state.Condemned[id] {
				continue
			}
			domain := domains[p.Domain]
			if domain == nil {
				domain = &planDomain{incomplete: "the log does not say of what kind its domain is"}
			}
			file, _ := c.listing.pack(id)
			planned := planPack{Pack: p, damaged: damaged[id], others: c.forOthers(id), domain: domain, age: c.now.Sub(file.Modified)}
			if use := c.useOf(p); use != nil {
				planned.use = *use
			}
			if !yield(planned) {
				return
			}
		}
	}
	c.report.Steps = planReclaim(packs, c.options.Policy, c.repo.fullPack)
	if c.repo.Locked() {
		for i, step := range c.report.Steps {
			if step.Action == ReclaimRepack || step.Action == ReclaimMerge {
				c.report.Steps[i].Action, c.report.Steps[i].Reason = ReclaimKeep, step.Reason+"; to move what is live the key is needed"
			}
		}
	}
	c.report.Use = c.use()
	c.doomed = map[format.Name]bool{}
	for _, step := range c.report.Steps {
		if step.Action != ReclaimKeep {
			c.doomed[step.Pack] = true
		}
	}
}

// fullPack is the size at which packs of a kind are full, in bytes.
func (r *Repository) fullPack(kind string) int64 {
	if kind == pack.KindNode.String() {
		return r.nodePackTarget
	}
	return r.packTarget
}

// keepLocked takes packs from the plan that the storage keeps for now: moving what is live out of them wins nothing. Those
// that are dead are given up, and wait.
func (c *reclaimer) keepLocked(ctx context.Context) error {
	locker, can := storage.As[storage.Locker](c.repo.store)
	if !can {
		return nil
	}
	for i := range c.report.Steps {
		step := &c.report.Steps[i]
		if step.Action != ReclaimRepack && step.Action != ReclaimMerge {
			continue
		}
		until, err := locker.LockedUntil(ctx, pack.ObjectName(step.Pack))
		if err != nil && !storage.Missing(err) {
			return err
		}
		if until.After(c.now) {
			step.Action, step.Reason = ReclaimKeep, fmt.Sprintf("%s, but the storage keeps it until %s", step.Reason, clockText(until))
			delete(c.doomed, step.Pack)
		}
	}
	return nil
}
