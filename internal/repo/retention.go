package repo

import (
	"context"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// checkRetention asks the storage, once, whether it locks all that is written by itself by now, and warns if it does or does not let
// itself be asked. Making a repository there is refused; one that is there goes on, because a backup that is copied is worth more
// than the space of hints. A copy of nothing new asks nothing.
func (r *Repository) checkRetention(ctx context.Context) {
	store, ok := storage.As[storage.RetentionChecker](r.store)
	if !ok {
		return
	}
	r.retentionAsked.Do(func() {
		err := store.CheckRetention(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		hint := backup.Hint(err)
		if hint != "" {
			hint = "; " + hint
		}
		r.warn("%v%s", err, hint)
	})
}
