package s3

import (
	"context"
	"io"
	"net/http"

	"ferry/internal/storage"
)

// pacedAtOnce is how many bytes cross at once, so that they flow.
const pacedAtOnce = 16 << 10

// paced makes the bodies of requests and answers go at a pace, tries again included.
type paced struct {
	http.RoundTripper
	send, receive storage.Pace // nil: as fast as it goes
}

func (p *paced) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	if p.send != nil && request.Body != nil && request.Body != http.NoBody {
		request = request.WithContext(ctx) // a copy: the caller's is not to be changed
		request.Body = &pacedBody{request.Body, ctx, p.send}
		if again := request.GetBody; again != nil {
			request.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				if err != nil {
					return nil, err
				}
				return &pacedBody{body, ctx, p.send}, nil
			}
		}
	}
	response, err := p.RoundTripper.RoundTrip(request)
	if err == nil && p.receive != nil {
		response.Body = &pacedBody{response.Body, ctx, p.receive}
	}
	return response, err
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
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), pacedAtOnce)])
	if n > 0 {
		if paceErr := b.pace(b.ctx, n); paceErr != nil {
			return 0, paceErr
		}
	}
	return n, err
}
