package vzdump

import "io"

const (
	aheadBuffers    = 8
	aheadBufferSize = 256 << 10
)

// readAhead reads in a goroutine of its own, so that decompression and what is done with the result overlap.
// Read and chunk are used by one goroutine; it must call stop, which waits for the other one.
type readAhead struct {
	full    chan piece
	free    chan []byte
	stopped chan struct{}
	current piece
	rest    []byte
}

// piece is a filled buffer and the error that came behind it.
type piece struct {
	data []byte
	err  error
}

func startReadAhead(in io.Reader) *readAhead {
	a := &readAhead{full: make(chan piece, aheadBuffers), free: make(chan []byte, aheadBuffers), stopped: make(chan struct{})}
	for range aheadBuffers {
		a.free <- make([]byte, aheadBufferSize)
	}
	go func() {
		defer close(a.full)
		for {
			var buffer []byte
			select {
			case <-a.stopped:
				return
			case buffer = <-a.free:
			}
			n, err := io.ReadFull(in, buffer)
			if err == io.ErrUnexpectedEOF {
				// ReadFull's own word for "the last buffer"; the stream below has turned its own into conditions.
				err = io.EOF
			}
			// There is room: never more than aheadBuffers pieces exist.
			a.full <- piece{buffer[:n], err}
			if err != nil {
				return
			}
		}
	}()
	return a
}

// stop ends the goroutine and waits for it. A read of the file in flight is waited for.
func (a *readAhead) stop() {
	close(a.stopped)
	for range a.full {
	}
}

// chunk hands out a buffer's worth of data, valid until the next call.
func (a *readAhead) chunk() ([]byte, error) {
	for len(a.rest) == 0 {
		if a.current.err != nil {
			return nil, a.current.err
		}
		if a.current.data != nil {
			a.free <- a.current.data[:cap(a.current.data)]
		}
		a.current = <-a.full
		a.rest = a.current.data
	}
	data := a.rest
	a.rest = nil
	return data, nil
}

// Read as io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	data, err := a.chunk()
	n := copy(p, data)
	a.rest = data[n:]
	return n, err
}
