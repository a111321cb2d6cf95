// Command chain makes a virtnbdbackup folder of a raw image for benchmarks: the full backup, and with -next an increment that
// holds the clusters of 64 KiB in which another image differs. It prints how many bytes the last one's data has.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ferry/internal/source/virtnbdbackup/streamtest"
)

const (
	cluster = 64 << 10
	// longestFrame is as large as one request of the network block device.
	longestFrame = 32 << 20
	created      = 1795322413
	disk         = "vda"
	uuid         = "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f"
)

func main() {
	out := flag.String("out", "", "the folder to make, or with -next the one to add the increment to")
	base := flag.String("base", "", "the image that the full backup is of")
	next := flag.String("next", "", "the later image that the increment is of")
	flag.Parse()
	if *out == "" || *base == "" {
		flag.Usage()
		os.Exit(2)
	}
	data, err := run(*out, *base, *next)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(data)
}

func run(out, basePath, nextPath string) (data int64, err error) {
	base, err := os.Open(basePath)
	if err != nil {
		return 0, err
	}
	defer base.Close()
	if nextPath == "" {
		ranges, err := allocated(base)
		if err != nil {
			return 0, err
		}
		return backup(out, 0, base, ranges)
	}
	next, err := os.Open(nextPath)
	if err != nil {
		return 0, err
	}
	defer next.Close()
	ranges, err := differences(base, next)
	if err != nil {
		return 0, err
	}
	return backup(out, 1, next, ranges)
}

// span is a range of an image, in bytes.
type span struct{ offset, length int64 }

// add appends a range, as part of the one before it where it follows that and the frame is not too long.
func add(spans []span, s span) []span {
	for s.length > 0 {
		n := min(s.length, longestFrame)
		if last := len(spans) - 1; last >= 0 && spans[last].offset+spans[last].length == s.offset && spans[last].length+n <= longestFrame {
			spans[last].length += n
		} else {
			spans = append(spans, span{s.offset, n})
		}
		s.offset, s.length = s.offset+n, s.length-n
	}
	return spans
}

// allocated lists the clusters that a sparse image has data in.
func allocated(image *os.File) (spans []span, err error) {
	info, err := image.Stat()
	if err != nil {
		return nil, err
	}
	reached := int64(0)
	for {
		start, err := image.Seek(reached, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return spans, nil
		}
		if err != nil {
			return nil, err
		}
		end, err := image.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		start = max(start/cluster*cluster, reached)
		reached = min((end+cluster-1)/cluster*cluster, info.Size())
		spans = add(spans, span{start, reached - start})
	}
}

// differences lists the clusters in which two images of one size differ.
func differences(base, next *os.File) (spans []span, err error) {
	old, now := bufio.NewReaderSize(base, 1<<20), bufio.NewReaderSize(next, 1<<20)
	a, b := make([]byte, cluster), make([]byte, cluster)
	for offset := int64(0); ; offset += cluster {
		n, err := io.ReadFull(now, b)
		if err == io.EOF {
			return spans, nil
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return nil, err
		}
		if _, err := io.ReadFull(old, a[:n]); err != nil {
			return nil, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			spans = add(spans, span{offset, int64(n)})
		}
	}
}

// backup writes the files of backup number n of the chain, as virtnbdbackup 2 does without compression.
func backup(out string, n int, image *os.File, spans []span) (data int64, err error) {
	if err := os.MkdirAll(filepath.Join(out, "checkpoints"), 0o755); err != nil {
		return 0, err
	}
	info, err := image.Stat()
	if err != nil {
		return 0, err
	}
	for _, s := range spans {
		data += s.length
	}
	ident := fmt.Sprintf("virtnbdbackup.%d", n)
	described := streamtest.File{
		Disk: disk, Checkpoint: ident, Date: fmt.Sprintf("2026-11-22T0%d:00:13.000001", 5+n), VirtualSize: info.Size(), DataSize: data,
	}
	name, list := disk+".full.data", `["virtnbdbackup.0"]`
	if n > 0 {
		described.Incremental, described.Parent = true, fmt.Sprintf("virtnbdbackup.%d", n-1)
		name, list = disk+".inc."+ident+".data", `["virtnbdbackup.0", "virtnbdbackup.1"]`
	}
	if err := writeStream(filepath.Join(out, name), described, image, spans); err != nil {
		return 0, err
	}
	for name, content := range map[string]string{
		"checkpoints/" + ident + ".xml":   streamtest.Checkpoint(ident, created+int64(n)*3600, []string{disk}, []string{"hdc"}),
		"bench.cpt":                       list,
		disk + "." + ident + ".qcow.json": fmt.Sprintf(`{"virtual-size": %d}`, info.Size()),
		"vmconfig." + ident + ".xml":      streamtest.Domain("bench", uuid, disk),
	} {
		if err := os.WriteFile(filepath.Join(out, name), []byte(content), 0o644); err != nil {
			return 0, err
		}
	}
	return data, nil
}

func writeStream(path string, described streamtest.File, image *os.File, spans []span) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := bufio.NewWriterSize(file, 1<<20)
	meta := described.Meta()
	fmt.Fprintf(out, "%s%s\r\n", streamtest.Header("meta", 0, int64(len(meta))), meta)
	reached := int64(0)
	for _, s := range spans {
		if hole := s.offset - reached; hole > 0 && !described.Incremental {
			fmt.Fprintf(out, "%s", streamtest.Header("zero", reached, hole))
		}
		fmt.Fprintf(out, "%s", streamtest.Header("data", s.offset, s.length))
		if _, err := io.Copy(out, io.NewSectionReader(image, s.offset, s.length)); err != nil {
			return err
		}
		fmt.Fprint(out, "\r\n")
		reached = s.offset + s.length
	}
	fmt.Fprintf(out, "%s", streamtest.Header("stop", 0, 0))
	return out.Flush()
}
