package repo

import (
	"context"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
)

// anyLength of a tree node is right.
const anyLength = -1

// readable is true if a good copy of the id exists, of that length; else the reason why not.
func (v *verifier) readable(ctx context.Context, id format.ID, length int64) (bool, string, error) {
	set, err := v.repo.lookup(ctx)
	if err != nil {
		return false, "", err
	}
	place, ok, err := set.Find(ctx, id)
	if err != nil {
		return false, "", err
	}
	if ok && v.fault(id, place, length) == "" {
		return true, "", nil
	}
	reason := "it is in no pack"
	places, err := set.FindAll(ctx, id)
	if err != nil {
		return false, "", err
	}
	for _, place := range places {
		why := v.fault(id, place, length)
		if why == "" {
			return true, "", nil
		}
		reason = fmt.Sprintf("%s at %d: %s", pack.ObjectName(place.Pack), place.Offset, why)
	}
	return false, reason, nil
}

// fault says what is wrong with the frame of an id at a place, or nothing.
func (v *verifier) fault(id format.ID, place index.Place, length int64) string {
	if length != anyLength && int64(place.Plain) != length {
		return fmt.Sprintf("it has %d bytes where the point needs %d", place.Plain, length)
	}
	at := badPlace{place.Pack, place.Offset}
	if why, marked := v.bad[at]; marked {
		return why
	}
	if why := v.bad[badPlace{place.Pack, wholePack}]; why != "" && v.salvaged[at] != id {
		return why
	}
	return ""
}

func (v *verifier) verifyPoints(ctx context.Context) error {
	for _, entry := range v.repo.Entries() {
		point, err := v.readPoint(ctx, entry.ID)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.report.Points++
		if err != nil {
			v.damage(Damage{Machine: entry.Machine.String(), Point: entry.ID.String(), File: entry.File, Reason: err.Error()})
			continue
		}
		for i, root := range point.Roots {
			if root == nil || root.Top.IsZero() {
				continue
			}
			w := &pointWalk{verifier: v, point: point, object: point.Objects[i], root: *root}
			if _, err := w.walk(ctx, root.Top, root.Height-1, 0, root.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPoint reads a point, or of a locked repository's point what can be told of it.
func (v *verifier) readPoint(ctx context.Context, id backup.PointID) (*Point, error) {
	if !v.repo.hasher.Locked() {
		return v.repo.ReadPoint(ctx, id)
	}
	header, err := v.repo.ReadHeader(ctx, id)
	if err != nil {
		return nil, err
	}
	point := &Point{Domain: header.Domain, Sealed: header.Sealed, Point: backup.Point{ID: id, Machine: backup.Machine{Name: header.Machine.String()}}}
	for i := range header.Roots {
		point.Roots = append(point.Roots, &header.Roots[i])
		point.Objects = append(point.Objects, backup.Object{Name: fmt.Sprintf("object %d", i+1)})
	}
	return point, nil
}

type pointWalk struct {
	*verifier
	point  *Point
	object backup.Object
	root   tree.Root
}

// walk follows a node and returns true if all below it is good.
func (w *pointWalk) walk(ctx context.Context, id format.ID, level int, offset, length int64) (bool, error) {
	if w.good[goodNode{id, length, w.root.BlockSize}] {
		return true, nil
	}
	ok, reason, err := w.readable(ctx, id, anyLength)
	if err != nil {
		return false, err
	}
	var children []tree.Block
	if ok {
		children, err = tree.Children(ctx, w.repo.LoadNode, w.root, id, level, offset, length)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			ok, reason = false, err.Error()
		}
	}
	if !ok {
		w.note(offset, length, "tree node: "+reason)
		return false, nil
	}
	whole := true
	for _, child := range children {
		good := false
		if level > 0 {
			good, err = w.walk(ctx, child.ID, level-1, child.Offset, child.Length)
		} else if good, reason, err = w.readable(ctx, child.ID, child.Length); !good && err == nil {
			w.note(child.Offset, child.Length, reason)
		}
		if err != nil {
			return false, err
		}
		whole = whole && good
	}
	if whole {
		w.good[goodNode{id, length, w.root.BlockSize}] = true
	}
	return whole, nil
}

func (w *pointWalk) note(offset, length int64, reason string) {
	name := w.point.Machine.Name
	if name == "" {
		name = w.point.Machine.Key.String()
	}
	w.damage(Damage{Machine: name, Point: w.point.ID.String(), Object: w.object.Name, Offset: offset, Length: length, Reason: reason})
}
