package repo

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
)

// readable is true if a good copy of the id exists, of that length; else the reason why not. A copy in a pack that is not
// relied on as a whole counts last, one in a pack that is given up not at all: it is there today, and soon it is not. Before
// it says that there is none, it has the index proven (proving.go).
func (v *verifier) readable(ctx context.Context, kind pack.Kind, id format.ID, length int64) (bool, string, error) {
	for proven := false; ; {
		known := v.repo.head()
		good, reason, places, err := v.readableNow(ctx, kind, id, length)
		if good || err != nil {
			return good, reason, err
		}
		if v.repo.head() != known {
			continue // the log was read on meanwhile, and it may have been moved
		}
		if proven {
			v.missed(places)
			return false, reason, nil
		}
		if err := v.settle(ctx, id); err != nil {
			return false, "", err
		}
		proven = true
	}
}

// proofOfIndex says how far the index was proven.
type proofOfIndex int

// The index was not proven; by the checksums of its segments; by the tables of the packs.
const (
	notSettled proofOfIndex = iota
	settledBySums
	settledByTables
)

// settle proves as much of the index as it takes to believe what it says of an id: each step once for a verification.
func (v *verifier) settle(ctx context.Context, id format.ID) error {
	v.settling.Lock()
	defer v.settling.Unlock()
	if v.settled == notSettled {
		if _, err := v.repo.settle(ctx); err != nil {
			return err
		}
		v.settled = settledBySums
	}
	if v.settled == settledByTables {
		return nil
	}
	set, err := v.repo.lookup(ctx)
	if err != nil || !v.repo.unfounded(ctx, set, id) {
		return err
	}
	if _, err = v.repo.settleByTables(ctx); err == nil {
		v.settled = settledByTables
	}
	return err
}

// missed notes that something is needed of which there are bad copies only, or none.
func (v *verifier) missed(places []index.Place) {
	if len(places) == 0 {
		v.mu.Lock()
		v.unplaced = true
		v.mu.Unlock()
	}
	for _, at := range places {
		v.touch(badPlace{at.Pack, at.Offset})
	}
}

// readableNow says so by the index as it is, and where it looked.
func (v *verifier) readableNow(ctx context.Context, kind pack.Kind, id format.ID, length int64) (bool, string, []index.Place, error) {
	set, err := v.repo.lookup(ctx)
	if err != nil {
		return false, "", nil, err
	}
	first, ok, err := set.Find(ctx, id)
	if err != nil {
		return false, "", nil, err
	}
	if ok && v.fault(first, length) == "" {
		return true, "", nil, nil
	}
	places, err := set.FindAll(ctx, id)
	if err != nil {
		return false, "", nil, err
	}
	reason, givenUp := "it is in no pack", false
	for _, at := range places {
		switch why := v.fault(at, length); {
		case why == "" && v.repo.isLive(at.Pack):
			return true, "", nil, nil
		case why == "":
			reason, givenUp = fmt.Sprintf("its only good copy is in %s, which is given up and will be deleted", packName(at.Pack)), true
		case !givenUp:
			reason = fmt.Sprintf("%s at %d: %s", packName(at.Pack), at.Offset, why)
		}
	}
	for _, at := range places {
		if v.isWhole(at.Pack) && v.repo.isLive(at.Pack) && (length == anyLength || int64(at.Plain) == length) {
			v.touch(badPlace{at.Pack, wholePack})
			if err := v.repo.frameGood(ctx, kind, id, at); err == nil {
				return true, "", nil, nil
			} else if ctx.Err() != nil {
				return false, "", nil, ctx.Err()
			}
		}
	}
	return false, reason, places, nil
}

// frameGood returns an error unless the frame at a place is good, as far as it can be told without or with the key.
func (r *Repository) frameGood(ctx context.Context, kind pack.Kind, id format.ID, at index.Place) error {
	_, err := r.readPlace(ctx, kind, id, at)
	if kind == pack.KindNode || !r.Locked() || !errors.Is(err, ErrNeedsKey) {
		return err
	}
	file, err := r.files.acquire(ctx, at.Pack)
	if err != nil {
		return err
	}
	defer r.files.release(file)
	raw := make([]byte, pack.FrameHeaderSize+min(int(at.Stored), pack.MaxStored))
	if err := readFull(ctx, file.Reader, raw, int64(at.Offset)); err != nil {
		return err
	}
	_, err = pack.CheckFrame(raw, r.hasher)
	return err
}

// fault says what is wrong with the frame at a place, or nothing.
func (v *verifier) fault(at index.Place, length int64) string {
	if length != anyLength && int64(at.Plain) != length {
		return fmt.Sprintf("it has %d bytes where the point needs %d", at.Plain, length)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if why, marked := v.bad[badPlace{at.Pack, at.Offset}]; marked {
		return why
	}
	return v.bad[badPlace{at.Pack, wholePack}]
}

func (v *verifier) isWhole(id format.Name) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, whole := v.bad[badPlace{id, wholePack}]
	return whole
}

// touch notes that something needs what is at a bad place.
func (v *verifier) touch(at badPlace) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, bad := v.bad[at]; bad {
		v.touched[at] = true
	}
}
