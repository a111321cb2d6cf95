package s3

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"ferry/internal/storage"
)

// pacedAtOnce is how many bytes cross at once, so that they flow.
const pacedAtOnce = 16 << 10

// paced makes the bodies of requests and answers go at a pace, tries again included.
//
// What a server sends comes as fast as the link is until this machine's buffers for it are full, before any of it is read. So
// where a limit holds
//
//  1. these buffers are kept small for each connection: a sixteenth of what may come in a second;
//  2. of an answer whose size is known from what is asked, as much as they take is told of before it is asked for, and the rest
//     before each read, which makes room for more: what has come is never more than what was told of.
type paced struct {
	http.RoundTripper
	send, receive storage.Pace // nil: as fast as it goes
	// rate is how many bytes a second receive lets pass now; 0: any. nil: that is not known.
	rate func() int64
	// bounded is true once buffers were kept small.
	bounded atomic.Bool
}

// leastWindow and mostWindow are how small and how large buffers are made, in bytes.
const leastWindow, mostWindow = 32 << 10, 1 << 20

// window is how many bytes of an answer may come before they are read; 0: any.
func (p *paced) window() int {
	if p.rate == nil {
		return 0
	}
	rate := p.rate()
	if rate == 0 {
		return 0
	}
	return int(min(max(rate/16, leastWindow), mostWindow))
}

func (p *paced) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	if p.send != nil && request.Body != nil && request.Body != http.NoBody {
		request = request.WithContext(ctx) // a copy: the caller's is not to be changed
		request.Body = &pacedBody{ReadCloser: request.Body, ctx: ctx, pace: p.send}
		if again := request.GetBody; again != nil {
			request.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				if err != nil {
					return nil, err
				}
				return &pacedBody{ReadCloser: body, ctx: ctx, pace: p.send}, nil
			}
		}
	}
	if p.receive == nil {
		return p.RoundTripper.RoundTrip(request)
	}
	window, size := p.window(), asked(request)
	ahead := min(window, size)
	if ahead > 0 {
		if err := p.receive(ctx, ahead); err != nil {
			return nil, err
		}
	}
	switch {
	case window > 0:
		p.bounded.Store(true)
		request = request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(got httptrace.GotConnInfo) { setBuffer(got.Conn, window) },
		}))
	case p.bounded.Swap(false): // the system makes no buffer grow again that was once set
		p.CloseIdleConnections()
	}
	response, err := p.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = &pacedBody{ReadCloser: response.Body, ctx: ctx, pace: p.receive, ahead: ahead > 0, left: size - ahead}
	}
	return response, err
}

// asked is how many bytes of an object a request asks for; 0: it does not say.
func asked(request *http.Request) int {
	var first, last int
	if n, err := fmt.Sscanf(request.Header.Get("Range"), "bytes=%d-%d", &first, &last); n != 2 || err != nil || request.Method != http.MethodGet {
		return 0
	}
	return last - first + 1
}

// setBuffer bounds how much a connection's peer may send before it is read. Connections of other kinds stay as they are.
func setBuffer(connection net.Conn, bytes int) {
	if secured, is := connection.(interface{ NetConn() net.Conn }); is {
		connection = secured.NetConn()
	}
	if plain, is := connection.(*net.TCPConn); is {
		_ = plain.SetReadBuffer(bytes / 2) // the system takes twice as much
	}
}

// CloseIdleConnections releases those of the transport behind it.
func (p *paced) CloseIdleConnections() {
	if idle, ok := p.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
}

type pacedBody struct {
	io.ReadCloser
	ctx  context.Context
	pace storage.Pace
	// ahead is true if the pace is told of bytes before they are read, and left how many it is still to be told of then.
	ahead bool
	left  int
}

func (b *pacedBody) Read(p []byte) (int, error) {
	p = p[:min(len(p), pacedAtOnce)]
	if b.ahead {
		if tell := min(len(p), b.left); tell > 0 {
			if err := b.pace(b.ctx, tell); err != nil {
				return 0, err
			}
			b.left -= tell
		}
		return b.ReadCloser.Read(p)
	}
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if paceErr := b.pace(b.ctx, n); paceErr != nil {
			return 0, paceErr
		}
	}
	return n, err
}
