package repo

import (
	"context"
	"io"
	"strings"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
)

// repaired is a pack made whole from its parity; done ends its use.
func (r *Repository) repaired(ctx context.Context, p commitlog.Pack) (whole *parity.Repaired, done func(), err error) {
	var open []storage.Reader
	closeAll := func() {
		for _, reader := range open {
			reader.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	file, err := r.store.Open(ctx, parity.ObjectName(p.ID))
	if err != nil {
		return nil, nil, err
	}
	open = append(open, file)
	opened, err := r.parity.Open(file, file.Size(), p.ID, p.Size)
	if err != nil {
		return nil, nil, err
	}
	var damaged io.ReaderAt // nil if it is gone
	reader, err := r.store.Open(ctx, pack.ObjectName(p.ID))
	if err == nil {
		open = append(open, reader)
		damaged = reader
	} else if !storage.Missing(err) {
		return nil, nil, err
	}
	whole, err = r.parity.Repair(damaged, file, opened)
	return whole, closeAll, err
}

// derived gives up derived files that are damaged. Index segments are made again when the next packs are committed, until
// then their packs' tables are read; what a partial knew is read again.
func (h *healer) derived(ctx context.Context, found *VerifyReport) error {
	r := h.repo
	damaged := map[string]bool{}
	for _, d := range found.Damage {
		if d.Point == "" {
			damaged[d.File] = true
		}
	}
	payload := &commitlog.Payload{}
	var files []string
	r.mu.Lock()
	for id := range r.state.Index {
		if name := segmentName(id); damaged[name] {
			payload.IndexRemoved = append(payload.IndexRemoved, id)
			files = append(files, name)
		}
	}
	for task, partials := range r.state.Partials {
		ended := false
		for _, partial := range partials {
			ended = ended || damaged[partial.File]
		}
		if ended {
			payload.PartialsEnded = append(payload.PartialsEnded, task)
			for _, partial := range partials {
				files = append(files, partial.File)
			}
		}
	}
	r.mu.Unlock()
	if len(files) > 0 {
		if err := r.commit(ctx, payload, nil); err != nil {
			return err
		}
	}
	for name := range damaged {
		if strings.HasPrefix(name, "checkpoints/") {
			files = append(files, name)
		}
	}
	for _, name := range files {
		if err := r.store.Delete(ctx, name); err != nil {
			return err
		}
	}
	h.report.Remade = files
	return nil
}
