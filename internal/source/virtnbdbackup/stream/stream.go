// Package stream decodes virtnbdbackup's stream files: one disk, or what changed of it, as a sequence of frames.
//
//	meta 0 <length> CRLF <JSON, length bytes> CRLF
//	data <offset> <length> CRLF <payload> CRLF
//	zero <offset> <length> CRLF
//	stop 0 0 CRLF
//	<JSON list> CRLF comp 0 <length of the list> CRLF      (compressed files only)
//
// A frame's header has exactly 40 bytes: four letters, a space, 16 hex digits, a space, 16 hex digits, CRLF. In
// compressed files the length of a data frame is that of its content; the payload is one lz4 frame, or several for
// extents of 32 MiB and more, and the list at the end of the file gives their stored sizes.
//
// [ReadMeta] reads the first frame, [BuildIndex] walks over all headers without reading payloads, and [Cache] gives
// random access to lz4 payloads. The files are hostile input: nothing is allocated because a file says so, every
// structure must add up to the file's size, and errors wrap the conditions of package backup with the offset in the
// file at which it stopped making sense. The facts come from files written by virtnbdbackup 1.9.15.
package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/internal/backup"
)

const (
	// HeaderSize is the size of a frame's header in bytes.
	HeaderSize = 40
	// HeadSize is how many bytes from a file's start ReadMeta looks at first; nearly every meta frame fits.
	HeadSize = 4 << 10
	// metaLimit bounds the JSON of the meta frame; real ones have 350 bytes.
	metaLimit = 64 << 10
	// sizeLimit bounds all offsets and sizes, so that sums of a few of them cannot overflow.
	sizeLimit = int64(1) << 60
)

// lineEnd ends headers, payloads and JSON.
const lineEnd = "\r\n"

// magic is how every stream file begins, up to the length of its meta frame.
const magic = "meta 0000000000000000 "

// Meta is what a stream file says of itself.
type Meta struct {
	// VirtualSize is the size of the disk in bytes; DataSize the sum of the lengths of all data frames.
	VirtualSize, DataSize int64
	// Date is local time without a zone, as ISO 8601.
	Date string
	// DiskName is the disk's target device, such as "vda".
	DiskName string
	// Checkpoint is the checkpoint made with this file; of a differential backup it never comes to exist.
	Checkpoint string
	// Parent is the checkpoint that an incremental file holds the changes since; empty otherwise.
	Parent string
	// Incremental is true for increments and differential backups: what they do not mention is as in the parent.
	Incremental bool
	// Compressed is true if the data frames hold lz4.
	Compressed bool
	// Version of the stream: 1 or 2.
	Version int
	// First is the offset in the file of the frame behind the meta frame.
	First int64
}

