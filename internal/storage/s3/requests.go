package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"ferry/internal/storage"
)

// counter is a transport that counts requests by kind, and learns from the answers whether the bucket keeps versions.
type counter struct {
	http.RoundTripper
	get, head, list, put, remove, lock, other, retried atomic.Int64
	// versioned is true once an answer named a version, told once an answer could have.
	versioned, told atomic.Bool
}

func (c *counter) RoundTrip(request *http.Request) (*http.Response, error) {
	kind := c.kind(request)
	kind.Add(1)
	response, err := c.RoundTripper.RoundTrip(request)
	if err == nil && response.Header.Get("X-Amz-Version-Id") != "" {
		c.versioned.Store(true)
	}
	if err == nil && kind == &c.get && (response.StatusCode == http.StatusOK || response.StatusCode == http.StatusPartialContent) {
		c.told.Store(true)
	}
	if err == nil && request.Method == http.MethodGet && request.URL.Query().Has("retention") {
		err = retentionName(response)
	}
	if err == nil && request.Method == http.MethodHead && response.StatusCode == http.StatusForbidden {
		nameSkew(request, response)
	}
	return response, err
}

// maxSkew is how far the time of a request's signature may be from the server's.
const maxSkew = 15 * time.Minute

// nameSkew makes an answer to a HEAD, which has no body to say why it is no, one that the client reads the reason from, if that is
// the time of the signature.
func nameSkew(request *http.Request, response *http.Response) {
	signed, err := time.Parse("20060102T150405Z", request.Header.Get("X-Amz-Date"))
	if err != nil {
		return
	}
	if now, err := http.ParseTime(response.Header.Get("Date")); err == nil && now.Sub(signed).Abs() > maxSkew {
		response.Header.Set("X-Minio-Error-Code", skewed)
		response.Header.Set("X-Minio-Error-Desc", "the time of the request and the server's differ by more than 15 minutes")
	}
}

func (c *counter) kind(request *http.Request) *atomic.Int64 {
	query := request.URL.Query()
	switch {
	case query.Has("retention"), query.Has("object-lock"):
		return &c.lock
	case query.Has("versioning"), query.Has("location"):
		return &c.other
	case query.Has("list-type"), query.Has("versions"):
		return &c.list
	case request.Method == http.MethodGet:
		return &c.get
	case request.Method == http.MethodHead:
		return &c.head
	case request.Method == http.MethodDelete:
		return &c.remove
	case request.Method == http.MethodPut, request.Method == http.MethodPost:
		return &c.put
	}
	return &c.other
}

// Requests counts what was asked of the server. Beginning, finishing and aborting a multipart upload and each of its parts
// are requests, too.
func (s *Store) Requests() storage.Requests {
	c := s.counter
	return storage.Requests{
		Get: c.get.Load(), Head: c.head.Load(), List: c.list.Load(), Put: c.put.Load(), Delete: c.remove.Load(), Lock: c.lock.Load(),
		Other: c.other.Load(), Retried: c.retried.Load(),
	}
}

const (
	// attempts that a request gets: with the pauses between them, about half a minute.
	attempts = 10
	// firstAttempts are those of a store that never had an answer: the location may be wrong.
	firstAttempts = 3
	// signedAgain is how often a request that came too late is.
	signedAgain = 2
	// defaultPause is before the second attempt; each later one is twice the one before, up to maxPause.
	defaultPause = 100 * time.Millisecond
	maxPause     = 10 * time.Second

	// patience is how long a request may take, without the time for its bytes, and slowest what is taken for a
	// connection that still works, in bytes a second.
	patience = time.Minute
	slowest  = 32 << 10
)

// retry calls do until it succeeds, fails for good, or was tried often enough, with pauses that grow and differ between
// clients. size is how many bytes an attempt moves. What the server calls signed at a wrong time is signed anew and sent again at
// once: the process, or the whole machine, may have been stopped in between. With a wrong clock that helps nothing.
func (s *Store) retry(ctx context.Context, size int64, do func(context.Context) error) error {
	pause, signedAnew := s.pause, 0
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, patience+time.Duration(size/slowest)*time.Second)
		err := ofServer(do(once))
		cancel()
		if err != nil && ctx.Err() != nil { // what has succeeded has, also if nobody waits for it any more
			return ctx.Err()
		}
		if isCode(err, skewed) && signedAnew < signedAgain {
			signedAnew++
			s.counter.retried.Add(1)
			continue
		}
		if err == nil || classOf(err) == permanent {
			s.reached.Store(true)
			return err
		}
		most := attempts
		if !s.reached.Load() {
			most = firstAttempts
		}
		if attempt == most {
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("the server does not answer")
			}
			return err
		}
		if err := storage.Sleep(ctx, pause/2+rand.N(pause/2+1)); err != nil {
			return err
		}
		s.counter.retried.Add(1)
		pause = min(2*pause, maxPause)
	}
}
