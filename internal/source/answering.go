package source

import (
	"context"
	"iter"
	"sync"

	"ferry/internal/answer"
	"ferry/internal/backup"
)

// OpenAnswering opens a point, and gives content whose methods return within answer.Patience after ctx has ended, whatever the source
// does: those that do not answer are left behind among the calls. A ReadAt that returns answer.ErrNone may still write into what it
// was given.
func OpenAnswering(ctx context.Context, calls *answer.Calls, opener Opener) (Content, error) {
	content, err := answer.Call(ctx, calls, func() (Content, error) { return opener.Open(ctx) }, func(c Content) { _ = c.Close() })
	if err != nil {
		return nil, err
	}
	return &answering{Content: content, ctx: ctx, calls: calls}, nil
}

// Opened is the content as its format opened it.
func Opened(content Content) Content {
	if a, ok := content.(*answering); ok {
		return a.Content
	}
	return content
}

type answering struct {
	Content
	ctx   context.Context // of the copy: io.ReaderAt has none
	calls *answer.Calls
}

func (a *answering) Disk(i int) (Disk, error) {
	disk, err := answer.Call(a.ctx, a.calls, func() (Disk, error) { return a.Content.Disk(i) }, nil)
	if err != nil {
		return nil, err
	}
	return &answeringDisk{Disk: disk, of: a}, nil
}

func (a *answering) Stream(ctx context.Context, sink Sink) error {
	let := &leavable{sink: sink, calls: a.calls}
	defer let.leave()
	return a.calls.Do(ctx, func() error { return a.Content.Stream(ctx, let) })
}

func (a *answering) Revalidate(ctx context.Context) error {
	return a.calls.Do(ctx, func() error { return a.Content.Revalidate(ctx) })
}

func (a *answering) Close() error {
	return a.calls.WhenBack(func() error { return a.calls.Do(a.ctx, a.Content.Close) })
}

type answeringDisk struct {
	Disk
	of *answering
}

func (d *answeringDisk) ReadAt(p []byte, offset int64) (int, error) {
	return answer.Call(d.of.ctx, d.of.calls, func() (int, error) { return d.Disk.ReadAt(p, offset) }, nil)
}

// Extents finds them in a call of their own, some ahead of who asks.
func (d *answeringDisk) Extents(ctx context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	return answer.Each(ctx, d.of.calls, func(ctx context.Context) iter.Seq2[backup.Extent, error] { return d.Disk.Extents(ctx, base) })
}

// leavable is a sink that a call may be left behind with: from then on it takes nothing.
type leavable struct {
	calls *answer.Calls
	mu    sync.Mutex
	sink  Sink // nil: left
}

func (l *leavable) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink = nil
}

func (l *leavable) give(to func(Sink) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return answer.ErrNone
	}
	return l.calls.Meanwhile(func() error { return to(l.sink) })
}

func (l *leavable) Data(i int, offset int64, p []byte) error {
	return l.give(func(s Sink) error { return s.Data(i, offset, p) })
}

func (l *leavable) Zero(i int, offset, length int64) error {
	return l.give(func(s Sink) error { return s.Zero(i, offset, length) })
}

func (l *leavable) End(i int, size int64) error {
	return l.give(func(s Sink) error { return s.End(i, size) })
}
