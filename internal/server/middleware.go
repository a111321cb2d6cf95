package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"ferry/internal/api"
)

const (
	// bodyLimit is the largest body of a request, in bytes.
	bodyLimit = 1 << 20
	// bodyTimeout is how long a body may take to come, writeTimeout how long a client may take to read what is written.
	bodyTimeout  = 20 * time.Second
	writeTimeout = 20 * time.Second
)

// guarded keeps from the handlers what they should not have to think of.
func (s *Server) guarded(next http.Handler) http.Handler {
	return s.recovered(s.recorded(s.refuseBrowsers(s.withBody(next))))
}

// recovered answers for a handler that panicked: the log has everything, the client nothing of it.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &timedWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		if !s.requests.TryRLock() {
			s.refuse(answer, newProblem(http.StatusServiceUnavailable, api.CodeNotReady, "the server has ended"))
			return
		}
		defer s.requests.RUnlock()
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			s.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "user", peerOf(r.Context()), "panic", cause, "stack", string(debug.Stack()))
			if answer.status != 0 {
				panic(http.ErrAbortHandler) // the client must not take what it has for the whole
			}
			s.refuse(answer, newProblem(http.StatusInternalServerError, "", "the server failed; its log says more"))
		}()
		next.ServeHTTP(answer, r)
	})
}

// recorded notes who asked for a change, and what came of it.
func (s *Server) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return
		}
		status := 0
		if answer, ok := w.(*timedWriter); ok {
			status = answer.status
		}
		s.Log.Info("request", "method", r.Method, "path", r.URL.Path, "status", status, "user", peerOf(r.Context()))
	})
}

// peer is the key of who is at the other end of a connection, in its context.
type peer struct{}

// withPeer notes who is at the other end of a connection to the socket, as the kernel knows it.
func withPeer(ctx context.Context, connection net.Conn) context.Context {
	user := userOf(connection)
	if user == unknownUser {
		return ctx
	}
	return context.WithValue(ctx, peer{}, user)
}

// peerOf is the number of the user who asks, or "unknown".
func peerOf(ctx context.Context) string {
	if user, ok := ctx.Value(peer{}).(uint32); ok {
		return strconv.FormatUint(uint64(user), 10)
	}
	return "unknown"
}

// refuseBrowsers refuses what a page in a browser sends, by whatever way it came to the socket: this interface is none for
// pages, and they must not act for the person before them.
func (s *Server) refuseBrowsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
			s.refuse(w, newProblem(http.StatusForbidden, "", "requests of web pages are refused"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withBody reads the body before anything else, so that it is bounded in size and time for every handler.
func (s *Server) withBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		// Tests without a connection have no deadlines. A deadline that stayed would end requests that take longer.
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
		_ = control.SetReadDeadline(time.Time{})
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			s.refuse(w, newProblem(http.StatusRequestEntityTooLarge, api.CodeInvalid, "the request is larger than %d bytes", bodyLimit))
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.refuse(w, newProblem(http.StatusRequestTimeout, api.CodeInvalid, "the request took longer than %v to come", bodyTimeout))
			return
		case err != nil:
			s.refuse(w, newProblem(http.StatusBadRequest, api.CodeInvalid, "the request cannot be read: %v", err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// refuse answers with a problem where no operation has been reached.
func (s *Server) refuse(w http.ResponseWriter, p *problem) {
	content, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	w.Header().Set("Content-Type", api.MediaProblem)
	w.WriteHeader(p.Status)
	_, _ = w.Write(content) // who does not read it has gone
}

// timedWriter gives each piece of an answer the time to be read: who reads more slowly is cut off, and holds up nothing.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	// status of the answer; 0 while none has begun.
	status int
}

func (w *timedWriter) WriteHeader(status int) {
	w.status = status
	w.limit() // it may be all of the answer
	w.ResponseWriter.WriteHeader(status)
}

func (w *timedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.limit()
	return w.ResponseWriter.Write(p)
}

// limit gives what is written next its time.
func (w *timedWriter) limit() { _ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// Unwrap is for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
