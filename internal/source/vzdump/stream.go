package vzdump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

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

var errNotTar = fmt.Errorf("%w: it does not begin with a tar header", backup.ErrBroken)

// streamTar hands the archive over as it is, and follows its headers to the blocks of zeros that GNU tar ends with.
func streamTar(ahead *readAhead, name string, sink source.Sink) error {
	var walk tarWalk
	broken := func(err error) error { return &backup.Error{Object: name, Offset: walk.offset, Err: err} }
	for {
		data, err := ahead.chunk()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err)
		}
		offset := walk.offset
		if err := walk.write(data); err != nil {
			return broken(err)
		}
		if err := sink.Data(0, offset, data); err != nil {
			return err
		}
	}
	if err := walk.finish(); err != nil {
		return broken(err)
	}
	return sink.End(0, walk.offset)
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
