package repo

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// entries yields all that the index has, by id, pack and offset.
func (r *Repository) entries(ctx context.Context) iter.Seq2[index.Entry, error] {
	return func(yield func(index.Entry, error) bool) {
		set, err := r.lookup(ctx)
		if err != nil {
			yield(index.Entry{}, err)
			return
		}
		var all []index.Entry
		r.mu.Lock()
		var names []format.Name
		for id := range r.state.Packs {
			names = append(names, id)
		}
		r.mu.Unlock()
		for _, n := range names {
			set.Of(n, func(e index.Entry) bool { all = append(all, e); return true })
		}
		slices.SortFunc(all, func(a, b index.Entry) int {
			return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Offset, b.Offset))
		})
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}
