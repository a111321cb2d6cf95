package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
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
	} else if !errors.Is(err, storage.ErrNotExist) {
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

// MendLog puts back what a repository cannot be opened without, from other copies of its files: repository.json and log
// entries that are missing or damaged. It is for a store that Open refuses. mirrors are stores with the same repository.
// It returns the names of the files that it put back.
//
// A file is taken from a mirror only if it is proven: the description by entry 1, an entry by its own checksum and number,
// by the checksum of the entry before, and by the entry behind it, where there is one. The log is followed to the last
// entry that is anywhere, but not beyond the last one here: what a mirror has more is another history, or a newer one.
func MendLog(ctx context.Context, store storage.Store, mirrors []storage.Store) ([]string, error) {
	m := &mender{store: store, mirrors: mirrors}
	if err := m.description(ctx); err != nil {
		return m.mended, err
	}
	last, err := lastEntry(ctx, store)
	if err != nil {
		return m.mended, err
	}
	var link format.ID
	for n := uint64(1); n <= last; n++ {
		if link, err = m.entry(ctx, n, link); err != nil {
			return m.mended, err
		}
	}
	return m.mended, nil
}

type mender struct {
	store   storage.Store
	mirrors []storage.Store
	hasher  *format.Hasher
	mended  []string
}

// lastEntry is the number of the last log entry that a store has.
func lastEntry(ctx context.Context, store storage.Store) (uint64, error) {
	last := uint64(0)
	for info, err := range store.List(ctx, "log/") {
		if err != nil {
			return 0, err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			last = max(last, n)
		}
	}
	return last, nil
}

// description finds the description that the log begins with, here or in a mirror, and puts it back.
func (m *mender) description(ctx context.Context) error {
	for i, from := range append([]storage.Store{m.store}, m.mirrors...) {
		content, err := storage.ReadAll(ctx, from, format.DescriptionName, 1<<20)
		if err != nil {
			continue
		}
		description, algorithm, err := format.ParseDescription(content)
		if err != nil {
			continue
		}
		m.hasher = format.NewHasher(algorithm, [32]byte{})
		if description.Encrypted {
			m.hasher = format.NewLockedHasher(algorithm) // checksums and the chain are enough to know a file by
		}
		want := commitlog.Repository{ID: description.ID, Checksum: m.hasher.Sum(format.ContextRepository, content)}
		if !m.bound(ctx, want, i == 0) {
			continue
		}
		if i > 0 {
			return m.put(ctx, format.DescriptionName, content)
		}
		return nil
	}
	return errors.Join(ctx.Err(), fmt.Errorf("%w: no copy of %s was found that the log begins with", ErrCorrupt, format.DescriptionName))
}

// bound is true if the log begins with an entry that names the description. That entry is the store's own; or, if that is
// lost, a mirror's that the store's second entry follows, or that names the store's own description.
func (m *mender) bound(ctx context.Context, description commitlog.Repository, own bool) bool {
	for i, from := range append([]storage.Store{m.store}, m.mirrors...) {
		raw, err := storage.ReadAll(ctx, from, commitlog.EntryName(1), commitlog.MaxSize)
		if err != nil {
			continue
		}
		payload, _, head, err := commitlog.Decode(m.hasher, 1, raw)
		if err != nil {
			continue
		}
		names := payload.Repository != nil && *payload.Repository == description
		if i == 0 {
			return names
		}
		link, second := m.link(ctx, 2)
		if names && (second && link == head.Checksum || !second && own) {
			return true
		}
	}
	return false
}

// link is the checksum of the entry that entry n of this store follows; false if there is no good entry n here.
func (m *mender) link(ctx context.Context, n uint64) (format.ID, bool) {
	raw, err := storage.ReadAll(ctx, m.store, commitlog.EntryName(n), commitlog.MaxSize)
	if err != nil {
		return format.ID{}, false
	}
	_, link, _, err := commitlog.Decode(m.hasher, n, raw)
	return link, err == nil
}

// entry makes sure that entry n is there and follows the one before, and returns its checksum.
func (m *mender) entry(ctx context.Context, n uint64, before format.ID) (format.ID, error) {
	name := commitlog.EntryName(n)
	next, known := m.link(ctx, n+1)
	for i, from := range append([]storage.Store{m.store}, m.mirrors...) {
		raw, err := storage.ReadAll(ctx, from, name, commitlog.MaxSize)
		if err != nil {
			continue
		}
		_, link, head, err := commitlog.Decode(m.hasher, n, raw)
		if err != nil || link != before || known && next != head.Checksum {
			continue
		}
		if i == 0 {
			return head.Checksum, nil
		}
		return head.Checksum, m.put(ctx, name, raw)
	}
	return format.ID{}, errors.Join(ctx.Err(), fmt.Errorf("%s in %s: %w: it is damaged or missing, and so it is in every other copy that was given", name, m.store.Location(), ErrCorrupt))
}

// put brings a file back: the one content that the name ever had.
func (m *mender) put(ctx context.Context, name string, content []byte) error {
	if err := m.store.Overwrite(ctx, name, content); err != nil {
		return err
	}
	m.mended = append(m.mended, name)
	return nil
}
