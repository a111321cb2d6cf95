package demo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// dumped is one backup that was written, and what restoring it must give.
type dumped struct {
	machine machine
	day     int
	// archiveSize in bytes of the archive's file.
	archiveSize int64
	// files that a restore must write, by their paths below the folder restored to.
	files []expectation
}

// expectation is a file that a restore must write.
type expectation struct {
	path   string
	size   int64
	sha256 string
	// content makes the file's bytes again.
	content func() []byte
}

func expect(path string, content []byte, again func() []byte) expectation {
	sum := sha256.Sum256(content)
	return expectation{path: path, size: int64(len(content)), sha256: hex.EncodeToString(sum[:]), content: again}
}

func expectText(path, text string) expectation {
	return expect(path, []byte(text), func() []byte { return []byte(text) })
}

// dump writes a machine's backup of a day into a folder: archive, notes and log, with the times they would have.
func dump(ctx context.Context, folder string, m machine, day int) (dumped, error) {
	archive, images := m.archive(day)
	path := filepath.Join(folder, m.archiveName(day))
	size, err := writeCompressed(ctx, path, m.extension, archive)
	if err != nil {
		return dumped{}, err
	}
	d := dumped{machine: m, day: day, archiveSize: size}
	for i, disk := range m.disks {
		d.files = append(d.files, expect(disk.device()+".raw", images[i], func() []byte { return disk.image(day) }))
	}
	d.files = append(d.files, expectText(filepath.Join("config", configName), m.config()))
	for _, beside := range []struct{ name, text string }{
		{m.archiveName(day) + ".notes", m.notes(day)}, {m.base(day) + ".log", m.log(day, size)},
	} {
		if err := os.WriteFile(filepath.Join(folder, beside.name), []byte(beside.text), 0o600); err != nil {
			return dumped{}, err
		}
		d.files = append(d.files, expectText(filepath.Join("config", beside.name), beside.text))
	}
	for _, name := range []string{m.archiveName(day), m.archiveName(day) + ".notes", m.base(day) + ".log"} {
		if err := os.Chtimes(filepath.Join(folder, name), m.finished(day), m.finished(day)); err != nil {
			return dumped{}, err
		}
	}
	return d, nil
}

// writeCompressed writes content through the compression that an extension stands for, and returns the file's size.
func writeCompressed(ctx context.Context, path, extension string, content io.WriterTo) (int64, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var compressor io.WriteCloser
	switch extension {
	case ".zst":
		compressor, err = zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	case ".gz":
		compressor, err = gzip.NewWriterLevel(file, gzip.BestSpeed)
	default:
		err = fmt.Errorf("no compression is written with the extension %q", extension)
	}
	if err != nil {
		return 0, err
	}
	buffered := bufio.NewWriterSize(interruptible{ctx, compressor}, mebibyte)
	_, err = content.WriteTo(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if closeErr := compressor.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), file.Close()
}

// interruptible is a writer that ends when the context does.
type interruptible struct {
	ctx context.Context
	out io.Writer
}

func (w interruptible) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.out.Write(p)
}

// sums writes what restoring a backup must give as a list that sha256sum can check.
func (d dumped) sums(path string) error {
	var text []byte
	for _, f := range d.files {
		text = fmt.Appendf(text, "%s  %s\n", f.sha256, filepath.ToSlash(f.path))
	}
	return os.WriteFile(path, text, 0o600)
}
