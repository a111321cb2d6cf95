package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"ferry/internal/storage"
)

// Every byte that is sent and received is told of, some at a time, and an error of the pace ends the request.
func TestPaced(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client gave up
		}
		_, _ = w.Write(append(content, content...))
	}))
	defer server.Close()
	var sent, received, most atomic.Int64
	count := func(total *atomic.Int64) storage.Pace {
		return func(_ context.Context, n int) error {
			total.Add(int64(n))
			most.Store(max(most.Load(), int64(n)))
			return nil
		}
	}
	stopped := errors.New("stopped")
	for _, c := range []struct {
		send, receive storage.Pace
		want          error
	}{
		{count(&sent), count(&received), nil},
		{nil, nil, nil},
		{func(context.Context, int) error { return stopped }, nil, stopped},
		{nil, func(context.Context, int) error { return stopped }, stopped},
	} {
		transport := &paced{RoundTripper: http.DefaultTransport, send: c.send, receive: c.receive}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL, bytes.NewReader(make([]byte, 100_000)))
		if err != nil {
			t.Fatal(err)
		}
		body := request.Body
		response, err := transport.RoundTrip(request)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, c.want) || request.Body != body {
			t.Errorf("%v, want %v; the caller's body is as it was: %v", err, c.want, request.Body == body)
		}
		transport.CloseIdleConnections()
	}
	if sent.Load() != 100_000 || received.Load() != 200_000 || most.Load() > pacedAtOnce {
		t.Errorf("%d bytes sent, %d received, at most %d at once", sent.Load(), received.Load(), most.Load())
	}
}
