package virtnbdbackup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// point makes the point of a candidate.
func (f *folder) point(c candidate) source.Point {
	machine := f.machine
	config := f.configs[c.ident]
	if config != nil {
		machine = config.machine(f.root)
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
	plan.use(f.entries[f.configName(c)].FileIdentity)
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
	fault := f.diffParents(c)
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
	if fault == nil {
		fault = f.checkpointAwaited(c)
	}
	f.planExtras(c, config, plan)
	return fault
}

// configName is the name of a backup's vmconfig.
func (f *folder) configName(c candidate) string {
	if seconds, ok := f.diffConfigTimes[c.ident]; ok && c.level == levelDiff {
		return vmconfigName(strconv.FormatInt(seconds, 10))
	}
	return vmconfigName(c.ident)
}

// diffParents says that the files of a differential backup build on different checkpoints: no backup does that.
func (f *folder) diffParents(c candidate) error {
	if c.level != levelDiff {
		return nil
	}
	parent := ""
	for _, name := range f.disks(c.files) {
		file := f.files[fileKey{name, c.files}]
		if file == nil || file.fault != nil {
			continue
		}
		if parent != "" && file.meta.Parent != parent {
			return fmt.Errorf("%w: its files build on %s and on %s", backup.ErrBroken, parent, file.meta.Parent)
		}
		parent = file.meta.Parent
	}
	return nil
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
	if c.level == levelDiff {
		missing = "its vmconfig, named after the time at its end,"
	}
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
	reason := f.lacks(c, disk)
	switch {
	case reason == "":
		return nil, nil
	case c.level == levelDiff && !f.superseded(c):
		return nil, fmt.Errorf("%w: disk %s has no file in this backup yet: %s", backup.ErrLocked, backup.EncodeName(name), reason)
	}
	return nil, fmt.Errorf("%w: disk %s has no file in this backup: %s", backup.ErrBroken, backup.EncodeName(name), reason)
}

// What speaks for a disk that has no file.
const (
	lackDescribed = "its .qcow.json says that it was backed up"
	lackUnknown   = "nothing says that it was left out"
)

// lacks says why a disk without a file should have one; "" if the disk was left out of the backup. A disk that was
// backed up has a bitmap in the checkpoint, and its image's description beside the data.
func (f *folder) lacks(c candidate, disk disk) string {
	if c.level == levelDiff {
		return f.diffLacks(c, disk)
	}
	name := disk.Target.Dev
	if f.describes(c, name) {
		return lackDescribed
	}
	if known := f.checkpoint(c.ident); c.level != levelCopy && known.checkpoint != nil {
		if saved, listed := known.disks[name]; listed && !saved {
			return ""
		} else if listed {
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
	return lackUnknown
}

// describes is true if the description of the disk's image is there.
func (f *folder) describes(c candidate, disk string) bool {
	_, ok := f.descriptions[fileKey{disk, c.ident}]
	return ok
}

// planExtras adds configuration, firmware and the log.
func (f *folder) planExtras(c candidate, config *domain, plan *plan) {
	add := func(role backup.Role, name string, identity source.FileIdentity) {
		plan.extras = append(plan.extras, plannedExtra{role: role, name: name, identity: identity})
		if name != f.configName(c) {
			plan.use(identity)
		}
	}
	add(backup.RoleConfiguration, f.configName(c), f.entries[f.configName(c)].FileIdentity)
	if known := f.checkpoint(c.ident); c.level != levelDiff && known.checkpoint != nil {
		add(backup.RoleConfiguration, c.ident+".xml", *known.identity)
	} else if f.namedByCheckpoint(c) {
		plan.absent = append(plan.absent, f.checkpointPath(c.ident))
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
	f.planAbsent(c, config, plan)
}

// planAbsent notes the files that virtnbdbackup writes behind the vmconfig, and that are not there.
func (f *folder) planAbsent(c candidate, config *domain, plan *plan) {
	expect := func(names ...string) {
		for _, name := range names {
			if slices.Contains(f.sidecars[c.ident], name) || strings.Contains(name, "/") {
				return
			}
		}
		for _, name := range names {
			plan.absent = append(plan.absent, f.at(name))
		}
	}
	expect(f.lateNames(c, "autostart", "")...)
	for _, name := range config.firmware {
		if c.level == levelCopy {
			expect(name)
		} else {
			expect(f.lateNames(c, name, "")...)
		}
	}
	for _, disk := range plan.disks {
		if !f.describes(c, disk.name) {
			expect(f.lateNames(c, disk.name, ".qcow.json")...)
		}
	}
}
