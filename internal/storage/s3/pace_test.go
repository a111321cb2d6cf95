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
	"time"

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

// Where a limit holds, what the buffers take of an answer is told of before it is asked for, once; where none does, all of it is
// as it comes.
func TestPacedAhead(t *testing.T) {
	content := make([]byte, 300_000)
	var total, before atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before.Store(total.Load())
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	rate := int64(0)
	transport := &paced{RoundTripper: http.DefaultTransport, receive: func(_ context.Context, n int) error { total.Add(int64(n)); return nil }, rate: func() int64 { return rate }}
	defer transport.CloseIdleConnections()
	for _, c := range []struct {
		rate             int64
		asked            string
		bytes, toldAhead int64
	}{
		{0, "bytes=0-199999", 200_000, 0},
		{1e6, "bytes=0-199999", 200_000, 1e6 / 16},
		{1e6, "bytes=7-1006", 1000, 1000},
		{1, "bytes=0-199999", 200_000, leastWindow},
		{1e6, "", 300_000, 0},
		{0, "bytes=0-199999", 200_000, 0},
	} {
		rate = c.rate
		total.Store(0)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.asked != "" {
			request.Header.Set("Range", c.asked)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil || n != c.bytes || total.Load() != c.bytes || before.Load() != c.toldAhead {
			t.Errorf("%+v: %d bytes came, %d were told of, %d of them before: %v", c, n, total.Load(), before.Load(), err)
		}
	}
}
