package job

import (
	"iter"

	"ferry/internal/plan"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// view is what sources and target have at one moment, and what is planned from that.
type view struct {
	opened []*registry.Source // by the number of the source; nil where it could not be opened
	plan   plan.IntervalPlan
	// ends are called when the sources are closed.
	ends []func()
}

func (v *view) close() {
	for _, opened := range v.opened {
		if opened != nil {
			opened.Close()
		}
	}
	for _, end := range v.ends {
		end()
	}
}

// sources are those of a view that could be opened.
func (v *view) sources() iter.Seq2[*registry.Source, error] {
	return func(yield func(*registry.Source, error) bool) {
		for _, opened := range v.opened {
			if opened != nil && !yield(opened, nil) {
				return
			}
		}
	}
}

// letGo lets those points of the sources go that the target has whole: planning takes their briefs, and nothing copies them. There may
// be a hundred thousand, and few that are to be copied. The target must stay as it is until the plan is made. If points are read
// whole, or may be, all stay.
func (r *runner) letGo(v *view) {
	whole := r.Full || r.Job.FullFromSource.Mode != "" || len(r.memory.Owed) > 0 // a turn may come while the target is looked at
	for _, is := range r.whole {
		whole = whole || is
	}
	if whole {
		return
	}
	for _, opened := range v.opened {
		if opened != nil {
			var left []source.Point // another list: the one that there was goes
			for i := range opened.Points {
				p := &opened.Points[i]
				if _, lost := r.lost[p.ID]; lost || !r.target.HasWhole(p.ID) {
					left = append(left, *p)
				}
			}
			opened.Points = left
		}
	}
}
