package restore

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// commands are what brings the machine back on its platform: lines for a POSIX shell, comments among them. They are
// printed, never run. dir is absolute: the lines may be run in another folder, and Proxmox VE takes no other path.
func commands(point *repo.Point, dir string, files []File) []string {
	r := restored{point: point, dir: dir}
	for _, f := range files {
		switch f.Role {
		case backup.RoleDisk:
			r.disks = append(r.disks, f)
		case backup.RoleArchive:
			r.archives = append(r.archives, f)
		case backup.RoleFirmware, backup.RoleTPM:
			r.extras = append(r.extras, f)
		case backup.RoleConfiguration:
			if r.config == nil && isMachineConfiguration(f.Name) {
				r.config = &f
			}
		}
	}
	switch point.Machine.Key.Platform {
	case backup.PlatformProxmox:
		return r.proxmox()
	case backup.PlatformLibvirt:
		return r.libvirt()
	}
	var lines []string
	for _, f := range r.disks {
		lines = append(lines, "qemu-img convert -f raw -O qcow2 "+r.at(f)+" "+Quote(strings.TrimSuffix(r.path(f), ".raw")+".qcow2"))
	}
	if len(lines) > 0 {
		lines = append([]string{"# the disks are raw images; where another format is wanted:"}, lines...)
	}
	return lines
}

// restored is what commands are made for.
type restored struct {
	point *repo.Point
	dir   string
	// extras are firmware variables and TPM state.
	disks, archives, extras []File
	config                  *File
}

func (r restored) path(f File) string { return filepath.Join(r.dir, f.Path) }

// at is a file's absolute path as a word of a shell.
func (r restored) at(f File) string { return Quote(r.path(f)) }

func isMachineConfiguration(name string) bool {
	return name == "qemu-server.conf" || (strings.HasPrefix(name, "vmconfig.") && strings.HasSuffix(name, ".xml"))
}

// busNames are the drives that Proxmox VE knows.
var busNames = regexp.MustCompile(`^(ide|sata|scsi|virtio|efidisk|tpmstate)[0-9]{1,2}$`)

// proxmox makes the machine anew under its VMID, which fails where that is in use, then takes over the configuration but
// for the disks that were restored, and imports those. Storage and VMID are variables: they are what may differ.
func (r restored) proxmox() []string {
	id := r.point.Machine.Key.NativeID
	if strings.Trim(id, "0123456789") != "" {
		id = "100"
	}
	config := r.readProxmox()
	storage := config.storage
	if storage == "" {
		storage = "local-lvm"
	}
	lines := []string{
		"# as root on the Proxmox VE node; the machine keeps its MAC addresses and UUID: never run it beside the original",
		"VMID=" + id + "   # another number if this one is in use",
		"STORAGE=" + Quote(storage) + "   # the storage for its disks",
	}
	for _, f := range r.archives {
		lines = append(lines, `pct restore "$VMID" `+r.at(f)+` --storage "$STORAGE"`)
	}
	drives := slices.Concat(r.disks, slices.DeleteFunc(slices.Clone(r.extras), func(f File) bool { return !strings.HasPrefix(f.Name, "drive-") }))
	if len(drives) == 0 {
		return lines
	}
	if strings.Contains(r.dir, ",") {
		lines = append(lines, "# Proxmox VE takes no path with a comma: rename the folder first, and in the lines below")
	}
	create := `qm create "$VMID"`
	if name := r.point.Machine.Name; name != "" {
		create += " --name " + Quote(name)
	}
	var sets, buses []string
	for _, f := range drives {
		bus := config.bus(f.Name)
		for n := 0; bus == "" || slices.Contains(buses, bus); n++ {
			bus = fmt.Sprintf("scsi%d", n)
		}
		buses = append(buses, bus)
		value := "$STORAGE:0,import-from=" + r.path(f) + config.options[bus]
		sets = append(sets, fmt.Sprintf(`qm set "$VMID" --%s %s`, bus, quoteExpanding(value)))
	}
	if r.config != nil {
		create += fmt.Sprintf(` && grep -vE '^(#qmdump#|(%s):)' %s >/etc/pve/qemu-server/"$VMID".conf`, strings.Join(buses, "|"), r.at(*r.config))
	}
	return append(append(lines, create), sets...)
}

// proxmoxConfig is what of qemu-server.conf the commands need.
type proxmoxConfig struct {
	// buses has the drive that each device of the backup is; options what the configuration says of a drive beside its
	// volume, with a comma before each.
	buses, options map[string]string
	storage        string
}

// plainOption is an option of a drive that can be taken over as it is.
var plainOption = regexp.MustCompile(`^[a-z][a-z0-9_-]*=[A-Za-z0-9._:/+-]*$`)

func (r restored) readProxmox() proxmoxConfig {
	c := proxmoxConfig{buses: map[string]string{}, options: map[string]string{}}
	if r.config == nil {
		return c
	}
	for line := range strings.Lines(string(r.point.Objects[r.config.object].Inline)) {
		line = strings.TrimSpace(line)
		if mapped, ok := strings.CutPrefix(line, "#qmdump#map:"); ok {
			// drive, device, storage, format
			if parts := strings.Split(mapped, ":"); len(parts) >= 3 && busNames.MatchString(parts[0]) {
				c.buses[parts[1]] = parts[0]
				if c.storage == "" {
					c.storage = parts[2]
				}
			}
			continue
		}
		drive, value, ok := strings.Cut(line, ":")
		if !ok || !busNames.MatchString(drive) {
			continue
		}
		for _, option := range strings.Split(value, ",")[1:] {
			name, _, _ := strings.Cut(option, "=")
			if plainOption.MatchString(option) && !slices.Contains([]string{"file", "size", "format", "import-from"}, name) {
				c.options[drive] += "," + option
			}
		}
	}
	return c
}

// bus is the drive that a device of the backup was, or "".
func (c proxmoxConfig) bus(device string) string {
	if bus := c.buses[device]; bus != "" {
		return bus
	}
	bus := strings.TrimSuffix(strings.TrimPrefix(device, "drive-"), "-backup")
	if !busNames.MatchString(bus) {
		return ""
	}
	return bus
}

// libvirt says what to change in the domain's description: XML cannot be edited by a line of shell that is safe to run.
func (r restored) libvirt() []string {
	if r.config == nil {
		return nil
	}
	description := Quote(filepath.Join(r.dir, "domain.xml"))
	lines := []string{
		"cp " + r.at(*r.config) + " " + description,
		"# in that file, in each <disk>: <driver name='qemu' type='raw'/>, <source file='PATH'/> with the path below, and <backingStore/> empty",
	}
	for _, f := range r.disks {
		lines = append(lines, "#   <target dev='"+backup.EncodeName(f.Name)+"'>  "+r.at(f))
	}
	for _, f := range r.extras {
		lines = append(lines, "# firmware: put "+r.at(f)+" where <nvram> or <loader> in that file says")
	}
	return append(lines,
		"# QEMU must be able to reach the disks: its user needs to pass through every folder above them",
		"virsh define "+description)
}

// quoteExpanding makes text one word for a POSIX shell in which variables are expanded: everything but $STORAGE at its
// beginning stays as it is.
func quoteExpanding(text string) string {
	text = strings.TrimPrefix(text, "$STORAGE")
	return `"$STORAGE"` + Quote(text)
}
