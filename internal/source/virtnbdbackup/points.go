package virtnbdbackup

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// point makes the point of a candidate.
func (f *folder) point(c candidate) source.Point {
	machine := f.machine
	config := f.configs[c.ident]
	if config != nil {
		machine = config.machine(f.root.Name())
	}
	stamp := f.stampOf(c)
	plan := &plan{root: f.root, id: backup.NewPointID(machine.Key, stamp.native)}
	f.plans[c.files] = plan
	if c.level == levelInc || c.level == levelDiff {
		plan.parent = f.plans[f.parentFiles(c)] // candidates come in the chain's order
	}
	fault := f.plan(c, config, plan)
	p := source.Point{Point: backup.Point{
		ID: plan.id, Machine: machine, Created: stamp.created, Zone: stamp.zone,
		State:  stateOf(fault),
		Origin: backup.Origin{Format: Name, Source: f.root.Name(), NativePointID: stamp.native, Location: f.path},
	}}
	for _, object := range plan.objects() {
		p.Objects = append(p.Objects, object.Object)
	}
	p.Files = plan.files
	if fault != nil {
		p.Reason = reasonText(fault)
		return p
	}
	p.Opener = plan
	return p
}

// plan finds the files of a backup, and says why it cannot be read; nil if nothing speaks against it.
func (f *folder) plan(c candidate, config *domain, plan *plan) error {
	if fault := f.unfinished(c); fault != nil {
		for _, name := range f.disks(c.files) {
			plan.use(f.identityOf(fileKey{name, c.files}), f.partials[fileKey{name, c.files}].FileIdentity)
		}
		return fault
	}
	plan.use(f.entries[vmconfigName(c.ident)].FileIdentity)
	if config == nil {
		fault := f.configFaults[c.ident]
		if !errors.Is(fault, errCutShort) {
			return fault
		}
		if f.superseded(c) {
			return fmt.Errorf("%w: %w", backup.ErrBroken, fault)
		}
		return fmt.Errorf("%w: %w", backup.ErrLocked, fault)
	}
	if full := f.configs[f.fullIdent]; c.level != levelCopy && full != nil && full.UUID != config.UUID {
		return fmt.Errorf("%w: it is of machine %s, its full backup of %s", backup.ErrBroken, config.UUID, full.UUID)
	}
	var fault error
	for _, disk := range config.Disks {
		node, err := f.diskOf(c, disk)
		if err != nil && fault == nil {
			fault = err
		}
		if node == nil {
			continue
		}
		layers := node.files()
		for _, file := range layers {
			plan.use(file.identity)
		}
		plan.disks = append(plan.disks, plannedDisk{name: disk.Target.Dev, layers: layers})
	}
	if fault == nil && len(plan.disks) == 0 {
		fault = fmt.Errorf("%w: there is no file of any of its disks", backup.ErrBroken)
	}
	f.planExtras(c, config, plan)
	return fault
}

// unfinished says whether a backup is being written, or was left unfinished.
func (f *folder) unfinished(c candidate) error {
	idents := []string{c.files}
	if c.level == levelFull {
		idents = append(idents, identCopy) // of raw disks
	}
	found := false
	for _, ident := range idents {
		for _, name := range f.disks(ident) {
			found = true
			if partial, ok := f.partials[fileKey{name, ident}]; ok {
				return fmt.Errorf("%w: %s is being written, or was left by a backup that failed", backup.ErrLocked, backup.EncodeName(partial.Name))
			}
		}
	}
	if f.hasConfig(c.ident) {
		return nil
	}
	missing := vmconfigName(c.ident)
	switch {
	case f.superseded(c):
		return fmt.Errorf("%w: %s is missing, and later backups are there", backup.ErrBroken, missing)
	case !found:
		return fmt.Errorf("%w: %s.cpt names it, nothing of it is there yet", backup.ErrLocked, backup.EncodeName(f.cptMachine))
	}
	return fmt.Errorf("%w: %s is not there yet: the backup is still running, or failed", backup.ErrLocked, missing)
}

