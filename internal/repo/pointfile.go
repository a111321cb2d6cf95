package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// Header is what a point's file says in clear, proven by a MAC where the key is here: enough to list, to keep and to mark it.
type Header struct {
	ID backup.PointID
	// Machine is its pseudonym.
	Machine format.Name
	Created time.Time
	Domain  format.Name
	Sealed  bool
	// Roots are the trees of all objects that have one.
	Roots []tree.Root
}

// Size of all objects that are stored as trees, in bytes.
func (h *Header) Size() int64 {
	size := int64(0)
	for _, root := range h.Roots {
		size += root.Size
	}
	return size
}

// ReadHeader reads what a point says without a key. A damaged file gives an error wrapping backup.ErrDamaged.
func (r *Repository) ReadHeader(ctx context.Context, id backup.PointID) (*Header, error) {
	entry, err := r.entryOf(id)
	if err != nil {
		return nil, err
	}
	return r.readHeader(ctx, entry)
}

// readHeader reads it from the file that an entry names, which may be one that the log does not name any more.
func (r *Repository) readHeader(ctx context.Context, entry commitlog.Point) (*Header, error) {
	var header *Header
	err := r.readPointFile(ctx, entry, func(raw []byte) (pointHeader, error) {
		sealed, err := openPoint(r.hasher, raw)
		if err != nil {
			return sealed.header, err
		}
		roots, err := sealed.header.roots()
		h := sealed.header
		header = &Header{ID: h.ID, Machine: h.Machine, Created: h.Created.UTC(), Domain: h.Domain, Sealed: h.Sealed, Roots: roots}
		return h, err
	})
	if err != nil {
		return nil, err
	}
	return header, nil
}

// entryOf is a point as the log has it now.
func (r *Repository) entryOf(id backup.PointID) (commitlog.Point, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry, ok := r.state.Points.Get(id)
	if !ok {
		return entry, fmt.Errorf("point %s is not in %s", id.Short(), r.store.Location())
	}
	return entry, nil
}

// readPointFile reads the file that an entry names for a point, has it decoded, and checks that it is that file.
func (r *Repository) readPointFile(ctx context.Context, entry commitlog.Point, decode func([]byte) (pointHeader, error)) error {
	err := r.pointFile(ctx, entry, func(raw []byte) error {
		header, err := decode(raw)
		switch {
		case err == nil:
			err = header.matches(entry)
		case errors.Is(err, ErrNewer) || errors.Is(err, ErrNeedsKey):
			// Where a version or a feature is asked for that was not there, the file may just be damaged in that place.
			if whole := len(raw) - len(entry.Checksum); whole < 0 || r.hasher.Sum(format.ContextPoint, raw[:whole]) != entry.Checksum {
				err = fmt.Errorf("%w: it is not the file that the log names, and %w", ErrCorrupt, err)
			}
		}
		if err == nil && !bytes.Equal(raw[len(raw)-32:], entry.Checksum[:]) {
			err = fmt.Errorf("%w: it is not the file that the log names", ErrCorrupt)
			if r.hasher.Encrypted() { // it is whole, and has a MAC
				err = fmt.Errorf("%w: it is not the file that the log names", ErrForged)
			}
		}
		return err
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrCorrupt) || storage.Missing(err) {
		err = fmt.Errorf("%w: %w", backup.ErrDamaged, err)
	}
	return &backup.Error{Point: entry.ID.Short(), Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", entry.File(), err)}
}

// bodyLabel begins the associated data of a point's body.
const bodyLabel = "ferry v1"

// sealPoint makes a point's file (docs/format.md section 5). With keys the body is encrypted under the salt, which must be
// fresh, and a MAC covers all of it.
func sealPoint(hasher *format.Hasher, salt [format.SaltSize]byte, id backup.PointID, header, body []byte) ([]byte, error) {
	generation := hasher.Generation()
	if generation != 0 {
		aead, err := format.NewAEAD(hasher.Keys(), generation, salt[:], format.InfoPointBody)
		if err != nil {
			return nil, err
		}
		body = aead.Seal(nil, make([]byte, aead.NonceSize()), body, append([]byte(bodyLabel), id[:]...))
	}
	raw := format.AppendPrelude(make([]byte, 0, pointFixed+len(header)+len(body)+pointTail), format.MagicPoint)
	if generation != 0 {
		format.MarkEncrypted(raw)
	}
	raw = binary.LittleEndian.AppendUint32(raw, generation)
	raw = append(raw, salt[:]...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(header)))
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(body)))
	raw = append(append(raw, header...), body...)
	mac, err := hasher.MAC(format.InfoPoint, generation, raw)
	if err != nil {
		return nil, err
	}
	raw = append(raw, mac[:]...)
	sum := hasher.Sum(format.ContextPoint, raw)
	return append(raw, sum[:]...), nil
}

