// Package server answers over HTTP for the scheduler, the catalog and the status: on a Unix socket, in JSON, as
// docs/api.md and docs/openapi.json say. It decides nothing about copies and opens no repository.
//
// Whoever may use the socket may change jobs, and what jobs read and run. So resources may name only what [Allowed]
// has, and browsers are refused.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// How long a client may take for the header of a request, and be there without one; how long requests may go on when the
// server ends. What a client may send is in middleware.go.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	graceful      = 5 * time.Second
)

// headerLimit is the largest header of a request, in bytes.
const headerLimit = 32 << 10

// Options of a server. Catalog, Scheduler, Explanation and Future are needed.
type Options struct {
	Catalog   *catalog.Catalog
	Scheduler Scheduler
	// Explanation is what a job would do as JSON, in the form that the command line prints.
	Explanation func(policy.Job, *job.Explanation) any
	// Future is what a job keeps in so many days to come, in that form too.
	Future func(ctx context.Context, resources policy.Resources, setup job.Setup, days int) (any, error)
	// Release withdraws the claims that a job has in its target; nil: this cannot be done.
	Release func(ctx context.Context, resources policy.Resources, job string) error
	// Allowed says where may lie what resources name.
	Allowed Allowed
	// Bandwidth are the limits of all jobs together for what crosses a network, as [policy.ParseLimit] reads them, unless somebody
	// has set others. Limit makes those that hold others at once; nil: nobody is told.
	Bandwidth []string
	Limit     func(policy.Bandwidth)
	// Version is the program's.
	Version string
	// Listening, if not nil, is called once requests are taken.
	Listening func()
	// Log; nil says nothing.
	Log *slog.Logger
	// Now is the clock; nil is the machine's.
	Now func() time.Time
}

// Server answers requests.
type Server struct {
	Options
	handler http.Handler
	// description is the interface in OpenAPI 3.1.
	description []byte
	// changing is held while resources are checked and changed: what was checked is what is stored.
	changing sync.Mutex
	// leaving are the resources that are being deleted, by what describe calls them. For who holds changing.
	leaving map[string]bool
	// inAll is the limit of all jobs together that holds. For who holds changing.
	inAll policy.Bandwidth
	// read is what stored resources said when they were read last.
	read policy.Memory
	// requests is held for reading by each request in progress, and for good by a server that has ended.
	requests sync.RWMutex
	// grace is graceful, but for tests.
	grace time.Duration
	// ending is closed when the server ends: what follows a session hangs up then.
	ending chan struct{}
}

// New makes a server. It answers nothing before Serve.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{Options: o, leaving: map[string]bool{}, grace: graceful, ending: make(chan struct{})}
	s.handler = s.routes()
	return s
}

// Serve answers requests on a Unix socket until ctx ends, then lets those in progress come to their end for some seconds. When
// it returns none is in progress.
// The error wraps ErrRunning if a server listens there already; it is nil if ctx ended. A server serves once.
func (s *Server) Serve(ctx context.Context, socketPath string) error {
	listener, err := listen(socketPath)
	if err != nil {
		return err
	}
	taken := bounded(listener, tooMany())
	defer taken.Close()
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerLimit,
		ConnContext: withPeer, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(taken) }()
	if s.Listening != nil {
		s.Listening()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("the server's socket: %w", err)
	case <-ctx.Done():
	}
	close(s.ending)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		server.Close() // what is left has had its time, and hears of it by its context
	}
	s.requests.Lock()
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the server's socket: %w", err)
	}
	return nil
}
