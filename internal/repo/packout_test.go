package repo

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// slowWriter takes a write only when it is let.
type slowWriter struct {
	let              chan error
	content          bytes.Buffer
	committed, ended bool
}

func (s *slowWriter) Write(p []byte) (int, error) {
	if err := <-s.let; err != nil {
		return 0, err
	}
	return s.content.Write(p)
}

func (s *slowWriter) Commit(context.Context) error { s.committed = true; return nil }
func (s *slowWriter) Abort()                       { s.ended = true }

func TestPackOutWritesBehindInOrder(t *testing.T) {
	slow := &slowWriter{let: make(chan error)}
	out := newPackOut(slow, func() {})
	want := bytes.Repeat([]byte("a pack's bytes, of which no chunk begins like another. "), 3*chunkSize/50)
	for rest := want; len(rest) > 0; { // nothing is let through yet: all of it waits
		n := min(len(rest), 99_991)
		if _, err := out.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	close(slow.let)
	if err := out.Commit(t.Context()); err != nil || !slow.committed {
		t.Fatalf("committed %v, %v", slow.committed, err)
	}
	if !bytes.Equal(slow.content.Bytes(), want) {
		t.Errorf("%d bytes written, not the %d given", slow.content.Len(), len(want))
	}
}

func TestPackOutSaysWhenItIsBehind(t *testing.T) {
	slow := &slowWriter{let: make(chan error)}
	out := newPackOut(slow, func() {})
	chunk := make([]byte, chunkSize)
	if out.behind() {
		t.Error("behind before anything was written")
	}
	for range chunksBehind {
		_, _ = out.Write(chunk)
	}
	_, _ = out.Write(chunk) // one is with the storage now, the rest waits
	if !out.behind() {
		t.Error("not behind with all chunks waiting")
	}
	close(slow.let)
	out.Abort()
	if !slow.ended || slow.committed {
		t.Error("an aborted pack was not dropped")
	}
}

func TestPackOutGivesTheErrorOfAnEarlierWrite(t *testing.T) {
	failed := errors.New("disk failed")
	slow := &slowWriter{let: make(chan error, 1)}
	slow.let <- failed
	out := newPackOut(slow, func() {})
	_, _ = out.Write(make([]byte, 3*chunkSize))
	if err := out.Commit(t.Context()); !errors.Is(err, failed) || slow.committed {
		t.Errorf("committed %v, %v; want the error of the write", slow.committed, err)
	}
	if _, err := out.Write([]byte("x")); !errors.Is(err, failed) {
		t.Errorf("writing on: %v", err)
	}
}
