// Package streamtest writes virtnbdbackup stream files and chain folders for tests: small, exact, and damaged on
// demand. Files by the real tool are in the sample data; these ones reach the cases that the samples do not have.
package streamtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pierrec/lz4/v4"
)

// Frame is a range of the disk: Data, or Zero bytes of zeros.
type Frame struct {
	Offset int64
	Data   []byte
	Zero   int64
}

// File describes a stream file.
type File struct {
	Disk, Checkpoint, Parent, Date string
	VirtualSize                    int64
	Incremental, Compressed        bool
	Frames                         []Frame
	// PartSize is how many bytes go into one lz4 frame; 0 means one lz4 frame for each data frame.
	PartSize int
	// Version is 2 unless it is set.
	Version int
	// NoPartSizes leaves the content's size out of lz4 descriptors.
	NoPartSizes bool
	// DataSize replaces the sum of the data frames if it is not 0; Trailer the list of compressed sizes if not empty.
	DataSize int64
	Trailer  string
}

// Header is a frame's header.
func Header(kind string, start, length int64) []byte {
	return fmt.Appendf(nil, "%s %016x %016x\r\n", kind, start, length)
}

// Meta is the JSON of the meta frame.
func (f File) Meta() []byte {
	size := f.DataSize
	for _, frame := range f.Frames {
		if f.DataSize == 0 {
			size += int64(len(frame.Data))
		}
	}
	fields := map[string]any{
		"virtualSize": f.VirtualSize, "dataSize": size, "date": f.Date, "diskName": f.Disk, "diskFormat": "qcow2",
		"checkpointName": f.Checkpoint, "compressed": false, "compressionMethod": "lz4", "parentCheckpoint": f.Parent,
		"incremental": f.Incremental,
	}
	if f.Compressed {
		fields["compressed"] = 2
	}
	if f.Version == 1 {
		fields["stream-version"] = 1
	} else {
		fields["streamVersion"] = max(f.Version, 2)
	}
	text, err := json.MarshalIndent(fields, "", "    ")
	if err != nil {
		panic(err)
	}
	return text
}

// Bytes is the whole file.
func (f File) Bytes() []byte {
	content, _ := f.Build()
	return content
}

// Build also returns the offsets at which the file's structures begin and end, ascending.
func (f File) Build() ([]byte, []int) {
	var out bytes.Buffer
	var bounds []int
	put := func(b []byte) {
		bounds = append(bounds, out.Len())
		out.Write(b)
	}
	meta := f.Meta()
	put(Header("meta", 0, int64(len(meta))))
	put(meta)
	put([]byte("\r\n"))
	var sizes []string
	for _, frame := range f.Frames {
		if frame.Data == nil {
			put(Header("zero", frame.Offset, frame.Zero))
			continue
		}
		put(Header("data", frame.Offset, int64(len(frame.Data))))
		if !f.Compressed {
			put(frame.Data)
		} else {
			sizes = append(sizes, f.compress(frame.Data, put))
		}
		put([]byte("\r\n"))
	}
	put(Header("stop", 0, 0))
	if f.Compressed {
		list := "[" + strings.Join(sizes, ", ") + "]"
		if f.Trailer != "" {
			list = f.Trailer
		}
		put([]byte(list))
		put([]byte("\r\n"))
		put(Header("comp", 0, int64(len(list))))
	}
	return out.Bytes(), append(bounds, out.Len())
}

// compress writes a payload and returns its entry in the list of sizes.
func (f File) compress(data []byte, put func([]byte)) string {
	var parts []string
	total := 0
	for first := true; first || len(data) > 0; first = false {
		n := len(data)
		if f.PartSize > 0 {
			n = min(n, f.PartSize)
		}
		part := LZ4(data[:n], !f.NoPartSizes)
		put(part)
		parts, total, data = append(parts, fmt.Sprint(len(part))), total+len(part), data[n:]
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return fmt.Sprintf("{%q: [%s]}", fmt.Sprint(total), strings.Join(parts, ", "))
}

// LZ4 is one lz4 frame with block and content checksums, and the content's size if sized is true.
func LZ4(content []byte, sized bool) []byte {
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	options := []lz4.Option{lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true)}
	if sized {
		options = append(options, lz4.SizeOption(uint64(len(content))))
	}
	for _, err := range []error{w.Apply(options...), func() error { _, err := w.Write(content); return err }(), w.Close()} {
		if err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}

// Domain is the XML of a domain with qcow2 disks.
func Domain(name, uuid string, disks ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "<domain type='qemu'>\n  <name>%s</name>\n  <uuid>%s</uuid>\n  <os><loader>/usr/share/code.fd</loader><nvram>/var/lib/vars.fd</nvram></os>\n  <devices>\n", name, uuid)
	for _, disk := range disks {
		fmt.Fprintf(&out, "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><target dev='%s' bus='virtio'/></disk>\n", disk)
	}
	out.WriteString("    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='hdc' bus='ide'/></disk>\n  </devices>\n</domain>\n")
	return out.String()
}

// Checkpoint is the XML of a checkpoint: saved disks have a bitmap, the others were left out.
func Checkpoint(name string, created int64, saved, left []string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "<domaincheckpoint>\n  <name>%s</name>\n  <creationTime>%d</creationTime>\n  <disks>\n", name, created)
	for _, disk := range saved {
		fmt.Fprintf(&out, "    <disk name='%s' checkpoint='bitmap' bitmap='%s'/>\n", disk, name)
	}
	for _, disk := range left {
		fmt.Fprintf(&out, "    <disk name='%s' checkpoint='no'/>\n", disk)
	}
	out.WriteString("  </disks>\n</domaincheckpoint>\n")
	return out.String()
}
