package vzdump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/vma"
)

// Stream reads the archive to its end. That every cluster came, that the tar archive was closed, and the
// compression's checksums are known to be good when it returns nil.
func (c *content) Stream(ctx context.Context, sink source.Sink) error {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed || c.used {
		return errors.New("vzdump: an archive is read once after it was opened")
	}
	c.used = true
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	c.in.ctx = ctx

	ahead := startReadAhead(io.MultiReader(bytes.NewReader(c.tarStart), c.stream))
	var err error
	if c.archive != nil {
		c.below.Reader = ahead
		err = streamVMA(c.archive, sink)
	} else {
		err = streamTar(ahead, c.name, sink)
	}
	// The reader at work may have an error of the sink to tell about; without one it is at its end.
	cancel()
	ahead.stop()
	c.state.Lock()
	c.verify = c.stream.checked()
	c.state.Unlock()
	return c.fault(err)
}

// streamVMA hands the clusters over as they come. Object i is device i.
func streamVMA(archive *vma.Reader, sink source.Sink) error {
	zeros := zeroRun{sink: sink}
	for {
		cluster, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if cluster.Data == nil {
			err = zeros.add(cluster)
		} else {
			err = sink.Data(cluster.Device, cluster.Offset, cluster.Data)
		}
		if err != nil {
			return err
		}
	}
	if err := zeros.flush(); err != nil {
		return err
	}
	for i := range archive.Header().Devices {
		if err := sink.End(i, archive.Size(i)); err != nil {
			return err
		}
	}
	return nil
}

// zeroRun joins neighbouring clusters of zeros: an empty disk is one call, not a million.
type zeroRun struct {
	sink           source.Sink
	device         int
	offset, length int64
}

func (z *zeroRun) add(cluster vma.Cluster) error {
	if z.length > 0 && z.device == cluster.Device && z.offset+z.length == cluster.Offset {
		z.length += cluster.Length
		return nil
	}
	if err := z.flush(); err != nil {
		return err
	}
	z.device, z.offset, z.length = cluster.Device, cluster.Offset, cluster.Length
	return nil
}

func (z *zeroRun) flush() error {
	if z.length == 0 {
		return nil
	}
	length := z.length
	z.length = 0
	return z.sink.Zero(z.device, z.offset, length)
}

const (
	tarBlock    = 512
	tarChecksum = 148 // offset of the checksum in a header, 8 bytes
	// tarEnd in bytes of zeros closes an archive.
	tarEnd = 2 * tarBlock
)

var errNotTar = fmt.Errorf("%w: it does not begin with a tar header", backup.ErrBroken)

// streamTar hands the archive over as it is. Of its structure only the ends are checked: its first header, at opening,
// and here the blocks of zeros that GNU tar always ends with, so that a file cut off is found without compression too.
func streamTar(ahead *readAhead, name string, sink source.Sink) error {
	var offset, zeros int64
	broken := func(err error) error { return &backup.Error{Object: name, Offset: offset, Err: err} }
	for {
		data, err := ahead.chunk()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err)
		}
		if err := sink.Data(0, offset, data); err != nil {
			return err
		}
		offset += int64(len(data))
		if tail := int64(len(data) - len(bytes.TrimRight(data, "\x00"))); tail == int64(len(data)) {
			zeros += tail
		} else {
			zeros = tail
		}
	}
	if offset%tarBlock != 0 || zeros < tarEnd {
		return broken(fmt.Errorf("%w: the tar archive is cut off: it lacks the blocks of zeros at its end", backup.ErrBroken))
	}
	return sink.End(0, offset)
}

// readTarStart reads and checks the first header.
func readTarStart(in io.Reader) ([]byte, error) {
	start := make([]byte, tarBlock)
	if _, err := io.ReadFull(in, start); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the archive ends inside its first header", backup.ErrBroken)
		}
		return nil, err
	}
	if !isTarHeader(start) {
		return nil, errNotTar
	}
	return start, nil
}

// isTarHeader checks the sum that every tar header has: over its bytes, with the sum itself taken as spaces.
func isTarHeader(header []byte) bool {
	stored := bytes.Trim(header[tarChecksum:tarChecksum+8], " \x00")
	want, err := strconv.ParseInt(string(stored), 8, 32)
	if err != nil {
		return false
	}
	sum := int64(0)
	for i, b := range header[:tarBlock] {
		if i >= tarChecksum && i < tarChecksum+8 {
			b = ' '
		}
		sum += int64(b)
	}
	return sum == want
}
