package virtnbdbackup

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// domain is what Ferry wants of a libvirt domain's XML. All of it is data: no path in it is ever followed.
type domain struct {
	Name     string   `xml:"name"`
	UUID     string   `xml:"uuid"`
	Loader   string   `xml:"os>loader"`
	NVRAM    string   `xml:"os>nvram"`
	Kernel   string   `xml:"os>kernel"`
	Initrd   string   `xml:"os>initrd"`
	Disks    []disk   `xml:"devices>disk"`
	XMLName  xml.Name `xml:"domain"`
	firmware []string
}

// disk is a disk of the domain.
type disk struct {
	// Device is "disk" (also if empty), "cdrom", "floppy" or "lun".
	Device string `xml:"device,attr"`
	Driver struct {
		Type string `xml:"type,attr"`
	} `xml:"driver"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
}

// saved is true for disks that every backup holds unless it was told otherwise. Raw disks have no bitmaps: they are
// only in full and copy backups, and only if asked for.
func (d disk) saved() bool {
	return (d.Device == "" || d.Device == "disk") && d.Driver.Type != "raw"
}

// errCutShort is a domain's XML without its end, as it is while it is being written.
var errCutShort = errors.New("a domain's XML that ends too early")

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// parseDomain reads the XML in a vmconfig file.
func parseDomain(text []byte) (*domain, error) {
	var d domain
	if err := xml.Unmarshal(text, &d); err != nil {
		var syntax *xml.SyntaxError
		if errors.Is(err, io.EOF) || (errors.As(err, &syntax) && syntax.Msg == "unexpected EOF") {
			return nil, errCutShort
		}
		return nil, fmt.Errorf("%w: not a domain's XML: %w", backup.ErrBroken, err)
	}
	return d.clean()
}

func (d *domain) clean() (*domain, error) {
	d.Name = strings.TrimSpace(d.Name)
	d.UUID = strings.ToLower(strings.TrimSpace(d.UUID))
	if !uuidPattern.MatchString(d.UUID) {
		d.UUID = ""
	}
	if d.Name == "" && d.UUID == "" {
		return nil, fmt.Errorf("%w: a domain with neither name nor UUID", backup.ErrBroken)
	}
	seen := map[string]bool{}
	for _, file := range []string{d.Loader, d.NVRAM, d.Kernel, d.Initrd} {
		name := path.Base(strings.TrimSpace(file))
		if name != "/" && name != "." && name != ".." && !seen[name] {
			seen[name] = true
			d.firmware = append(d.firmware, name)
		}
	}
	disks := d.Disks[:0]
	for _, disk := range d.Disks {
		if dev := disk.Target.Dev; dev != "" && !seen["disk "+dev] {
			seen["disk "+dev] = true
			disks = append(disks, disk)
		}
	}
	d.Disks = disks
	return d, nil
}

// machine is the domain as Ferry's machine: identified by its UUID, or by the source where there is none.
func (d *domain) machine(in *source.Root) backup.Machine {
	native := d.UUID
	if native == "" {
		native = d.Name
	}
	return backup.Machine{Key: in.MachineKey(backup.PlatformLibvirt, native, d.UUID), Name: d.Name}
}

// checkpoint is what Ferry wants of a libvirt checkpoint's XML.
type checkpoint struct {
	created time.Time
	// disks says of each disk that the checkpoint knows whether it has a bitmap in it, that is, was backed up.
	disks  map[string]bool
	domain *domain
}

// parseCheckpoint reads the XML of the checkpoint with that name.
func parseCheckpoint(text []byte, name string) (*checkpoint, error) {
	var fields struct {
		XMLName xml.Name `xml:"domaincheckpoint"`
		Name    string   `xml:"name"`
		Created int64    `xml:"creationTime"`
		Disks   []struct {
			Name       string `xml:"name,attr"`
			Checkpoint string `xml:"checkpoint,attr"`
		} `xml:"disks>disk"`
		Domain *domain `xml:"domain"`
	}
	if err := xml.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%w: not a checkpoint's XML: %w", backup.ErrBroken, err)
	}
	if got := strings.TrimSpace(fields.Name); got != name {
		return nil, fmt.Errorf("%w: the XML of another checkpoint, %s", backup.ErrBroken, backup.EncodeName(got))
	}
	if fields.Created <= 0 || fields.Created > 1<<40 {
		return nil, fmt.Errorf("%w: a creation time of %d seconds", backup.ErrBroken, fields.Created)
	}
	c := &checkpoint{created: time.Unix(fields.Created, 0).UTC(), disks: map[string]bool{}}
	for _, disk := range fields.Disks {
		c.disks[disk.Name] = disk.Checkpoint != "no"
	}
	if fields.Domain != nil {
		if d, err := fields.Domain.clean(); err == nil {
			c.domain = d
		}
	}
	return c, nil
}
