package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/minio/minio-go/v7"

	"ferry/internal/storage"
)

// partSize is what is uploaded at once, in bytes. The server's least is 5 MiB, but for the last part.
const partSize = 8 << 20

var errFinished = errors.New("the object was committed or aborted already")

// writer writes an object. Up to partSize bytes are kept and put in one request by Commit; with more a multipart upload
// begins, whose parts are on their way while others are written.
type writer struct {
	store *Store
	ctx   context.Context
	name  string

	// part is what is written and not on its way, in pooled chunks; length is how many bytes of it are used.
	part     []*[chunkSize]byte
	length   int
	finished bool
	failed   error // of Write

	upload *upload
}

// upload is a multipart upload on its way.
type upload struct {
	store   *Store
	ctx     context.Context
	cancel  context.CancelFunc
	name    string
	id      string
	mark    string
	locked  bool
	count   int
	running sync.WaitGroup

	mu    sync.Mutex
	parts []minio.CompletePart
	err   error
}

// Create begins an object. Nothing is asked of the server.
func (s *Store) Create(ctx context.Context, name string) (storage.Writer, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return &writer{store: s, ctx: ctx, name: name}, nil
}

func (w *writer) Write(p []byte) (int, error) {
	if w.finished {
		return 0, errFinished
	}
	if w.failed == nil {
		w.failed = w.ctx.Err()
	}
	written := 0
	for len(p) > 0 && w.failed == nil {
		if w.length == partSize {
			w.failed = w.send()
			continue
		}
		at := w.length % chunkSize
		if at == 0 {
			w.part = append(w.part, w.store.chunks.Get().(*[chunkSize]byte))
		}
		n := copy(w.part[len(w.part)-1][at:], p)
		p, w.length, written = p[n:], w.length+n, written+n
	}
	return written, w.failed
}

// content is the part as a body.
func (w *writer) content() *body {
	b := &body{size: int64(w.length)}
	for i, chunk := range w.part {
		b.chunks = append(b.chunks, chunk[:min(chunkSize, w.length-i*chunkSize)])
	}
	return b
}

func (w *writer) release() {
	w.store.release(w.part)
	w.part, w.length = nil, 0
}

func (s *Store) release(chunks []*[chunkSize]byte) {
	for _, chunk := range chunks {
		s.chunks.Put(chunk)
	}
}

// send brings the part on its way; the first begins the multipart upload. It waits for a place among those on their way.
func (w *writer) send() error {
	if w.upload == nil {
		begun, err := w.store.beginUpload(w.ctx, w.name)
		if err != nil {
			return err
		}
		w.upload = begun
	}
	select {
	case w.store.uploads <- struct{}{}:
	case <-w.upload.ctx.Done():
		return w.upload.failure()
	}
	content, chunks := w.content(), w.part
	w.part, w.length = nil, 0
	u := w.upload
	u.count++
	number := u.count
	u.running.Go(func() {
		u.put(number, content)
		u.store.release(chunks)
		<-u.store.uploads
	})
	return nil
}

func (s *Store) beginUpload(ctx context.Context, name string) (*upload, error) {
	options, mark := s.newOptions(name)
	u := &upload{store: s, name: name, mark: mark, locked: options.Mode != ""}
	err := s.retry(ctx, 0, func(ctx context.Context) (err error) {
		u.id, err = s.core.NewMultipartUpload(ctx, s.location.Bucket, s.key(name), options)
		return err
	})
	if err != nil {
		return nil, s.describe("writing", name, err)
	}
	u.ctx, u.cancel = context.WithCancel(ctx)
	return u, nil
}

// put uploads one part. The first that fails ends the others.
func (u *upload) put(number int, content *body) {
	s := u.store
	sums := content.sums(u.locked)
	var part minio.ObjectPart
	err := s.retry(u.ctx, content.size, func(ctx context.Context) (err error) {
		part, err = s.core.PutObjectPart(ctx, s.location.Bucket, s.key(u.name), u.id, number, content.reader(), content.size,
			minio.PutObjectPartOptions{Sha256Hex: sums.sha256, Md5Base64: sums.md5, DisableContentSha256: true})
		return err
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		if u.err == nil {
			u.err = s.describe("writing", u.name, err)
		}
		u.cancel()
		return
	}
	for len(u.parts) < number {
		u.parts = append(u.parts, minio.CompletePart{})
	}
	u.parts[number-1] = minio.CompletePart{PartNumber: number, ETag: part.ETag}
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return u.err
	}
	return u.ctx.Err()
}

// Commit publishes the object.
func (w *writer) Commit(ctx context.Context) error {
	if w.finished {
		return errFinished
	}
	err := w.failed
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		w.Abort()
		return err
	}
	w.finished = true
	if w.upload == nil {
		defer w.release()
		return w.store.putNew(ctx, w.name, w.content())
	}
	if w.length > 0 {
		err = w.send()
	}
	w.upload.running.Wait()
	if err == nil {
		err = w.upload.failure()
	}
	if err == nil {
		err = w.upload.complete(ctx)
	}
	if err != nil {
		w.upload.abort()
	}
	w.upload.cancel()
	w.release()
	return err
}

// complete ends the upload. A server that did so and whose answer was lost says, asked again, that there is no such upload,
// or that the name is taken; then the object's mark tells.
func (u *upload) complete(ctx context.Context) error {
	s := u.store
	var options minio.PutObjectOptions
	options.SetMatchETagExcept("*")
	ambiguous := false
	err := s.retry(ctx, 0, func(ctx context.Context) error {
		_, err := s.core.CompleteMultipartUpload(ctx, s.location.Bucket, s.key(u.name), u.id, u.parts, options)
		if isCode(err, "ConditionalRequestConflict") {
			// The server has dropped the parts: only writing all of it again would help.
			return fmt.Errorf("another writer of this name came between: %w", errors.New(err.Error()))
		}
		ambiguous = ambiguous || err != nil && classOf(err) == temporary
		return err
	})
	if ambiguous && (isStatus(err, http.StatusPreconditionFailed) || isStatus(err, http.StatusNotFound)) {
		lost := err
		if isStatus(err, http.StatusNotFound) {
			lost = errors.New("the upload is gone")
		}
		err = s.own(ctx, u.name, u.mark, lost)
	}
	return s.describe("writing", u.name, err)
}

// abort gives the server's space back. If that fails, the bucket's rule for unfinished uploads does it (docs/s3.md).
func (u *upload) abort() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), patience)
	defer cancel()
	_ = u.store.core.AbortMultipartUpload(ctx, u.store.location.Bucket, u.store.key(u.name), u.id)
}

// Abort drops what was written.
func (w *writer) Abort() {
	if w.finished {
		return
	}
	w.finished = true
	w.release()
	if w.upload != nil {
		w.upload.cancel()
		w.upload.running.Wait()
		w.upload.abort()
	}
}