// diskOf returns the chain of one of the machine's disks; nil with no error if the backup leaves the disk out.
func (f *folder) diskOf(c candidate, disk disk) (*node, error) {
	name := disk.Target.Dev
	keys := []fileKey{{name, c.files}}
	if c.level == levelFull {
		keys = append(keys, fileKey{name, identCopy})
	}
	for _, key := range keys {
		if f.files[key] == nil {
			continue
		}
		n := f.chainOf(key)
		if n.fault != nil {
			return nil, n.reason(c.files)
		}
		return n, f.rawSize(c, n.file)
	}
	if reason := f.lost(c, disk); reason != "" {
		return nil, fmt.Errorf("%w: disk %s has no file in this backup: %s", backup.ErrBroken, backup.EncodeName(name), reason)
	}
	return nil, nil
}

// lost says why a disk without a file should have one; "" if the disk was left out of the backup. A disk that was
// backed up has a bitmap in the checkpoint, and its image's description beside the data.
func (f *folder) lost(c candidate, disk disk) string {
	name := disk.Target.Dev
	if f.describes(c, name) {
		return "its .qcow.json says that it was backed up"
	}
	ident := c.ident
	if c.level == levelDiff {
		ident = f.parentOf(c)
	}
	if known := f.checkpoint(ident); c.level != levelCopy && known.checkpoint != nil {
		saved, listed := known.disks[name]
		if listed && !saved {
			return ""
		}
		if listed && c.level != levelDiff {
			return "its checkpoint says that it was backed up"
		}
	}
	if !disk.saved() {
		return ""
	}
	for _, other := range f.disks(c.files) {
		if f.describes(c, other) {
			return "" // the descriptions of other disks are there, this one's is not
		}
	}
	return "nothing says that it was left out"
}

// describes is true if the description of the disk's image is there.
func (f *folder) describes(c candidate, disk string) bool {
	_, ok := f.entries[disk+"."+c.ident+".qcow.json"]
	return ok
}

// rawSize compares a plain image, which has no end mark, with the description of the disk it was made from.
func (f *folder) rawSize(c candidate, file *dataFile) error {
	name := file.disk + "." + c.ident + ".qcow.json"
	if _, ok := f.entries[name]; !file.raw || !ok {
		return nil
	}
	var description struct {
		VirtualSize int64 `json:"virtual-size"`
	}
	text, _, err := f.root.ReadFile(f.at(name), backup.InlineLimit)
	if err != nil || json.Unmarshal(text, &description) != nil || description.VirtualSize <= 0 {
		return nil // it proves nothing, then
	}
	if description.VirtualSize != file.size {
		return inFile(file.identity.Path, fmt.Errorf("%w: %d bytes of a disk of %d", backup.ErrBroken, file.size, description.VirtualSize))
	}
	return nil
}

// planExtras adds configuration, firmware and the log.
func (f *folder) planExtras(c candidate, config *domain, plan *plan) {
	add := func(role backup.Role, name string, identity source.FileIdentity) {
		plan.extras = append(plan.extras, plannedExtra{role: role, name: name, identity: identity})
		if name != vmconfigName(c.ident) {
			plan.use(identity)
		}
	}
	add(backup.RoleConfiguration, vmconfigName(c.ident), f.entries[vmconfigName(c.ident)].FileIdentity)
	if known := f.checkpoint(c.ident); c.level != levelDiff && known.checkpoint != nil {
		add(backup.RoleConfiguration, c.ident+".xml", *known.identity)
	}
	for _, name := range f.sidecars[c.ident] {
		role := backup.RoleFirmware
		if strings.HasSuffix(name, ".qcow.json") || strings.HasPrefix(name, "autostart.") {
			role = backup.RoleConfiguration
		}
		add(role, name, f.entries[name].FileIdentity)
	}
	if name := f.logOf(c); name != "" {
		add(backup.RoleLog, name, f.entries[name].FileIdentity)
	}
	suffix := "." + c.ident
	expected := []string{"autostart" + suffix}
	if c.level == levelCopy {
		suffix = ""
	}
	for _, name := range config.firmware {
		expected = append(expected, name+suffix)
	}
	for _, disk := range plan.disks {
		expected = append(expected, disk.name+"."+c.ident+".qcow.json")
	}
	for _, name := range expected {
		if !slices.Contains(f.sidecars[c.ident], name) && !strings.Contains(name, "/") {
			plan.absent = append(plan.absent, f.at(name))
		}
	}
}
