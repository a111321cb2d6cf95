package job

import (
	"context"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
)

// Heal copies again, from a source that still has them, the points that the repository has and cannot read whole. What is
// good there is not stored again, the points keep their claims, and one whose content is another than it was is refused.
func Heal(ctx context.Context, from *registry.Source, to *repo.Repository, options Options) (Report, error) {
	damaged := func(id backup.PointID) bool { _, is := to.DamageOf(id); return is }
	var points []backup.Point
	for _, p := range from.Points {
		if damaged(p.ID) && p.State == backup.StateComplete {
			points = append(points, p.Point)
		}
	}
	options.Mend = true
	return Copy(ctx, from, to, plan.Make(points, func(backup.PointID) bool { return false }, plan.Request{All: true, Damaged: damaged}), options)
}
