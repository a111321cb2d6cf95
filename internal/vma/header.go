package vma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
)

// ReadHeader reads exactly the header from r. Errors wrap backup.ErrBroken if the header is cut short, damaged or
// nonsense, backup.ErrUnsupported if it is of another version or larger than this package's limits; other errors are
// r's own.
func ReadHeader(r io.Reader) (*Header, error) {
	header, _, err := readHeader(r)
	return header, err
}

// readHeader also returns how many bytes the header took.
func readHeader(r io.Reader) (*Header, int64, error) {
	buffer := make([]byte, fixedHeaderSize)
	if n, err := io.ReadFull(r, buffer); err != nil {
		return nil, 0, headerCut(err, int64(n))
	}
	if string(buffer[:len(headerMagic)]) != headerMagic {
		return nil, 0, brokenHeader("it does not begin with the VMA magic")
	}
	if v := u32(buffer, offVersion); v != version {
		return nil, 0, fmt.Errorf("%w: vma version %d", backup.ErrUnsupported, v)
	}
	size := int64(u32(buffer, offHeaderSize))
	if size <= fixedHeaderSize {
		return nil, 0, brokenHeader("header size %d is too small", size)
	}
	if size > MaxHeaderSize {
		return nil, 0, fmt.Errorf("%w: vma header of %d bytes, more than the %d allowed", backup.ErrUnsupported, size, MaxHeaderSize)
	}
	buffer = slices.Grow(buffer, int(size)-len(buffer))[:size]
	if n, err := io.ReadFull(r, buffer[fixedHeaderSize:]); err != nil {
		return nil, 0, headerCut(err, fixedHeaderSize+int64(n))
	}
	if want := sum(buffer, offHeaderSum); !bytes.Equal(buffer[offHeaderSum:offHeaderSum+len(want)], want[:]) {
		return nil, 0, brokenHeader("its MD5 sum is wrong")
	}
	header, err := parseHeader(buffer)
	return header, size, err
}

// parseHeader takes a header whose length and sum are right.
func parseHeader(buffer []byte) (*Header, error) {
	header := &Header{UUID: [16]byte(buffer[offUUID : offUUID+16])}
	created := int64(u64(buffer, offCreated))
	if created < 0 || created > maxCreated {
		return nil, brokenHeader("its time, %d seconds since 1970, is none", created)
	}
	header.Created = time.Unix(created, 0).UTC()

	blobOffset, blobSize := int64(u32(buffer, offBlobOffset)), int64(u32(buffer, offBlobSize))
	if blobOffset < fixedHeaderSize || blobOffset+blobSize > int64(len(buffer)) {
		return nil, brokenHeader("blob buffer at %d with %d bytes lies outside of it", blobOffset, blobSize)
	}
	blobs := blobs(buffer[blobOffset : blobOffset+blobSize])
	if err := header.parseConfigs(buffer, blobs); err != nil {
		return nil, err
	}
	return header, header.parseDevices(buffer, blobs)
}

func (h *Header) parseConfigs(buffer []byte, blobs blobs) error {
	seen := map[string]bool{}
	for i := range tableEntries {
		nameAt, dataAt := u32(buffer, offConfigNames+4*i), u32(buffer, offConfigData+4*i)
		if nameAt == 0 && dataAt == 0 {
			continue
		}
		name, err := blobs.name(nameAt)
		if err != nil {
			return brokenHeader("name of configuration %d: %w", i, err)
		}
		data, err := blobs.at(dataAt)
		if err != nil {
			return brokenHeader("content of configuration %d: %w", i, err)
		}
		if seen[name] {
			return brokenHeader("two configurations are named %s", backup.EncodeName(name))
		}
		seen[name] = true
		h.Configs = append(h.Configs, Config{Name: name, Data: bytes.Clone(data)})
	}
	return nil
}

func (h *Header) parseDevices(buffer []byte, blobs blobs) error {
	seen := map[string]bool{}
	total := uint64(0)
	for id := range tableEntries {
		entry := buffer[offDevices+deviceEntrySize*id:][:deviceEntrySize]
		nameAt, size := u32(entry, 0), u64(entry, 8)
		if nameAt == 0 {
			if size != 0 {
				return brokenHeader("device %d has a size and no name", id)
			}
			continue
		}
		if id == 0 || id > lastDeviceID {
			return brokenHeader("device id %d cannot be used", id)
		}
		name, err := blobs.name(nameAt)
		if err != nil {
			return brokenHeader("name of device %d: %w", id, err)
		}
		if seen[name] {
			return brokenHeader("two devices are named %s", backup.EncodeName(name))
		}
		seen[name] = true
		device := Device{ID: uint8(id), Name: name}
		if !device.IsState() {
			if size > MaxTotalSize || total+size > MaxTotalSize {
				return fmt.Errorf("%w: vma devices of more than %d TiB, at device %s with %d bytes",
					backup.ErrUnsupported, int64(MaxTotalSize)>>40, backup.EncodeName(name), size)
			}
			total += size
		}
		device.Size = int64(min(size, MaxTotalSize))
		h.Devices = append(h.Devices, device)
	}
	return nil
}

// blobs is the part of the header that names and configuration lie in. Offset 0 means none.
type blobs []byte

var errBlobOutside = errors.New("lies outside the blob buffer")

// at returns the blob at an offset: a 16-bit size, little endian unlike all else, and so many bytes.
func (b blobs) at(offset uint32) ([]byte, error) {
	if offset == 0 || int64(offset)+2 > int64(len(b)) {
		return nil, errBlobOutside
	}
	rest := b[offset+2:]
	size := int(binary.LittleEndian.Uint16(b[offset:]))
	if size > len(rest) {
		return nil, errBlobOutside
	}
	return rest[:size], nil
}

// name returns a blob that is a string with a NUL at its end, and without it.
func (b blobs) name(offset uint32) (string, error) {
	blob, err := b.at(offset)
	if err != nil {
		return "", err
	}
	name, terminated := strings.CutSuffix(string(blob), "\x00")
	switch {
	case !terminated || strings.Contains(name, "\x00"):
		return "", errors.New("does not end with its only NUL")
	case name == "":
		return "", errors.New("is empty")
	case len(name) > maxNameLength:
		return "", fmt.Errorf("has %d bytes, more than %d", len(name), maxNameLength)
	}
	return name, nil
}

func brokenHeader(format string, args ...any) error {
	return &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%w: vma header: %w", backup.ErrBroken, fmt.Errorf(format, args...))}
}

func headerCut(err error, have int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return brokenHeader("the archive ends inside it, at byte %d", have)
	}
	return fmt.Errorf("vma header, at byte %d: %w", have, err)
}
