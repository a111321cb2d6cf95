package storage

import (
	"context"
	"errors"
)

// Pace is told of bytes that are about to cross a link, or just have, and returns when the next may. It is used by several
// goroutines at once. An error is that of ctx.
type Pace func(ctx context.Context, bytes int) error

// pacedAtOnce is how many bytes of an object pass at once, so that they flow.
const pacedAtOnce = 64 << 10

// Paced is a store whose objects' content is written at the pace of send, and read at that of receive; nil: as fast as it
// goes. It is for stores that have no link of their own to limit, such as a mounted share.
func Paced(store Store, send, receive Pace) Store {
	if send == nil && receive == nil {
		return store
	}
	return &paced{store, send, receive}
}

type paced struct {
	Store
	send, receive Pace
}

// Unwrap gives what the store can do beside being one.
func (s *paced) Unwrap() Store { return s.Store }

func (s *paced) Create(ctx context.Context, name string) (Writer, error) {
	w, err := s.Store.Create(ctx, name)
	if err != nil || s.send == nil {
		return w, err
	}
	return &pacedWriter{w, ctx, s.send}, nil
}

func (s *paced) Put(ctx context.Context, name string, content []byte) error {
	if err := pass(ctx, s.send, len(content)); err != nil {
		return err
	}
	return s.Store.Put(ctx, name, content)
}

func (s *paced) Overwrite(ctx context.Context, name string, content []byte) error {
	if err := pass(ctx, s.send, len(content)); err != nil {
		return err
	}
	return s.Store.Overwrite(ctx, name, content)
}

func (s *paced) Open(ctx context.Context, name string) (Reader, error) {
	r, err := s.Store.Open(ctx, name)
	if err != nil || s.receive == nil {
		return r, err
	}
	return &pacedReader{r, ctx, s.receive}, nil
}

// ReadAll reads what is small by one call, and counts it then; a store that may not answer pays for each call.
func (s *paced) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	content, err := ReadAll(ctx, s.Store, name, min(limit, pacedAtOnce))
	if errors.Is(err, ErrTooLarge) && limit > pacedAtOnce {
		r, err := s.Open(ctx, name)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readWhole(ctx, r, name, limit)
	}
	if err == nil {
		err = pass(ctx, s.receive, len(content))
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// pass waits until so many bytes may pass, piece by piece.
func pass(ctx context.Context, pace Pace, bytes int) error {
	for bytes > 0 && pace != nil {
		n := min(bytes, pacedAtOnce)
		if err := pace(ctx, n); err != nil {
			return err
		}
		bytes -= n
	}
	return nil
}

type pacedWriter struct {
	Writer
	ctx  context.Context
	pace Pace
}

func (w *pacedWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), pacedAtOnce)]
		if err := w.pace(w.ctx, len(piece)); err != nil {
			return written, err
		}
		n, err := w.Writer.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		p = p[len(piece):]
	}
	return written, nil
}

type pacedReader struct {
	Reader
	ctx  context.Context
	pace Pace
}

func (r *pacedReader) ReadAt(p []byte, offset int64) (int, error) {
	return r.ReadAtContext(r.ctx, p, offset)
}

func (r *pacedReader) ReadAtContext(ctx context.Context, p []byte, offset int64) (int, error) {
	return r.read(ctx, p, offset, ReadAt)
}

func (r *pacedReader) ReadOnceAt(p []byte, offset int64) (int, error) {
	return r.read(r.ctx, p, offset, readOnceAt)
}

func (r *pacedReader) read(ctx context.Context, p []byte, offset int64, read readAt) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+pacedAtOnce)]
		if err := r.pace(ctx, len(piece)); err != nil {
			return done, err
		}
		n, err := read(ctx, r.Reader, piece, offset+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
