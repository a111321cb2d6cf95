package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"

	"ferry/internal/storage"
)

// markLimit is the size of a mark at most, in bytes: they are read whole, because they may be replaced at any time.
const markLimit = 64 << 20

// reader reads ranges of one version of an object.
type reader struct {
	store   *Store
	ctx     context.Context
	name    string
	version string
	size    int64
}

// Open opens an object for reading. It asks for the object's size; OpenSized does without.
func (s *Store) Open(ctx context.Context, name string) (storage.Reader, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	if !immutable(name) {
		content, err := s.ReadAll(ctx, name, markLimit)
		if err != nil {
			return nil, err
		}
		return wholeReader{bytes.NewReader(content)}, nil
	}
	info, err := s.find(ctx, name)
	if err != nil {
		return nil, s.describe("opening", name, err)
	}
	return s.newReader(ctx, name, info.VersionID, info.Size), nil
}

// OpenSized opens an object of known size; nothing is asked of the server.
func (s *Store) OpenSized(ctx context.Context, name string, size int64) (storage.Reader, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return s.newReader(ctx, name, s.oldVersion(ctx, name), size), nil
}

// Oldest opens the oldest version of an object.
func (s *Store) Oldest(ctx context.Context, name string) (storage.Reader, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	version, found, err := s.oldestVersion(ctx, name)
	if err == nil && !found {
		err = storage.ErrNotExist
	}
	if err != nil {
		return nil, s.describe("opening the oldest version of", name, err)
	}
	info, err := s.head(ctx, name, version)
	if err != nil {
		return nil, s.describe("opening the oldest version of", name, err)
	}
	return s.newReader(ctx, name, version, info.Size), nil
}

func (s *Store) newReader(ctx context.Context, name, version string, size int64) *reader {
	return &reader{store: s, ctx: context.WithoutCancel(ctx), name: name, version: version, size: size}
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) Close() error { return nil }

func (r *reader) ReadAt(p []byte, off int64) (int, error) { return r.ReadAtContext(r.ctx, p, off) }

// ReadAtContext reads a range with one request.
func (r *reader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", r.name, off)
	}
	want := int(max(0, min(int64(len(p)), r.size-off)))
	if want > 0 {
		n, err := r.store.readRange(ctx, r.name, r.version, p[:want], off)
		if err != nil && err != io.EOF {
			err = r.store.describe("reading", r.name, err)
		}
		if err != nil {
			return n, err
		}
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

// readRange fills p from a version of an object. If that ends before, the error is io.EOF.
func (s *Store) readRange(ctx context.Context, name, version string, p []byte, off int64) (int, error) {
	options := minio.GetObjectOptions{VersionID: version}
	if err := options.SetRange(off, off+int64(len(p))-1); err != nil {
		return 0, err
	}
	n := 0
	err := s.retry(ctx, int64(len(p)), func(ctx context.Context) error {
		content, _, header, err := s.core.GetObject(ctx, s.location.Bucket, s.key(name), options)
		if err != nil {
			return err
		}
		defer content.Close()
		var first, last int64
		if _, err := fmt.Sscanf(header.Get("Content-Range"), "bytes %d-%d/", &first, &last); err != nil || first != off || last < first {
			return minio.ErrorResponse{StatusCode: http.StatusOK, Code: "WrongRange", Message: "it sent other bytes than those asked for"}
		}
		n, err = io.ReadFull(content, p[:min(int64(len(p)), last-first+1)])
		return cut(err)
	})
	if isStatus(err, http.StatusRequestedRangeNotSatisfiable) || err == nil && n < len(p) {
		return n, io.EOF
	}
	if err != nil && version == "" && s.mayBeHidden(name, err) {
		if version, found, listErr := s.oldestVersion(ctx, name); listErr == nil && found {
			return s.readRange(ctx, name, version, p, off)
		}
	}
	return n, err
}

// ReadAll reads an object with one request.
func (s *Store) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	content, err := s.readAll(ctx, name, s.oldVersion(ctx, name), limit)
	if err != nil && s.mayBeHidden(name, err) {
		if version, found, listErr := s.oldestVersion(ctx, name); listErr != nil {
			err = listErr
		} else if found {
			content, err = s.readAll(ctx, name, version, limit)
		}
	}
	if err != nil {
		return nil, s.describe("reading", name, err)
	}
	return content, nil
}

func (s *Store) readAll(ctx context.Context, name, version string, limit int64) ([]byte, error) {
	var whole []byte
	err := s.retry(ctx, limit, func(ctx context.Context) error {
		content, info, _, err := s.core.GetObject(ctx, s.location.Bucket, s.key(name), minio.GetObjectOptions{VersionID: version})
		if err != nil {
			return err
		}
		defer content.Close()
		if info.Size > limit {
			return minio.ErrorResponse{StatusCode: http.StatusOK, Code: "TooLarge", Message: storage.TooLarge(name).Error()}
		}
		if info.Size < 0 {
			return errCut
		}
		whole = make([]byte, info.Size)
		_, err = io.ReadFull(content, whole)
		return cut(err)
	})
	return whole, err
}

// cut turns the end of a body before its time into an error of the connection.
func cut(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

// wholeReader reads a mark.
type wholeReader struct{ *bytes.Reader }

func (wholeReader) Close() error { return nil }
