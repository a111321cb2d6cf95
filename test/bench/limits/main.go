// Command limits measures what this machine can do at best at the single things that a copy consists of, so that benchmarks can
// be read against it: memory, hash, cipher, codecs, disk. It prints a table in Markdown.
package main

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

const (
	block    = 128 << 10
	mebibyte = 1 << 20
)

func main() {
	image := flag.String("image", "", "an image; its data is what is hashed and compressed")
	dir := flag.String("dir", "", "a folder on the disk that is measured")
	size := flag.Int("mib", 1024, "how much of the image is used, and how much is written, in MiB")
	flag.Parse()
	if *image == "" || *dir == "" || *size <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*image, *dir, *size*mebibyte); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(image, dir string, size int) error {
	sample, err := data(image, size)
	if err != nil {
		return err
	}
	cores := runtime.GOMAXPROCS(0)
	fmt.Printf("| what this machine can do, in MB/s | one core | %d cores |\n|---|---|---|\n", cores)
	for _, probe := range probes() {
		one, err := rate(sample, 1, probe.begin)
		if err != nil {
			return err
		}
		all, err := rate(sample, cores, probe.begin)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.0f | %.0f |\n", probe.name, one, all)
	}
	reading, err := readCached(image, size)
	if err != nil {
		return err
	}
	fmt.Printf("| reading the image from the page cache | %.0f | |\n", reading)
	writing, err := writeSynced(filepath.Join(dir, "limits.probe"), sample)
	if err != nil {
		return err
	}
	fmt.Printf("| writing to the disk in sequence, then fsync | %.0f | |\n", writing)
	return nil
}

// data reads what an image holds from its first data on, holes left out, up to size bytes.
func data(image string, size int) ([]byte, error) {
	file, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var sample []byte
	for offset := int64(0); len(sample) < size; {
		start, err := file.Seek(offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		if offset, err = file.Seek(start, unix.SEEK_HOLE); err != nil {
			return nil, err
		}
		piece := make([]byte, min(offset-start, int64(size-len(sample))))
		if _, err := file.ReadAt(piece, start); err != nil && err != io.EOF {
			return nil, err
		}
		sample = append(sample, piece...)
	}
	if len(sample) < block {
		return nil, fmt.Errorf("%s holds only %d bytes of data", image, len(sample))
	}
	return sample[:len(sample)/block*block], nil
}

// probe is one thing to do to a block. begin makes what each core needs of its own.
type probe struct {
	name  string
	begin func() (func(plain []byte), error)
}

func probes() []probe {
	return []probe{
		{"copying memory (bytes copied)", func() (func([]byte), error) {
			out, at := make([]byte, 64*mebibyte), 0 // more than the caches hold
			return func(plain []byte) { at = (at + copy(out[at:], plain)) % len(out) }, nil
		}},
		{"BLAKE3, the library with eight lanes", func() (func([]byte), error) {
			hash, err := blake3.NewKeyed(make([]byte, 32))
			var sum [32]byte
			return func(plain []byte) {
				hash.Reset()
				_, _ = hash.Write(plain)
				hash.Sum(sum[:0])
			}, err
		}},
		{"AES-256-GCM", func() (func([]byte), error) {
			key, err := aes.NewCipher(make([]byte, 32))
			if err != nil {
				return nil, err
			}
			gcm, err := cipher.NewGCM(key)
			out, nonce := make([]byte, 0, block+16), make([]byte, 12)
			return func(plain []byte) { gcm.Seal(out, nonce, plain, nil) }, err
		}},
		{"S2", func() (func([]byte), error) {
			out := make([]byte, s2.MaxEncodedLen(block))
			return func(plain []byte) { s2.Encode(out, plain) }, nil
		}},
		{"Zstandard, fastest", func() (func([]byte), error) { return zstdAt(zstd.SpeedFastest) }},
		{"Zstandard, default", func() (func([]byte), error) { return zstdAt(zstd.SpeedDefault) }},
	}
}

func zstdAt(level zstd.EncoderLevel) (func([]byte), error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	out := make([]byte, 0, 2*block)
	return func(plain []byte) { encoder.EncodeAll(plain, out) }, err
}

// rate does a thing to all blocks of the sample on some cores at once, and returns megabytes a second: the best of three times.
func rate(sample []byte, cores int, begin func() (func([]byte), error)) (best float64, err error) {
	work := make([]func([]byte), cores)
	for i := range work {
		if work[i], err = begin(); err != nil {
			return 0, err
		}
	}
	for range 3 {
		started := time.Now()
		var running sync.WaitGroup
		share := len(sample) / block / cores * block
		for i := range cores {
			running.Go(func() {
				for part := sample[i*share:][:share]; len(part) > 0; part = part[block:] {
					work[i](part[:block])
				}
			})
		}
		running.Wait()
		best = max(best, float64(share*cores)/1e6/time.Since(started).Seconds())
	}
	return best, nil
}

func readCached(image string, size int) (best float64, err error) {
	file, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buffer := make([]byte, mebibyte)
	for range 2 { // the first time fills the cache
		started := time.Now()
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{io.NewSectionReader(file, 0, int64(size))}, buffer)
		if err != nil {
			return 0, err
		}
		best = max(best, float64(n)/1e6/time.Since(started).Seconds())
	}
	return best, nil
}

// onlyReader and onlyWriter hide the short cuts that io.Copy takes.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func writeSynced(path string, sample []byte) (float64, error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer file.Close()
	started := time.Now()
	for rest := sample; len(rest) > 0; {
		n := min(len(rest), mebibyte)
		if _, err := file.Write(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	return float64(len(sample)) / 1e6 / time.Since(started).Seconds(), nil
}
