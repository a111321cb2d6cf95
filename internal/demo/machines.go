package demo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/vma"
)

// days that the machines are backed up on.
const days = 3

// firstNight is when the first backup begins: a Monday, long enough ago that no clock is before it.
var firstNight = time.Date(2026, time.January, 12, 1, 0, 0, 0, time.UTC)

// machine is one that exists in this story only.
type machine struct {
	vmid       int
	name, uuid string
	tags       string
	about      string
	memory     int
	mac        string
	// after is how long after the night's first backup this machine's turn comes.
	after time.Duration
	// extension says how vzdump was told to compress: ".zst", ".gz".
	extension string
	disks     []disk
}

// disk of a machine. paint makes its content as it was when the backup of a day, counted from 0, was made.
type disk struct {
	// slot is where it is attached: "scsi0".
	slot  string
	size  int64
	paint func(c canvas, day int)
}

func machines() []machine {
	return []machine{
		{
			vmid: 100, name: "web01", uuid: "5f0c3a52-8f1e-4d0b-9a57-0d5c5f1e0100", tags: "linux;web", about: "the web server", memory: 2048,
			mac: "BC:24:11:00:01:00", extension: ".zst",
			disks: []disk{{"scsi0", 24 * mebibyte, webSystem}, {"scsi1", 12 * mebibyte, webPictures}},
		},
		{
			vmid: 101, name: "db01", uuid: "5f0c3a52-8f1e-4d0b-9a57-0d5c5f1e0101", tags: "linux;database", about: "the database", memory: 4096,
			mac: "BC:24:11:00:01:01", after: 5 * time.Minute, extension: ".gz",
			disks: []disk{{"scsi0", 20 * mebibyte, databaseSystem}},
		},
	}
}

// operatingSystem is the same on both machines, so the second one's is known when the first one's was copied. The
// second day brings an update.
func operatingSystem(c canvas, day int) {
	c.paint("boot loader", programs, 0, pageSize)
	c.paint("operating system", programs, 1*mebibyte, 3*mebibyte)
	c.paint("manuals", textLines, 4*mebibyte, 1*mebibyte)
	if day >= 1 {
		c.paint("security update", programs, 2*mebibyte, 256*kibibyte)
	}
}

// webSystem: a log that grows, a journal that is written anew every day.
func webSystem(c canvas, day int) {
	operatingSystem(c, day)
	c.paint("access log", textLines, 8*mebibyte, 768*kibibyte+int64(day)*320*kibibyte)
	c.paint(fmt.Sprintf("journal of day %d", day), textLines, 16*mebibyte, 256*kibibyte)
}

// webPictures: new pictures come, and on the third day an old one is deleted.
func webPictures(c canvas, day int) {
	c.paint("pictures", pictures, 0, 2*mebibyte)
	for d := range day {
		c.paint(fmt.Sprintf("pictures of day %d", d+1), pictures, 2*mebibyte+int64(d)*512*kibibyte, 384*kibibyte)
	}
	if day >= 2 {
		c.erase(1*mebibyte, 512*kibibyte)
	}
}

// databaseSystem: pages of tables are written again here and there, the transaction log as a whole.
func databaseSystem(c canvas, day int) {
	operatingSystem(c, day)
	c.paint("tables", programs, 8*mebibyte, 3*mebibyte)
	for d := range day {
		c.scatter(fmt.Sprintf("tables of day %d", d+1), programs, 8*mebibyte, 3*mebibyte, 4)
	}
	c.paint(fmt.Sprintf("transactions of day %d", day), programs, 16*mebibyte, 256*kibibyte)
}

// image makes a disk's content of a day.
func (d disk) image(day int) []byte {
	c := make(canvas, d.size)
	d.paint(c, day)
	return c
}

// device is the disk's name in an archive.
func (d disk) device() string { return "drive-" + d.slot }

// created is when a day's backup of the machine began.
func (m machine) created(day int) time.Time { return firstNight.AddDate(0, 0, day).Add(m.after) }

// base name of a day's backup, as vzdump names it.
func (m machine) base(day int) string {
	return fmt.Sprintf("vzdump-qemu-%d-%s", m.vmid, m.created(day).Format("2006_01_02-15_04_05"))
}

func (m machine) archiveName(day int) string { return m.base(day) + ".vma" + m.extension }

// backupUUID is what vzdump draws for each backup; here it is always the same for the same machine and day.
func (m machine) backupUUID(day int) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "backup of %d on day %d", m.vmid, day))
	uuid := [16]byte(sum[:16])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80
	return uuid
}

// key is the identity that Ferry must find out by itself.
func (m machine) key() backup.MachineKey {
	return backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(m.vmid), m.uuid, "")
}

// archive is a day's backup as vzdump writes it, and the images that are in it.
func (m machine) archive(day int) (*vma.Archive, [][]byte) {
	a := &vma.Archive{
		UUID: m.backupUUID(day), Created: m.created(day),
		Configs: []vma.Config{{Name: configName, Data: []byte(m.config())}},
	}
	var images [][]byte
	for _, d := range m.disks {
		image := d.image(day)
		images = append(images, image)
		a.Devices = append(a.Devices, vma.DeviceContent{Name: d.device(), Size: d.size, Content: bytes.NewReader(image)})
	}
	a.Order = a.Interleaved()
	return a, images
}

const configName = "qemu-server.conf"

// config is the machine's configuration, as Proxmox keeps it.
func (m machine) config() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#%s", m.about)
	line("agent: 1\nboot: order=scsi0\ncores: 2\ncpu: x86-64-v2-AES\nmemory: %d\nname: %s", m.memory, m.name)
	line("net0: virtio=%s,bridge=vmbr0\nnuma: 0\nonboot: 1\nostype: l26", m.mac)
	for i, d := range m.disks {
		line("%s: local-lvm:vm-%d-disk-%d,discard=on,size=%dM", d.slot, m.vmid, i, d.size/mebibyte)
	}
	line("scsihw: virtio-scsi-single\nsmbios1: uuid=%s\nsockets: 1\ntags: %s", m.uuid, m.tags)
	for _, d := range m.disks {
		line("#qmdump#map:%s:%s:local-lvm:raw:", d.slot, d.device())
	}
	return b.String()
}

// log is what vzdump says while it makes a day's backup.
func (m machine) log(day int, size int64) string {
	var b strings.Builder
	at := m.created(day)
	line := func(format string, args ...any) {
		fmt.Fprintf(&b, "%s INFO: %s\n", at.Format(time.DateTime), fmt.Sprintf(format, args...))
	}
	line("Starting Backup of VM %d (qemu)", m.vmid)
	line("status = running")
	line("VM Name: %s", m.name)
	for i, d := range m.disks {
		line("include disk '%s' 'local-lvm:vm-%d-disk-%d' %dM", d.slot, m.vmid, i, d.size/mebibyte)
	}
	line("backup mode: snapshot")
	line("creating vzdump archive '/mnt/pve/nas/dump/%s'", m.archiveName(day))
	at = m.finished(day)
	line("archive file size: %dMB", size/mebibyte)
	line("Finished Backup of VM %d (%s)", m.vmid, time.Time{}.Add(at.Sub(m.created(day))).Format(time.TimeOnly))
	return b.String()
}

// finished is when a day's backup was done.
func (m machine) finished(day int) time.Time { return m.created(day).Add(9 * time.Second) }

func (m machine) notes(day int) string {
	return fmt.Sprintf("%s, %s: nightly backup %d", m.name, m.about, day+1)
}
