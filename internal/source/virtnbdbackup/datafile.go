package virtnbdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/stream"
)

// dataFile is a data file, as far as its head tells.
type dataFile struct {
	dataName
	identity source.FileIdentity
	meta     stream.Meta
	// raw is true for plain images, which have no meta.
	raw bool
	// seconds is the time in the name of a differential backup's file, whose ident is the backup's.
	seconds int64
	// size of the disk in bytes.
	size int64
	// head is the SHA-256 of the first 4 KiB.
	head [sha256.Size]byte
	// fault says why the file cannot be used; nil if nothing speaks against it.
	fault error
}

// checkLimit is how many bytes beyond the head a scan reads of a data file to walk over its frames.
const checkLimit = 64 << 10

// inspect reads a data file's head.
func (f *folder) inspect(ctx context.Context, name dataName) *dataFile {
	fileName := name.disk + ".copy.data"
	switch name.level {
	case levelFull:
		fileName = name.disk + ".full.data"
	case levelInc, levelDiff:
		fileName = fmt.Sprintf("%s.%s.%s.data", name.disk, name.level, name.ident)
	}
	entry := f.entries[fileName]
	d := &dataFile{dataName: name, identity: entry.FileIdentity}
	file, err := f.root.Open(entry.Path)
	if err != nil {
		d.fault = inFile(entry.Path, err)
		return d
	}
	defer file.Close()
	d.identity = file.Identity()
	d.fault = inFile(entry.Path, d.readHead(ctx, file))
	return d
}

func (d *dataFile) readHead(ctx context.Context, file *source.File) error {
	head := make([]byte, min(stream.HeadSize, file.Size()))
	if n, err := file.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = backup.ErrChanged
		}
		return err
	}
	d.head = sha256.Sum256(head)
	if !stream.IsStream(head) {
		// A full backup as a plain image is told from a damaged stream later, see judgeImages.
		if (d.level == levelCopy || d.level == levelFull) && file.Size() > 0 {
			d.raw, d.size = true, file.Size()
			return nil
		}
		return fmt.Errorf("%w: not a virtnbdbackup stream", backup.ErrBroken)
	}
	var err error
	if d.meta, err = stream.ReadMeta(file, file.Size(), head); err != nil {
		return err
	}
	d.size = d.meta.VirtualSize
	if err := d.plausible(); err != nil {
		return err
	}
	short := &shortReader{file: file, left: checkLimit}
	if _, err = stream.BuildIndex(ctx, short, file.Size(), d.meta); errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// plausible compares what the file says with its name: a file under a wrong name would put wrong data on a disk.
func (d *dataFile) plausible() error {
	incremental := d.level == levelInc || d.level == levelDiff
	switch {
	case d.meta.Incremental != incremental:
		return fmt.Errorf("%w: its name says %s, its content does not", backup.ErrBroken, d.level)
	case d.meta.DiskName != "" && d.meta.DiskName != d.disk:
		return fmt.Errorf("%w: it is of disk %s", backup.ErrBroken, backup.EncodeName(d.meta.DiskName))
	case d.level == levelInc && d.meta.Checkpoint != d.ident:
		return fmt.Errorf("%w: it is of checkpoint %s", backup.ErrBroken, backup.EncodeName(d.meta.Checkpoint))
	case incremental && !checkpointPattern.MatchString(d.meta.Parent):
		return fmt.Errorf("%w: it names no parent", backup.ErrBroken)
	}
	return nil
}

// errEnough ends the walk over a file's frames when the scan has read as much as it may.
var errEnough = errors.New("read enough for a scan")

// shortReader allows only so many bytes to be read.
type shortReader struct {
	file io.ReaderAt
	left int64
}

func (s *shortReader) ReadAt(p []byte, offset int64) (int, error) {
	if s.left -= int64(len(p)); s.left < 0 {
		return 0, errEnough
	}
	return s.file.ReadAt(p, offset)
}

// date is when the stream was begun, by the clock on the wall of its host; false if it does not say.
func (d *dataFile) date() (time.Time, bool) {
	date, err := time.Parse("2006-01-02T15:04:05.999999999", d.meta.Date)
	return date, err == nil
}

// judgeImages looks at full backups that are no streams: with "-t raw" they are plain images. Nothing in such a file
// tells, so its size must be that of the disk.
func (f *folder) judgeImages() {
	for _, name := range f.disks(string(levelFull)) {
		file := f.files[fileKey{name, string(levelFull)}]
		if file == nil || !file.raw || file.fault != nil {
			continue
		}
		described, size := f.describedSize(name, f.fullIdent)
		switch {
		case !described:
			file.fault = inFile(file.identity.Path, fmt.Errorf("%w: not a virtnbdbackup stream, and without the disk's .qcow.json "+
				"it cannot be told for a plain image", backup.ErrUnsupported))
		case size != file.size:
			file.fault = inFile(file.identity.Path, fmt.Errorf("%w: not a virtnbdbackup stream, and with %d bytes not a plain image "+
				"of a disk of %d", backup.ErrUnsupported, file.size, size))
		}
	}
}

// describedSize is the size in bytes that the description of a disk's image states; false if there is none that does.
func (f *folder) describedSize(disk, ident string) (bool, int64) {
	name, ok := f.descriptions[fileKey{disk, ident}]
	if !ok {
		return false, 0
	}
	var description struct {
		VirtualSize int64 `json:"virtual-size"`
	}
	text, _, err := f.root.ReadFile(f.at(name), backup.InlineLimit)
	if err != nil || json.Unmarshal(text, &description) != nil || description.VirtualSize <= 0 {
		return false, 0
	}
	return true, description.VirtualSize
}

// rawSize compares a plain image, which has no end mark, with the description of the disk it was made from.
func (f *folder) rawSize(c candidate, file *dataFile) error {
	if !file.raw {
		return nil
	}
	if described, size := f.describedSize(file.disk, c.ident); described && size != file.size {
		return inFile(file.identity.Path, fmt.Errorf("%w: %d bytes of a disk of %d", backup.ErrBroken, file.size, size))
	}
	return nil // without a description nothing speaks against it
}
