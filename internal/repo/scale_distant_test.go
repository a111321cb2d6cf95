//go:build scale

package repo_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

// traffic is what was asked of a distant storage.
type traffic struct {
	requests, read atomic.Int64
}

// countingStore is a storage with round trips, which counts them.
type countingStore struct {
	storage.Store
	traffic
}

func (s *countingStore) ParallelReads() int { return 8 }

func (s *countingStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	reader, err := s.Store.Open(ctx, name)
	return &countingReader{reader, s}, err
}

type countingReader struct {
	storage.Reader
	store *countingStore
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.store.requests.Add(1)
	n, err := r.Reader.ReadAt(p, off)
	r.store.read.Add(int64(n))
	return n, err
}

// scaleMarkS3 opens and marks the same repository as a bucket of the server that FERRY_SCALE_S3 names as HOST:PORT: one whose buckets are
// the folders in FERRY_SCALE_DIR. Its keys are in the environment.
func scaleMarkS3(t *testing.T, m *meter, dir string, env repo.Environment, blocks uint64) {
	server := os.Getenv("FERRY_SCALE_S3")
	if server == "" {
		return
	}
	connections := must(minio.DefaultTransport(false))(t)
	defer connections.CloseIdleConnections()
	transport := &countingTransport{RoundTripper: connections}
	location := must(s3.ParseLocation("s3+http://" + server + "/vault"))(t)
	store := must(s3.Open(location, s3.Options{Transport: transport}))(t)
	defer store.Close()
	env.CacheDir = filepath.Join(dir, "S3")
	scaleMarkCold(t, m, store, &transport.traffic, "S3", env, blocks)
}

// countingTransport counts requests over HTTP, and the bytes of their answers' bodies.
type countingTransport struct {
	http.RoundTripper
	traffic
}

func (c *countingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	answer, err := c.RoundTripper.RoundTrip(request)
	if err == nil {
		answer.Body = &countingBody{answer.Body, c}
	}
	return answer, err
}

type countingBody struct {
	io.ReadCloser
	transport *countingTransport
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.transport.read.Add(int64(n))
	return n, err
}