// IsStream is true if head, the first bytes of a file, begin a stream file.
func IsStream(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// broken makes an error wrapping backup.ErrBroken for the place in the file.
func broken(offset int64, format string, args ...any) error {
	return &backup.Error{Offset: offset, Err: fmt.Errorf("%w: %s", backup.ErrBroken, fmt.Sprintf(format, args...))}
}

// ReadMeta reads the meta frame of a file with size bytes, whose first bytes are in head. It reads more of the file
// only if the frame is longer than head. The errors wrap backup.ErrBroken or backup.ErrUnsupported.
func ReadMeta(r io.ReaderAt, size int64, head []byte) (Meta, error) {
	if len(head) < HeaderSize {
		return Meta{}, broken(0, "%d bytes are too short for a backup stream", size)
	}
	h, ok := parseHeader(head[:HeaderSize])
	if !ok || h.kind != kindMeta || h.start != 0 {
		return Meta{}, broken(0, "does not begin with a meta frame")
	}
	first := HeaderSize + h.length + int64(len(lineEnd))
	if h.length > metaLimit || first > size {
		return Meta{}, broken(0, "a meta frame of %d bytes cannot be", h.length)
	}
	if first > int64(len(head)) {
		head = make([]byte, first)
		if n, err := r.ReadAt(head, 0); n < len(head) {
			return Meta{}, shortRead(0, err)
		}
	}
	if string(head[first-2:first]) != lineEnd {
		return Meta{}, broken(first-2, "the meta frame does not end where it says")
	}
	meta, err := parseMeta(head[HeaderSize : first-2])
	meta.First = first
	return meta, err
}

func parseMeta(text []byte) (Meta, error) {
	var fields struct {
		VirtualSize      int64           `json:"virtualSize"`
		DataSize         int64           `json:"dataSize"`
		Date             string          `json:"date"`
		DiskName         string          `json:"diskName"`
		CheckpointName   string          `json:"checkpointName"`
		Compressed       json.RawMessage `json:"compressed"`
		CompressionName  string          `json:"compressionMethod"`
		ParentCheckpoint string          `json:"parentCheckpoint"`
		Incremental      bool            `json:"incremental"`
		Version2         int             `json:"streamVersion"`
		Version1         int             `json:"stream-version"`
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return Meta{}, broken(HeaderSize, "its description is not the JSON it should be: %v", err)
	}
	meta := Meta{
		VirtualSize: fields.VirtualSize, DataSize: fields.DataSize, Date: fields.Date, DiskName: fields.DiskName,
		Checkpoint: fields.CheckpointName, Parent: fields.ParentCheckpoint, Incremental: fields.Incremental,
		Version: max(fields.Version1, fields.Version2),
	}
	if meta.Version != 1 && meta.Version != 2 {
		return meta, &backup.Error{Offset: HeaderSize, Err: fmt.Errorf("%w: version %d of the stream format", backup.ErrUnsupported, meta.Version)}
	}
	if meta.VirtualSize <= 0 || meta.VirtualSize > sizeLimit || meta.DataSize < 0 || meta.DataSize > meta.VirtualSize {
		return meta, broken(HeaderSize, "a disk of %d bytes with %d bytes of data cannot be", meta.VirtualSize, meta.DataSize)
	}
	// The level counts, not whether it is above zero: lz4 has a level 0.
	compressed := strings.TrimSpace(string(fields.Compressed))
	meta.Compressed = compressed != "" && compressed != "false" && compressed != "null"
	if meta.Compressed && fields.CompressionName != "" && fields.CompressionName != "lz4" {
		return meta, &backup.Error{Offset: HeaderSize, Err: fmt.Errorf("%w: compression %q", backup.ErrUnsupported, fields.CompressionName)}
	}
	return meta, nil
}

type kind uint8

const (
	kindMeta kind = iota + 1
	kindData
	kindZero
	kindStop
	kindComp
)

var kinds = map[string]kind{"meta": kindMeta, "data": kindData, "zero": kindZero, "stop": kindStop, "comp": kindComp}

// header is a frame's header: start is an offset on the disk, length in bytes.
type header struct {
	kind          kind
	start, length int64
}

// parseHeader reads exactly HeaderSize bytes. Numbers beyond sizeLimit are refused like any other nonsense.
func parseHeader(b []byte) (header, bool) {
	h := header{kind: kinds[string(b[:4])]}
	if h.kind == 0 || b[4] != ' ' || b[21] != ' ' || string(b[38:40]) != lineEnd {
		return header{}, false
	}
	var ok1, ok2 bool
	h.start, ok1 = parseHex(b[5:21])
	h.length, ok2 = parseHex(b[22:38])
	return h, ok1 && ok2
}

func parseHex(digits []byte) (int64, bool) {
	var value uint64
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		value = value<<4 | uint64(c)
	}
	return int64(value), value <= uint64(sizeLimit)
}

// shortRead turns the error of a read that gave too little into one that says what it means.
func shortRead(offset int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return broken(offset, "the file ends inside a frame")
	}
	return &backup.Error{Offset: offset, Err: err}
}
