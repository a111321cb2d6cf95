package vzdump

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ferry/internal/backup"
	"ferry/internal/lzop"
	"ferry/internal/source"
)

// maxWindow in bytes that a zstd stream may ask a reader to keep: what zstd --long, without a number, uses. Ordinary
// backups have 2 to 8 MiB.
const maxWindow = 128 << 20

// usualWindow in bytes is what any number of copies at once may ask for each.
const usualWindow = 8 << 20

// large has a place for one archive, which takes it while it keeps more than usual: a window, lzop blocks, or which clusters came of
// those in wild order. Others that want to wait for it, so that memory does not grow by as much for each machine that is copied at
// once.
var large = make(chan struct{}, 1)

// readSize in bytes is how much decoders that read little are given at a time.
const readSize = 128 << 10

// input is the compressed file. It counts, and remembers the file's own errors apart from those of its content.
type input struct {
	ctx  context.Context
	file *source.File
	// limit is how many bytes may still be read; negative for all.
	limit    int64
	position int64
	failed   error

	admitting sync.Mutex // guards large: who decompresses and who reads clusters may both ask
	// large is true while the archive has the place of who takes much memory.
	large bool
}

// admit waits for the place of who takes much memory. Who reads the head of a file alone, within a limit, needs none: a window takes
// memory as it is filled.
func (in *input) admit() error {
	in.admitting.Lock()
	defer in.admitting.Unlock()
	if in.limit >= 0 || in.large {
		return nil
	}
	select {
	case large <- struct{}{}:
		in.large = true
		return nil
	case <-in.ctx.Done():
		return in.ctx.Err()
	}
}

// admitDecoder is admit for a decoder, whose own errors are told apart from this.
func (in *input) admitDecoder() error {
	err := in.admit()
	if err != nil {
		in.failed = err
	}
	return err
}

func (in *input) leave() {
	in.admitting.Lock()
	defer in.admitting.Unlock()
	if in.large {
		in.large = false
		<-large
	}
}

func (in *input) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		in.failed = err
		return 0, err
	}
	if in.limit == 0 {
		in.failed = fmt.Errorf("%w: no header within the first %d bytes", backup.ErrUnsupported, source.ScanLimit)
		return 0, in.failed
	}
	if in.limit > 0 && int64(len(p)) > in.limit {
		p = p[:in.limit]
	}
	n, err := in.file.Read(p)
	in.position += int64(n)
	if in.limit > 0 {
		in.limit -= int64(n)
	}
	if err != nil && err != io.EOF {
		in.failed = err
	}
	return n, err
}

// stream is the decompressed content of a file. Its errors wrap backup.ErrBroken if the content is at fault,
// backup.ErrUnsupported if it asks for too much; the file's own errors are passed on.
type stream struct {
	in          *input
	compression string
	out         io.Reader
	// checked says whether all that was read so far had checksums.
	checked func() bool
	close   func()
}

// decompress begins to read a file that its name says is compressed so. What has read-ahead of its own would need an
// owner for its goroutines; all decoders are used without.
func decompress(in *input, compression string) (*stream, error) {
	always, never := func() bool { return true }, func() bool { return false }
	s := &stream{in: in, compression: compression, checked: always, close: in.leave}
	var err error
	switch compression {
	case "":
		s.out, s.checked = in, never
	case "zst":
		frames := &zstdFrames{in: in, admit: in.admitDecoder}
		var decoder *zstd.Decoder
		decoder, err = zstd.NewReader(bufio.NewReaderSize(frames, readSize), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err == nil {
			s.out, s.checked = decoder, frames.checked
			s.close = func() {
				decoder.Close()
				in.leave()
			}
		}
	case "gz":
		s.out, err = gzip.NewReader(bufio.NewReaderSize(in, readSize))
	case "bz2":
		s.out = bzip2.NewReader(bufio.NewReaderSize(in, readSize))
	case "lzo":
		var decoder *lzop.Reader
		if decoder, err = lzop.NewReader(in); err == nil {
			decoder.Admit = in.admitDecoder
			s.out, s.checked = decoder, decoder.Checked
		}
	default:
		return nil, fmt.Errorf("%w: compression %s", backup.ErrUnsupported, compression)
	}
	if err != nil {
		in.leave()
		return nil, s.condition(err)
	}
	return s, nil
}

// Read decompresses.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if err != nil && err != io.EOF {
		err = s.condition(err)
	}
	return n, err
}

// condition finds out whose fault an error is.
func (s *stream) condition(err error) error {
	switch {
	case s.in.failed != nil:
		return s.in.failed
	case errors.Is(err, backup.ErrBroken) || errors.Is(err, backup.ErrUnsupported):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrUnknownDictionary):
		return fmt.Errorf("%w: %s, up to byte %d of the file: %w", backup.ErrUnsupported, s.compression, s.in.position, err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s: the file is cut off at byte %d", backup.ErrBroken, s.compression, s.in.position)
	}
	return fmt.Errorf("%w: %s, up to byte %d of the file: %w", backup.ErrBroken, s.compression, s.in.position, err)
}
