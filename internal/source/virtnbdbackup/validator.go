package virtnbdbackup

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"ferry/internal/backup"
)

// validatorLimit bounds what is recorded, and what is parsed again.
const validatorLimit = 1 << 20

// validator is recorded with a copy. Sizes and heads of the chain's files, in their order, prove that a later point's
// chain goes on from the copied one: the head has the meta frame with its date in microseconds. Names and times of
// these are information: a folder may have been moved, or copied without its times. The sum over all files tells
// whether a copy that was interrupted can go on: it changes with any of them.
type validator struct {
	Version int             `json:"version"`
	Disks   []validatorDisk `json:"disks"`
	// Files is the SHA-256 of path, size, mtime and inode of every file that the point is read from, in unpadded base64.
	Files string `json:"files"`
}

type validatorDisk struct {
	Name string `json:"name"`
	// Size of the disk in bytes.
	Size  int64           `json:"size"`
	Files []validatorFile `json:"files"`
}

type validatorFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	// ModTime in ns since 1970.
	ModTime int64 `json:"mtime"`
	// Head is the SHA-256 of the first 4 KiB, in unpadded base64.
	Head string `json:"head"`
}

const validatorVersion = 1

// validator describes the chains of all disks but raw ones: a raw image's head says nothing of the rest. It returns nil,
// which proves nothing and lets no copy be resumed, if that is too long.
func (p *plan) validator() []byte {
	v := validator{Version: validatorVersion, Disks: []validatorDisk{}, Files: p.filesSum()}
	for _, disk := range p.disks {
		if disk.layers[0].raw {
			continue
		}
		recorded := validatorDisk{Name: backup.EncodeName(disk.name), Size: disk.size()}
		for _, file := range disk.layers {
			recorded.Files = append(recorded.Files, validatorFile{
				Path: backup.EncodeName(file.identity.Path), Size: file.identity.Size,
				ModTime: file.identity.ModTime.UnixNano(), Head: headText(file.head),
			})
		}
		v.Disks = append(v.Disks, recorded)
	}
	text, err := json.Marshal(v)
	if err != nil || len(text) > validatorLimit {
		return nil
	}
	return text
}

// filesSum sums up the files that the point is read from: those of the chains, plain images, firmware of any size.
func (p *plan) filesSum() string {
	hash := sha256.New()
	for _, file := range p.files {
		// Quoting keeps hostile paths apart.
		fmt.Fprintf(hash, "%q %d %d %d\n", file.Path, file.Size, file.ModTime.UnixNano(), file.Inode)
	}
	return base64.RawStdEncoding.EncodeToString(hash.Sum(nil))
}

func headText(head [sha256.Size]byte) string { return base64.RawStdEncoding.EncodeToString(head[:]) }

// proven returns how many of a disk's lowest layers are those of the base, and the size of the base's disk. It returns
// 0 unless the base is one of the point's ancestors, and its validator names exactly the beginning of the chain.
func (c *content) proven(base *backup.Base, d *chainDisk) (int, int64) {
	if base == nil || len(base.Validator) > validatorLimit || !slices.Contains(c.Ancestors(), base.ID) {
		return 0, 0
	}
	var v validator
	if err := json.Unmarshal(base.Validator, &v); err != nil || v.Version != validatorVersion {
		return 0, 0
	}
	name := backup.EncodeName(d.name)
	at := slices.IndexFunc(v.Disks, func(recorded validatorDisk) bool { return recorded.Name == name })
	if at < 0 {
		return 0, 0
	}
	recorded := v.Disks[at]
	count := len(recorded.Files)
	if count == 0 || count > len(d.layers) {
		return 0, 0
	}
	for i, file := range recorded.Files {
		layer := d.layers[i]
		if layer.raw || file.Size != layer.identity.Size || file.Head != headText(layer.head) {
			return 0, 0
		}
	}
	if recorded.Size != d.layers[count-1].size {
		return 0, 0
	}
	return count, recorded.Size
}
