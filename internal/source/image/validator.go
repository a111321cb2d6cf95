package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

const (
	// validatorLimit is the largest validator in bytes that is written or believed.
	validatorLimit = 1 << 20
	// validatorVersion changes when an equal record would no longer prove an equal disk.
	validatorVersion = 2
	// headBytes is how much of each file is hashed: header, extensions and the first tables of a qcow2 image.
	headBytes = 64 << 10
)

// pointRecord is the validator: what the files of a point were when they were opened.
type pointRecord struct {
	Version int          `json:"version"`
	Disks   []diskRecord `json:"disks"`
	// Beside are the configuration and firmware files. They are always read; they are here so that a copy of a point is
	// not gone on with after one of them changed.
	Beside []fileRecord `json:"beside,omitempty"`
}

type diskRecord struct {
	// Name is encoded, see backup.EncodeName.
	Name string `json:"name"`
	// Files of the chain, top first.
	Files []fileRecord `json:"files"`
}

// fileRecord is one file. Path is information: the same file under another path of a mount is the same.
type fileRecord struct {
	Path    string `json:"path"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	ModTime string `json:"mtime"`
	// ChangeTime is what a program that writes in place and sets the mtime back cannot set back.
	ChangeTime string `json:"ctime"`
	Head       string `json:"head,omitempty"`
	Snapshot   string `json:"snapshot,omitempty"`
	// Format keeps apart a file's two readings: its bytes, and the disk in it.
	Format format `json:"format,omitempty"`
}

// proves is true if the file was not written to between the two records. A file system that keeps whole seconds does
// not show a second write within one, so there nothing is proven.
func (r fileRecord) proves(other fileRecord) bool {
	const wholeSecond = "000000000"
	if strings.HasSuffix(r.ModTime, wholeSecond) && strings.HasSuffix(r.ChangeTime, wholeSecond) {
		return false
	}
	r.Path = other.Path
	return r == other
}

// recordIdentity takes down what the file system says of a file.
func recordIdentity(id source.FileIdentity) fileRecord {
	return fileRecord{
		Path: backup.EncodeName(id.Path), Device: id.Device, Inode: id.Inode, Size: id.Size,
		ModTime: nanoseconds(id.ModTime), ChangeTime: nanoseconds(id.ChangeTime),
	}
}

// recordFile takes down what an open file is.
func recordFile(opened *source.File, kind format) (fileRecord, error) {
	id := opened.Identity()
	head := make([]byte, min(id.Size, headBytes))
	if n, err := opened.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = backup.ErrChanged
		}
		return fileRecord{}, &fileError{path: id.Path, err: err}
	}
	sum := sha256.Sum256(head)
	record := recordIdentity(id)
	record.Head, record.Format = hex.EncodeToString(sum[:]), kind
	return record, nil
}

// encode writes the validator. One that is too large is left out, and proves nothing.
func (r pointRecord) encode() []byte {
	encoded, err := json.Marshal(r)
	if err != nil || len(encoded) > validatorLimit {
		return nil
	}
	return encoded
}

// parseRecord reads a validator; false if it is none of this version.
func parseRecord(validator []byte) (pointRecord, bool) {
	var r pointRecord
	if len(validator) > validatorLimit || json.Unmarshal(validator, &r) != nil || r.Version != validatorVersion {
		return pointRecord{}, false
	}
	return r, true
}
