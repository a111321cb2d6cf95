package restore

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

const restoreJSON = "restore.json"

// description is restore.json.
type description struct {
	Machine    machineDescription `json:"machine"`
	Point      string             `json:"point"`
	Created    time.Time          `json:"created"`
	Zone       string             `json:"zone"`
	Origin     originDescription  `json:"origin"`
	Repository string             `json:"repository"`
	Hash       string             `json:"hash"`
	Files      []fileDescription  `json:"files"`
}

type machineDescription struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Platform string `json:"platform"`
}

type originDescription struct {
	Format   string `json:"format"`
	Source   string `json:"source"`
	Location string `json:"location"`
}

type fileDescription struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Root   string `json:"root,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

func writeDescription(repository *repo.Repository, point *repo.Point, dir string, files []File, options Options) error {
	d := description{
		Machine: machineDescription{
			ID: point.Machine.Key.String(), Name: backup.EncodeName(point.Machine.Name), Platform: string(point.Machine.Key.Platform),
		},
		Point: point.ID.String(), Created: point.Created, Zone: point.Zone,
		Origin: originDescription{
			Format: point.Origin.Format, Source: backup.EncodeName(point.Origin.Source), Location: backup.EncodeName(point.Origin.Location),
		},
		Repository: repository.ID(), Hash: repository.Description().Hash,
	}
	for _, f := range files {
		d.Files = append(d.Files, fileDescription{
			Path: filepath.ToSlash(f.Path), Role: string(f.Role), Name: backup.EncodeName(f.Name), Size: f.Size, Root: f.Root, SHA256: f.SHA256,
		})
	}
	content, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	draft, err := newDraft(filepath.Join(dir, restoreJSON))
	if err != nil {
		return err
	}
	defer draft.drop()
	if _, err := draft.file.Write(append(content, '\n')); err != nil {
		return full(err, draft.path)
	}
	return draft.publish(options.Force)
}

// commands are what brings the machine back on its platform. They are printed, never run.
func commands(point *repo.Point, dir string, files []File) []string {
	at := func(f File) string { return Quote(filepath.Join(dir, f.Path)) }
	var disks, archives []File
	config := ""
	for _, f := range files {
		switch {
		case f.Role == backup.RoleDisk:
			disks = append(disks, f)
		case f.Role == backup.RoleArchive:
			archives = append(archives, f)
		case f.Role == backup.RoleConfiguration && config == "" && isMachineConfiguration(f.Name):
			config = at(f)
		}
	}
	switch point.Machine.Key.Platform {
	case backup.PlatformProxmox:
		return proxmoxCommands(point, at, config, disks, archives)
	case backup.PlatformLibvirt:
		lines := []string{"# set each <source file='…'/> in " + config + " to the restored disk, then:"}
		for _, f := range disks {
			lines = append(lines, "# "+Quote(f.Name)+": "+at(f)+" (driver type='raw')")
		}
		return append(lines, "virsh define "+config)
	}
	var lines []string
	for _, f := range disks {
		qcow2 := strings.TrimSuffix(filepath.Join(dir, f.Path), ".raw") + ".qcow2"
		lines = append(lines, "qemu-img convert -f raw -O qcow2 "+at(f)+" "+Quote(qcow2))
	}
	return lines
}

func isMachineConfiguration(name string) bool {
	return name == "qemu-server.conf" || (strings.HasPrefix(name, "vmconfig.") && strings.HasSuffix(name, ".xml"))
}

func proxmoxCommands(point *repo.Point, at func(File) string, config string, disks, archives []File) []string {
	id := point.Machine.Key.NativeID
	for _, r := range id {
		if r < '0' || r > '9' {
			id = "<VMID>"
			break
		}
	}
	var lines []string
	for _, f := range archives {
		lines = append(lines, "pct restore "+id+" "+at(f)+" --storage <STORAGE>")
	}
	if len(disks) == 0 {
		return lines
	}
	lines = append(lines, "qm create "+id+" --name "+Quote(point.Machine.Name)+"   # then take over the settings in "+config)
	for i, f := range disks {
		bus := strings.TrimPrefix(f.Name, "drive-")
		if bus == f.Name || strings.ContainsFunc(bus, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
			bus = fmt.Sprintf("scsi%d", i)
		}
		lines = append(lines, "qm set "+id+" --"+bus+" <STORAGE>:0,import-from="+at(f))
	}
	return lines
}

// Quote makes text one word for a POSIX shell. Control characters are encoded: what is printed is safe to look at.
func Quote(text string) string {
	text = backup.EncodeName(text)
	plain := text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+:@%,=", r)
	})
	if plain {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
