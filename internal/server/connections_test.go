package server

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/client"
)

// dialed is a connection to a socket, which lasts until the test ends.
func dialed(t *testing.T, path string) net.Conn {
	t.Helper()
	connection, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return connection
}

// One user has so many connections and no more. Who is one too many is told; when one ends there is room for another.
func TestConnectionsOfAUserAreBounded(t *testing.T) {
	path := filepath.Join(socketFolder(t), "s")
	listener, err := net.Listen("unix", path)
	must(t, err)
	c := bounded(listener, tooMany())
	defer c.Close()
	accepted := make([]net.Conn, maxConnectionsOfUser)
	for i := range accepted {
		dialed(t, path)
		accepted[i], err = c.Accept()
		must(t, err)
	}
	next := make(chan net.Conn, 1)
	go func() {
		connection, _ := c.Accept()
		next <- connection
	}()
	refused := dialed(t, path)
	_, err = refused.Write([]byte("GET /v1/status HTTP/1.1\r\n\r\n"))
	must(t, err)
	answer, err := io.ReadAll(refused)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "too many connections") {
		t.Errorf("%s, %v", answer, err)
	}
	for range 2 { // it counts once
		accepted[7].Close()
	}
	dialed(t, path)
	if connection := <-next; connection == nil {
		t.Error("there is no room although one has ended")
	}
	if c.all != maxConnectionsOfUser || len(c.ofUser) != 1 {
		t.Errorf("%d in all, of users %v", c.all, c.ofUser)
	}
	for _, connection := range accepted {
		connection.Close()
	}
	if c.all != 1 {
		t.Errorf("%d are left", c.all)
	}
}

// The connections of all users together are bounded too, and more refusals than a few are not told.
func TestConnectionsAreBounded(t *testing.T) {
	c := bounded(nil, nil)
	for user := range uint32(maxConnections) {
		if !c.take(user) {
			t.Fatalf("user %d is refused", user)
		}
	}
	if c.take(maxConnections) {
		t.Error("one more than there may be")
	}
	c.give(3)
	if !c.take(maxConnections) {
		t.Error("there is no room although one has ended")
	}
	for range maxRefusals {
		c.refusals <- struct{}{}
	}
	here, there := net.Pipe()
	defer here.Close()
	c.refuse(there)
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("not closed: %v", err)
	}
}

// A client says what is the matter.
func TestClientIsOneTooMany(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(socketFolder(t), "s")
	f.served(t, path)
	for range maxConnectionsOfUser {
		dialed(t, path)
	}
	var refusal *client.Error
	if _, err := client.New(path).Status(t.Context(), 20); !errors.As(err, &refusal) || refusal.Detail != "too many connections to the server" {
		t.Errorf("%v", err)
	}
}
