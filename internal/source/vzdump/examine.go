package vzdump

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/vma"
)

const (
	// magicSize in bytes is what tells compressions apart.
	magicSize = 4
	// tarHeadLimit in bytes, decompressed, bounds the search for a container's configuration.
	tarHeadLimit = 4 << 20
	// tarHeadEntries bounds it too. vzdump writes the configuration first.
	tarHeadEntries = 16
	containerConf  = "etc/vzdump/pct.conf"
	guestConf      = "qemu-server.conf"
)

// head is what the beginning of an archive says.
type head struct {
	vma    *vma.Header // nil for containers
	config guestConfig
}

// examine says what an archive is. It returns nil if the file has gone since the listing.
func (d *dump) examine(ctx context.Context) *source.Point {
	if d.file.IsFolder {
		return d.point(head{}, fmt.Errorf("%w: a backup is being started", backup.ErrLocked))
	}
	if d.name.role == roleUnread {
		condition := backup.ErrUnsupported
		if d.name.sealed {
			condition = backup.ErrEncrypted
		}
		return d.point(head{}, fmt.Errorf("%w: files with the extension %s are not read", condition, d.name.outer))
	}
	h, err := d.readHead(ctx)
	now, lookErr := d.root.Identify(d.file.Path)
	switch {
	case errors.Is(lookErr, backup.ErrVanished):
		return nil
	case lookErr == nil && !now.Same(d.file.FileIdentity):
		err = fmt.Errorf("%w: the file changed between two looks, so it is still being written", backup.ErrLocked)
	case d.name.role == roleRunning:
		err = fmt.Errorf("%w: vzdump is writing it", backup.ErrLocked)
	case err == nil:
		err = lookErr
	}
	return d.point(h, err)
}

// readHead reads as little as it can of the file, and never more than source.ScanLimit bytes.
func (d *dump) readHead(ctx context.Context) (head, error) {
	file, err := d.root.Open(d.file.Path)
	if err != nil {
		return head{}, err
	}
	defer file.Close()
	if file.Size() == 0 {
		return head{}, fmt.Errorf("%w: the file is empty", backup.ErrBroken)
	}
	in := &input{ctx: ctx, file: file, limit: source.ScanLimit - magicSize}
	compression := d.name.compression
	if d.name.role == roleRunning {
		// The name of a running backup does not say how it is compressed.
		if compression, err = recognise(file); err != nil {
			return head{}, err
		}
	}
	content, err := decompress(in, compression)
	if err != nil {
		return head{}, err
	}
	defer content.close()
	if d.name.container == containerTar {
		config, err := readTarHead(content)
		return head{config: config}, err
	}
	header, err := vma.ReadHeader(content)
	if err != nil {
		return head{}, err
	}
	h := head{vma: header}
	for _, config := range header.Configs {
		if config.Name == guestConf {
			h.config = parseConfig(config.Data)
		}
	}
	return h, nil
}

// recognise finds the compression by a file's first bytes.
func recognise(file *source.File) (string, error) {
	var start [magicSize]byte
	if _, err := file.ReadAt(start[:], 0); err != nil {
		return "", fmt.Errorf("%w: nothing written yet", backup.ErrBroken)
	}
	for _, known := range []struct{ magic, compression string }{
		{"\x28\xb5\x2f\xfd", "zst"}, {"\x1f\x8b", "gz"}, {"\x89LZO", "lzo"}, {"BZh", "bz2"},
	} {
		if bytes.HasPrefix(start[:], []byte(known.magic)) {
			return known.compression, nil
		}
	}
	return "", nil
}

// readTarHead looks for the container's configuration. That there is none is no error; that there is no tar is one.
func readTarHead(content io.Reader) (guestConfig, error) {
	limited := &io.LimitedReader{R: content, N: tarHeadLimit}
	start, err := readTarStart(limited)
	if err != nil {
		return guestConfig{}, err
	}
	archive := tar.NewReader(io.MultiReader(bytes.NewReader(start), limited))
	for range tarHeadEntries {
		entry, err := archive.Next()
		if err != nil {
			break
		}
		if path.Clean(strings.TrimPrefix(entry.Name, "/")) != containerConf {
			continue
		}
		if text, err := io.ReadAll(io.LimitReader(archive, maxConfigSize)); err == nil {
			return parseConfig(text), nil
		}
		break
	}
	return guestConfig{}, nil
}

