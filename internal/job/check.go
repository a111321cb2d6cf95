package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// CheckReport says what checking a source's points found.
type CheckReport struct {
	// Broken points cannot be copied. Damaged ones are those of them that were good when they were stored: they lie in
	// a Ferry repository that has bad bytes.
	Broken, Damaged int
	Warnings        []string
}

// CheckPoints reads every complete point of a source whole and notes in it what it found: proven, locked or broken. begin
// is told of each point and returns what to call at its end.
func CheckPoints(ctx context.Context, from *registry.Source, begin func(p source.Point, total, done func() int64) func()) (CheckReport, error) {
	var report CheckReport
	for i := range from.Points {
		p := &from.Points[i]
		if p.State == backup.StateComplete {
			end := func() {}
			err := Check(ctx, *p, func(total, done func() int64) { end = begin(*p, total, done) })
			end()
			if ctx.Err() != nil {
				return report, ctx.Err()
			}
			report.note(from, p, err)
		}
		if p.State == backup.StateBroken {
			report.Broken++
			if p.Via != "" && p.Opener == nil { // listed as damaged: it was good when it was stored
				report.Damaged++
			}
		}
	}
	return report, nil
}

// note gives a point the state that reading it showed.
func (r *CheckReport) note(from *registry.Source, p *source.Point, err error) {
	switch {
	case err == nil:
		p.Proven = true
		return
	case errors.Is(err, backup.ErrLocked) || errors.Is(err, backup.ErrChanged) || errors.Is(err, backup.ErrVanished):
		p.State = backup.StateLocked
	default:
		p.State = backup.StateBroken
	}
	p.Proven, p.Reason = false, Reason(err)
	if errors.Is(err, backup.ErrDamaged) {
		r.Damaged++
	}
	// Anything else may be the machine's or the disk's passing trouble, and is looked at again the next time.
	if errors.Is(err, backup.ErrBroken) {
		if rememberErr := from.RememberBroken(*p, p.Reason); rememberErr != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("cannot remember that the point is broken: %v", rememberErr))
		}
	}
}

// Check reads a point whole and stores nothing. It returns nil if everything could be read and all that the source can
// check is good. progress, if not nil, is given functions that tell how far it is.
func Check(ctx context.Context, p source.Point, progress func(total, done func() int64)) error {
	if p.Opener == nil {
		return fmt.Errorf("%s: %s", p.State, p.Reason)
	}
	content, err := p.Opener.Open(ctx)
	if err != nil {
		return err
	}
	defer content.Close()
	c := &checker{ctx: ctx, content: content}
	total := int64(0)
	for _, o := range content.Objects() {
		total += max(o.Size, 0)
	}
	if progress != nil {
		progress(func() int64 { return max(total, c.done.Load()) }, c.done.Load)
	}
	if err := c.read(); err != nil {
		return err
	}
	return content.Revalidate(ctx)
}

type checker struct {
	ctx     context.Context
	content source.Content
	done    atomic.Int64
}

func (c *checker) read() error {
	onePass := false
	for i, o := range c.content.Objects() {
		switch o.Access {
		case source.AccessOnePass:
			onePass = true
		case source.AccessRandom:
			if err := c.readDisk(i); err != nil {
				return inObject(o.Name, err)
			}
		case source.AccessInline:
		}
	}
	if onePass {
		return c.content.Stream(c.ctx, c)
	}
	return nil
}

// inObject adds the object to an error that does not name it yet.
func inObject(name string, err error) error {
	var at *backup.Error
	if errors.As(err, &at) && at.Object != "" {
		return err
	}
	return &backup.Error{Object: name, Offset: backup.NoOffset, Err: err}
}

func (c *checker) readDisk(i int) error {
	disk, err := c.content.Disk(i)
	if err != nil {
		return err
	}
	buffer := make([]byte, 1<<20)
	for e, err := range disk.Extents(c.ctx, nil) {
		if err != nil {
			return err
		}
		for at := e.Offset; at < e.End() && e.Kind == backup.ExtentData; {
			n := min(e.End()-at, int64(len(buffer)))
			got, err := disk.ReadAt(buffer[:n], at)
			if int64(got) < n {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("offset %d: %w", at+int64(got), err)
			}
			if err := c.ctx.Err(); err != nil {
				return err
			}
			at += n
			c.done.Add(n)
		}
		if e.Kind != backup.ExtentData {
			c.done.Add(e.Length)
		}
	}
	return nil
}

// Data, Zero and End make the checker a sink that keeps nothing.
func (c *checker) Data(_ int, _ int64, p []byte) error {
	c.done.Add(int64(len(p)))
	return c.ctx.Err()
}

// Zero counts.
func (c *checker) Zero(_ int, _, length int64) error {
	c.done.Add(length)
	return c.ctx.Err()
}

// End has nothing to do.
func (c *checker) End(int, int64) error { return nil }