// sealedPoint is a point's file whose header is read and whose body may be encrypted.
type sealedPoint struct {
	header     pointHeader
	generation uint32
	salt, raw  []byte
}

// openPoint checks a point's file and reads its header. It needs no key; with one it checks the MAC.
func openPoint(hasher *format.Hasher, raw []byte) (sealedPoint, error) {
	var p sealedPoint
	if err := format.CheckPrelude(raw, format.MagicPoint); err != nil {
		return p, err
	}
	corrupt := func(what string) (sealedPoint, error) { return p, fmt.Errorf("%w: point %s", format.ErrCorrupt, what) }
	if len(raw) < pointFixed+pointTail {
		return corrupt("is shorter than any")
	}
	content := raw[:len(raw)-pointTail]
	mac, sum := raw[len(content):len(raw)-32], raw[len(raw)-32:]
	if hasher.Sum(format.ContextPoint, content, mac) != format.ID(sum) {
		return corrupt("checksum differs")
	}
	p.generation, p.salt = binary.LittleEndian.Uint32(raw[20:]), raw[24:24+format.SaltSize]
	if format.IsEncrypted(raw) != (p.generation != 0) || p.generation == 0 && [format.SaltSize]byte(p.salt) != [format.SaltSize]byte{} {
		return corrupt("is encrypted without a key, or the other way round")
	}
	keyless, err := hasher.CheckMAC(format.InfoPoint, p.generation, content, mac)
	if err == nil && keyless {
		err = fmt.Errorf("%w: point without a MAC", format.ErrForged)
	}
	if err != nil {
		return p, err
	}
	headerSize, bodySize := uint64(binary.LittleEndian.Uint32(raw[40:])), uint64(binary.LittleEndian.Uint32(raw[44:]))
	if headerSize+bodySize != uint64(len(content)-pointFixed) {
		return corrupt("has lengths that its file does not have")
	}
	p.raw = content[pointFixed+headerSize:]
	return p, unmarshalText(content[pointFixed:pointFixed+headerSize], &p.header)
}

// body returns the body's JSON.
func (p sealedPoint) body(hasher *format.Hasher) ([]byte, error) {
	if p.generation == 0 {
		return p.raw, nil
	}
	if hasher.Locked() {
		return nil, format.ErrNeedsKey
	}
	aead, err := format.NewAEAD(hasher.Keys(), p.generation, p.salt, format.InfoPointBody)
	if err != nil {
		return nil, err
	}
	body, err := aead.Open(nil, make([]byte, aead.NonceSize()), p.raw, append([]byte(bodyLabel), p.header.ID[:]...))
	if err != nil {
		return nil, fmt.Errorf("%w: point body", format.ErrForged)
	}
	return body, nil
}

// roots of the header's trees.
func (h pointHeader) roots() ([]tree.Root, error) {
	roots := make([]tree.Root, len(h.Trees))
	for i, t := range h.Trees {
		roots[i] = tree.Root{Kind: t.LeafKind, Height: t.Height, BlockSize: t.BlockSize, Size: t.Size, Top: t.Top}
		if err := roots[i].Check(); err != nil {
			return nil, err
		}
	}
	return roots, nil
}

// unmarshalText reads JSON, which is UTF-8.
func unmarshalText(raw []byte, into any) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("%w: point is not UTF-8", format.ErrCorrupt)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: point %w", format.ErrCorrupt, err)
	}
	return nil
}
