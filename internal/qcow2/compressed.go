package qcow2

import (
	"bytes"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory that a zstd frame may ask for. QEMU's frames ask for at most 2 MiB; 8 MiB is what the
// format's specification wants every decoder to support.
const zstdWindow = 8 << 20

// decoder unpacks one cluster at a time. It keeps its memory between uses.
type decoder struct {
	packed []byte
	source bytes.Reader
	// Exactly one of the two is used, by the image's compression.
	deflate io.ReadCloser
	zstd    *zstd.Decoder
}

// decoders holds idle decoders of all images, by compression.
var decoders [2]sync.Pool

// readCompressed fills p with the part of a compressed cluster that begins at offset on the disk.
func (f *file) readCompressed(p []byte, offset int64, m mapping) error {
	start := offset &^ (f.header.ClusterSize - 1)
	if offset == start && int64(len(p)) == f.header.ClusterSize {
		return f.unpack(p, start, m)
	}
	// The same packed bytes give the same cluster, wherever on the disk they are used.
	key := m.descriptor
	block := f.clusters.get(key)
	if block == nil {
		block = f.clusters.blank(key)
		if err := f.unpack(block.data, start, m); err != nil {
			f.clusters.release(block)
			return err
		}
		f.clusters.put(block)
	}
	copy(p, block.data[offset-start:])
	f.clusters.release(block)
	return nil
}

// unpack fills cluster, which has one cluster's length, from the packed bytes in the file. Neither the file nor what
// comes out of the decoder can make it take more.
func (f *file) unpack(cluster []byte, guest int64, m mapping) error {
	if m.host >= f.size {
		return brokenAt(guest, "compressed data at %d lies beyond the file's %d bytes", m.host, f.size)
	}
	pool := &decoders[f.header.Compression]
	d, _ := pool.Get().(*decoder)
	if d == nil {
		d = &decoder{}
	}
	defer pool.Put(d)
	// The last sector is counted whole, but the file may end inside it.
	length := int(min(m.packed, f.size-m.host))
	if cap(d.packed) < length {
		d.packed = make([]byte, length)
	}
	packed := d.packed[:length]
	if err := f.readFull(packed, m.host); err != nil {
		return err
	}
	d.source.Reset(packed)
	stream, err := d.open(f.header.Compression)
	if err == nil {
		_, err = io.ReadFull(stream, cluster)
	}
	if err != nil {
		return brokenAt(guest, "compressed data at %d: %v", m.host, err)
	}
	return nil
}

// open starts decoding d.source. Decoding stops when a cluster is full; what follows in the last sector is ignored.
func (d *decoder) open(compression Compression) (io.Reader, error) {
	if compression == CompressionZlib {
		if d.deflate == nil {
			d.deflate = flate.NewReader(&d.source)
			return d.deflate, nil
		}
		return d.deflate, d.deflate.(flate.Resetter).Reset(&d.source, nil)
	}
	if d.zstd == nil {
		made, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdWindow*2))
		if err != nil {
			return nil, err
		}
		d.zstd = made
	}
	return d.zstd, d.zstd.Reset(&d.source)
}