// point puts together what is known. err says why the point is not complete; nil if it is.
func (d *dump) point(h head, err error) *source.Point {
	machine := d.machine(h.config)
	d.identified = h.vma != nil || d.name.container == containerTar
	native := d.nativePointID(h)
	p := &source.Point{Point: backup.Point{
		ID:      backup.NewPointID(machine.Key, native),
		Machine: machine,
		State:   backup.StateComplete,
		Origin:  backup.Origin{Format: formatName, Source: d.root.Name(), NativePointID: native, Location: d.file.Path},
	}}
	p.Created, p.Zone = d.created(h)
	p.Files = append(p.Files, d.file.FileIdentity)
	for _, s := range d.sidecars {
		p.Files = append(p.Files, s.file.FileIdentity)
	}
	if d.name.role == roleArchive {
		p.Objects = d.objects(h.vma)
	}
	if err != nil {
		p.State, p.Reason = stateOf(err)
		return p
	}
	opener := &opener{dump: d}
	if h.vma != nil {
		opener.uuid = h.vma.UUID
	}
	p.Opener = opener
	return p
}

// stateOf turns an error into a state and a reason in one line.
func stateOf(err error) (backup.State, string) {
	state := backup.StateBroken
	for _, condition := range []struct {
		err   error
		state backup.State
	}{
		{backup.ErrLocked, backup.StateLocked}, {backup.ErrChanged, backup.StateLocked},
		{backup.ErrUnsupported, backup.StateUnsupported}, {backup.ErrEncrypted, backup.StateEncrypted},
	} {
		if errors.Is(err, condition.err) {
			state = condition.state
			break
		}
	}
	// The state's own word would say it twice.
	reason := err.Error()
	for _, condition := range []error{backup.ErrBroken, backup.ErrLocked, backup.ErrUnsupported, backup.ErrEncrypted} {
		reason = strings.TrimPrefix(reason, condition.Error()+": ")
	}
	// The system's messages have file names as they are; those of this package are encoded already.
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		reason = backup.EncodeName(reason)
	}
	return state, reason
}

// machine by the identity rule: VMID and SMBIOS UUID; without UUID the source's name takes part.
func (d *dump) machine(config guestConfig) backup.Machine {
	native := d.name.nativeMachineID()
	machine := backup.Machine{
		Key:    d.root.MachineKey(backup.PlatformProxmox, native, config.uuid),
		Name:   config.name,
		Labels: config.tags,
	}
	if machine.Name == "" {
		machine.Name = native
	}
	return machine
}

// nativePointID: the UUID that vzdump gives each VMA archive. A tar archive has none: name, size and the time of its
// name as it is written there, which no time zone changes; where the name has no time, the file's.
// An archive that could not be read is told apart by name, size and time too, until it can be.
func (d *dump) nativePointID(h head) string {
	if h.vma != nil {
		return formatUUID(h.vma.UUID)
	}
	stamp := d.name.stamp
	if stamp == "" {
		stamp = d.file.ModTime.Format(time.RFC3339Nano)
	}
	if d.name.role == roleRunning {
		return backup.EncodeName(d.name.base) + " running " + stamp
	}
	return fmt.Sprintf("%s %d %s", backup.EncodeName(d.file.Name), d.file.Size, stamp)
}

// created prefers the header's time over the name's, whose zone is not known, over the file's.
func (d *dump) created(h head) (time.Time, string) {
	if h.vma != nil {
		return h.vma.Created, "UTC"
	}
	if created, ok := d.name.time(); ok {
		return created, "unknown"
	}
	return d.file.ModTime, "UTC"
}

func formatUUID(uuid [16]byte) string {
	text := hex.EncodeToString(uuid[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// attribute gives points whose archive does not say its machine to the machine that its VMID belongs to in the same
// folder, if all readable archives there agree on it. Nothing is ever copied from such a point; but the machine's
// owner wants to know that its newest backup is broken or running.
func attribute(found []*dump, points []*source.Point) {
	type place struct{ folder, vmid string }
	owners := map[place]*backup.Machine{}
	for i, d := range found {
		if points[i] == nil || !d.identified || d.name.vmid == "" {
			continue
		}
		at, machine := place{d.folder, d.name.vmid}, &points[i].Machine
		if owner, known := owners[at]; known && (owner == nil || owner.Key != machine.Key) {
			machine = nil
		}
		owners[at] = machine
	}
	for i, d := range found {
		if points[i] == nil || d.identified || d.name.vmid == "" {
			continue
		}
		if owner := owners[place{d.folder, d.name.vmid}]; owner != nil {
			points[i].Machine = *owner
			points[i].ID = backup.NewPointID(owner.Key, points[i].Origin.NativePointID)
		}
	}
}
