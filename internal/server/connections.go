package server

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/api"
)

// How many connections there are at once, and how many refusals are being told. Each costs some memory and a file; a client that
// follows a session keeps one for as long.
const (
	maxConnections              = 256
	maxConnectionsOfUser        = 64
	maxRefusals                 = 16
	refusalTimeout              = time.Second
	refusedRequest              = 4 << 10 // what is read of it, in bytes
	unknownUser          uint32 = 1<<32 - 1
)

// connections bounds what a listener gives: in all, and for each user, so that one cannot shut out the others. Who is one too
// many is told so, as long as few are.
type connections struct {
	net.Listener
	refusal []byte
	// refusals are the slots of those that are being told, telling waits for them.
	refusals chan struct{}
	telling  sync.WaitGroup

	mu     sync.Mutex
	all    int
	ofUser map[uint32]int
}

// bounded bounds a listener. refusal is what who is refused is answered, as HTTP has it.
func bounded(listener net.Listener, refusal []byte) *connections {
	return &connections{Listener: listener, refusal: refusal, refusals: make(chan struct{}, maxRefusals), ofUser: map[uint32]int{}}
}

// Accept returns the next connection that is not one too many.
func (c *connections) Accept() (net.Conn, error) {
	for {
		accepted, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		user := userOf(accepted)
		if c.take(user) {
			return &counted{Conn: accepted, give: sync.OnceFunc(func() { c.give(user) })}, nil
		}
		c.refuse(accepted)
	}
}

func (c *connections) take(user uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxConnections || c.ofUser[user] >= maxConnectionsOfUser {
		return false
	}
	c.all++
	c.ofUser[user]++
	return true
}

func (c *connections) give(user uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.ofUser[user]--; c.ofUser[user] == 0 {
		delete(c.ofUser, user)
	}
}

// refuse tells a client that it is one too many once it has asked for something, and closes its connection.
func (c *connections) refuse(refused net.Conn) {
	select {
	case c.refusals <- struct{}{}:
	default:
		refused.Close()
		return
	}
	c.telling.Go(func() {
		defer func() { <-c.refusals }()
		defer refused.Close()
		_ = refused.SetDeadline(time.Now().Add(refusalTimeout))
		if _, err := refused.Read(make([]byte, refusedRequest)); err == nil {
			_, _ = refused.Write(c.refusal)
		}
	})
}

// Close ends listening, and waits for those that are being told.
func (c *connections) Close() error {
	err := c.Listener.Close()
	c.telling.Wait()
	return err
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	give func()
}

func (c *counted) Close() error {
	defer c.give()
	return c.Conn.Close()
}

// CloseWrite is for who answers before it has read all: the client still gets the answer.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// tooMany is the answer to who is one too many.
func tooMany() []byte {
	p := newProblem(http.StatusServiceUnavailable, api.CodeNotReady, "too many connections to the server").hint("end what follows sessions, or ask again later")
	content, err := p.MarshalJSON()
	if err != nil {
		panic(err) // strings and numbers
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		p.Status, p.Title, api.MediaProblem, len(content), content)
}

// userOf is who is at the other end of a connection to the socket, as the kernel knows it; else unknownUser.
func userOf(connection net.Conn) uint32 {
	if c, is := connection.(*counted); is {
		connection = c.Conn
	}
	socket, ok := connection.(*net.UnixConn)
	if !ok {
		return unknownUser
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return unknownUser
	}
	var credentials *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil || err != nil {
		return unknownUser
	}
	return credentials.Uid
}
