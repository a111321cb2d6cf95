package stream_test

import (
	"context"
	"errors"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source/virtnbdbackup/stream"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// endless is a file of many zero frames with gaps between them, made up while it is read.
type endless struct{ frames int64 }

func (e endless) size() int64 { return (e.frames + 1) * stream.HeaderSize }

func (e endless) ReadAt(p []byte, offset int64) (int, error) {
	for n := 0; n < len(p); {
		at := offset + int64(n)
		i := at / stream.HeaderSize
		frame := streamtest.Header("zero", 2*i, 1)
		if i == e.frames {
			frame = streamtest.Header("stop", 0, 0)
		}
		n += copy(p[n:], frame[at%stream.HeaderSize:])
	}
	return len(p), nil
}

// TestTooManyExtents: an index has a limit, whatever the size of the file.
func TestTooManyExtents(t *testing.T) {
	if testing.Short() {
		t.Skip("needs 200 MiB of memory")
	}
	file := endless{stream.ExtentLimit + 1}
	meta := stream.Meta{VirtualSize: 1 << 40, Version: 2}
	if _, err := stream.BuildIndex(context.Background(), file, file.size(), meta); !errors.Is(err, backup.ErrUnsupported) {
		t.Error(err)
	}
	file.frames = 1000
	if index, err := stream.BuildIndex(context.Background(), file, file.size(), meta); err != nil || index.Len() != 1000 {
		t.Errorf("%d extents, %v", index.Len(), err)
	}
}
