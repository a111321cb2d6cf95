package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// readPackTable reads a pack's own table and checks it against the log. Of a damaged pack it finds what frames it can, by
// scanning; whole is false then.
func (r *Repository) readPackTable(ctx context.Context, p commitlog.Pack) (entries []index.Entry, whole bool, err error) {
	entries, whole, err = r.readTableNow(ctx, p)
	if (err != nil || !whole) && ctx.Err() == nil && r.findOriginal(ctx, pack.ObjectName(p.ID)) {
		return r.readTableNow(ctx, p)
	}
	return entries, whole, err
}

func (r *Repository) readTableNow(ctx context.Context, p commitlog.Pack) (entries []index.Entry, whole bool, err error) {
	reader, err := storage.OpenSized(ctx, r.store, pack.ObjectName(p.ID), p.Size)
	if err != nil {
		return nil, false, err
	}
	defer reader.Close()
	table, err := r.readTable(ctx, reader, p)
	if err == nil {
		return indexEntries(p.ID, table.Entries), true, nil
	}
	if !errors.Is(err, ErrCorrupt) {
		return nil, false, err
	}
	found := pack.Scan(reader, min(reader.Size(), p.Size), r.hasher)
	r.warn("pack %s is damaged, %d of its %d frames were found by scanning it: %v", p.ID, len(found), p.Frames, err)
	return indexEntries(p.ID, found), false, nil
}

// readTable reads the table of the pack that the log names.
func (r *Repository) readTable(ctx context.Context, reader storage.Reader, p commitlog.Pack) (pack.Table, error) {
	if err := matchSize(reader.Size(), p); err != nil {
		return pack.Table{}, err
	}
	table, err := pack.ReadTable(r.withTail(ctx, reader, p), reader.Size(), r.hasher)
	if err == nil {
		err = r.matchLog(table, reader.Size(), p)
	}
	return table, err
}

// matchSize returns an error unless a file can be the pack that the log names. It comes before the table is read: what that takes in
// memory is as much as the file says.
func matchSize(size int64, p commitlog.Pack) error {
	if size != p.Size || size > math.MaxUint32 || p.Frames < 0 || pack.Overhead(p.Frames) > size {
		return fmt.Errorf("%w: a file of %d bytes is not the pack that the log names, of %d frames in %d bytes", ErrCorrupt, size, p.Frames, p.Size)
	}
	return nil
}

// matchLog returns an error unless the pack is the one that the log names. With the key the log is proven, and a table whose
// checksum holds and is not the log's was made on purpose, or is another pack's: that is forged, not damaged.
func (r *Repository) matchLog(table pack.Table, size int64, p commitlog.Pack) error {
	if table.Root != p.Root || table.Header.ID != p.ID || table.Header.Domain != p.Domain || size != p.Size || len(table.Entries) != p.Frames || table.Header.Kind.String() != p.Kind {
		kind := ErrCorrupt
		if r.hasher.Encrypted() && !r.hasher.Locked() {
			kind = ErrForged
		}
		if table.Header.ID != p.ID {
			return fmt.Errorf("%w: it is not the pack that the log names but %s", kind, table.Header.ID)
		}
		return fmt.Errorf("%w: it is not the pack that the log names", kind)
	}
	return nil
}

func indexEntries(name format.Name, entries []pack.Entry) []index.Entry {
	found := make([]index.Entry, len(entries))
	for i, e := range entries {
		found[i] = index.Entry{ID: e.ID, Place: index.Place{Pack: name, Offset: e.Offset, Stored: e.Stored, Plain: e.Plain}}
	}
	return found
}

// packFiles keeps a bounded number of packs open for reading.
type packFiles struct {
	store storage.Store
	// size is that of a pack, 0 if it is not known.
	size  func(format.Name) int64
	mu    sync.Mutex
	open  map[format.Name]*packFile
	clock uint64
}

type packFile struct {
	storage.Reader
	users int
	used  uint64
}

const maxOpenPacks = 64

func newPackFiles(store storage.Store, size func(format.Name) int64) *packFiles {
	return &packFiles{store: store, size: size, open: map[format.Name]*packFile{}}
}

// acquire opens a pack or returns the open one. The caller releases it.
func (f *packFiles) acquire(ctx context.Context, name format.Name) (*packFile, error) {
	f.mu.Lock()
	if file := f.open[name]; file != nil {
		f.take(file)
		f.mu.Unlock()
		return file, nil
	}
	f.mu.Unlock()
	reader, err := f.openNow(ctx, name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if file := f.open[name]; file != nil {
		reader.Close()
		f.take(file)
		return file, nil
	}
	file := &packFile{Reader: reader}
	f.open[name] = file
	f.take(file)
	f.evict()
	return file, nil
}

func (f *packFiles) openNow(ctx context.Context, name format.Name) (storage.Reader, error) {
	if size := f.size(name); size > 0 {
		return storage.OpenSized(ctx, f.store, pack.ObjectName(name), size)
	}
	return f.store.Open(ctx, pack.ObjectName(name))
}

// forget makes the next acquire open the pack again. Who has it goes on with it.
func (f *packFiles) forget(name format.Name) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, name)
}

func (f *packFiles) take(file *packFile) {
	f.clock++
	file.used = f.clock
	file.users++
}

// evict closes the files unused for longest until few enough are open. The caller holds the lock.
func (f *packFiles) evict() {
	for len(f.open) > maxOpenPacks {
		var oldest format.Name
		var victim *packFile
		for name, file := range f.open {
			if file.users == 0 && (victim == nil || file.used < victim.used) {
				oldest, victim = name, file
			}
		}
		if victim == nil {
			return
		}
		delete(f.open, oldest)
		victim.Close()
	}
}

func (f *packFiles) release(file *packFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file.users--
	f.evict()
}

func (f *packFiles) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, file := range f.open {
		file.Close()
		delete(f.open, name)
	}
}

// readFull reads exactly len(p) bytes; a shorter object is corrupt.
func readFull(ctx context.Context, r io.ReaderAt, p []byte, offset int64) error {
	n, err := storage.ReadAt(ctx, r, p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: pack ends at byte %d", ErrCorrupt, offset+int64(n))
	}
	return err
}
