package restore

import (
	"slices"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

func TestCommands(t *testing.T) {
	config := `boot: order=scsi0
efidisk0: fast:vm-100-disk-2,efitype=4m,pre-enrolled-keys=1,size=4M
scsi0: fast:vm-100-disk-0,discard=on,iothread=1,size=64M
scsi3: fast:vm-100-disk-1,backup=0,size=1G
tpmstate0: fast:vm-100-disk-3,size=4M,version=v2.0
virtio1: fast:vm-100-disk-4,serial=$(reboot),size=64M
#qmdump#map:efidisk0:drive-efidisk0:fast:raw:
#qmdump#map:scsi0:drive-scsi0:fast:raw:
#qmdump#map:tpmstate0:drive-tpmstate0-backup:fast:raw:
#qmdump#map:virtio1:drive-virtio1:fast:raw:
`
	for _, c := range []struct {
		name     string
		platform backup.Platform
		id       string
		objects  []backup.Object
		want     []string
	}{
		{"proxmox", backup.PlatformProxmox, "100", []backup.Object{
			{Role: backup.RoleDisk, Name: "drive-scsi0", Format: "vma"},
			{Role: backup.RoleFirmware, Name: "drive-efidisk0", Format: "vma"},
			{Role: backup.RoleTPM, Name: "drive-tpmstate0-backup", Format: "vma"},
			{Role: backup.RoleMemory, Name: "vmstate", Format: "vma"},
			{Role: backup.RoleDisk, Name: "drive-virtio1", Format: "vma"},
			{Role: backup.RoleConfiguration, Name: "qemu-server.conf", Inline: []byte(config)},
		}, []string{
			`VMID=100   # another number if this one is in use`,
			`STORAGE=fast   # the storage for its disks`,
			`qm create "$VMID" --name 'it'\''s' && grep -vE '^(#qmdump#|(scsi0|virtio1|efidisk0|tpmstate0):)' '/re store/config/qemu-server.conf' >/etc/pve/qemu-server/"$VMID".conf`,
			`qm set "$VMID" --scsi0 "$STORAGE"':0,import-from=/re store/drive-scsi0.raw,discard=on,iothread=1'`,
			`qm set "$VMID" --virtio1 "$STORAGE"':0,import-from=/re store/drive-virtio1.raw'`,
			`qm set "$VMID" --efidisk0 "$STORAGE"':0,import-from=/re store/drive-efidisk0.raw,efitype=4m,pre-enrolled-keys=1'`,
			`qm set "$VMID" --tpmstate0 "$STORAGE"':0,import-from=/re store/drive-tpmstate0-backup.raw,version=v2.0'`,
		}},
		{"proxmox without a configuration", backup.PlatformProxmox, "web", []backup.Object{
			{Role: backup.RoleDisk, Name: "drive-sata0", Format: "vma"}, {Role: backup.RoleDisk, Name: "odd;name", Format: "vma"},
		}, []string{
			`VMID=100   # another number if this one is in use`,
			`STORAGE=local-lvm   # the storage for its disks`,
			`qm create "$VMID" --name 'it'\''s'`,
			`qm set "$VMID" --sata0 "$STORAGE"':0,import-from=/re store/drive-sata0.raw'`,
			`qm set "$VMID" --scsi0 "$STORAGE"':0,import-from=/re store/odd;name.raw'`,
		}},
		{"container", backup.PlatformProxmox, "101", []backup.Object{{Role: backup.RoleArchive, Name: "vzdump-lxc-101", Shifting: true}}, []string{
			`VMID=101   # another number if this one is in use`,
			`STORAGE=local-lvm   # the storage for its disks`,
			`pct restore "$VMID" '/re store/vzdump-lxc-101.tar' --storage "$STORAGE"`,
		}},
		{"libvirt", backup.PlatformLibvirt, "uuid", []backup.Object{
			{Role: backup.RoleDisk, Name: "vda"}, {Role: backup.RoleFirmware, Name: "vars.fd"}, {Role: backup.RoleConfiguration, Name: "vmconfig.1.xml"},
		}, []string{
			`cp '/re store/config/vmconfig.1.xml' '/re store/domain.xml'`,
			`virsh define '/re store/domain.xml'`,
		}},
		{"image", backup.PlatformImage, "web", []backup.Object{{Role: backup.RoleDisk, Name: "web"}}, []string{
			`qemu-img convert -f raw -O qcow2 '/re store/web.raw' '/re store/web.qcow2'`,
		}},
		{"names that are encoded in files' names", backup.PlatformProxmox, "102", []backup.Object{
			{Role: backup.RoleDisk, Name: "50% off", Format: "vma"}, {Role: backup.RoleDisk, Name: "two\nlines", Format: "vma"},
		}, []string{
			`VMID=102   # another number if this one is in use`,
			`STORAGE=local-lvm   # the storage for its disks`,
			`qm create "$VMID" --name 'it'\''s'`,
			`qm set "$VMID" --scsi0 "$STORAGE"':0,import-from=/re store/50%25 off.raw'`,
			`qm set "$VMID" --scsi1 "$STORAGE"':0,import-from=/re store/two%0Alines.raw'`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			point := &repo.Point{Point: backup.Point{
				Machine: backup.Machine{Name: "it's", Key: backup.MachineKey{Platform: c.platform, NativeID: c.id}}, Objects: c.objects,
			}}
			var got []string
			for _, line := range commands(point, "/re store", Layout(point)) {
				if strings.Contains(line, "\n") {
					t.Errorf("two lines in one: %q", line)
				}
				if !strings.HasPrefix(line, "#") {
					got = append(got, line)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("\n%s\n\ninstead of\n\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestHostileNames: what a backup calls itself never becomes a command.
func TestHostileNames(t *testing.T) {
	hostile := "x'\n$(reboot)`reboot`;reboot #"
	for _, platform := range []backup.Platform{backup.PlatformProxmox, backup.PlatformLibvirt, backup.PlatformImage} {
		point := &repo.Point{Point: backup.Point{
			Machine: backup.Machine{Name: hostile, Key: backup.MachineKey{Platform: platform, NativeID: hostile}},
			Objects: []backup.Object{
				{Role: backup.RoleDisk, Name: hostile}, {Role: backup.RoleArchive, Name: hostile}, {Role: backup.RoleTPM, Name: "drive-" + hostile},
				{Role: backup.RoleConfiguration, Name: "vmconfig." + hostile + ".xml"},
				{Role: backup.RoleConfiguration, Name: "qemu-server.conf", Inline: []byte("scsi0: a,b=" + hostile + "\n#qmdump#map:scsi0:x:" + hostile)},
			},
		}}
		for _, line := range commands(point, "/restore", Layout(point)) {
			if strings.HasPrefix(line, "#") && !strings.Contains(line, "\n") {
				continue
			}
			// Outside of quotes nothing of the name is left.
			for i, part := range strings.Split(strings.ReplaceAll(line, `'\''`, ""), "'") {
				if i%2 == 0 && strings.ContainsAny(part, "\n`;") || i%2 == 0 && strings.Contains(part, "$(") {
					t.Errorf("%s: %q", platform, line)
				}
			}
		}
	}
}
