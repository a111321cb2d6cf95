package image

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// lookBack is how many earlier points of a machine are considered as what a point is an increment of.
const lookBack = 256

// points turns a machine's states into points, oldest first.
func (s *scan) points(m *machine) []source.Point {
	var points []source.Point
	known := map[backup.PointID]bool{}
	ids := make([]backup.PointID, len(m.states))
	for k, st := range m.states {
		native := st.native()
		ids[k] = backup.NewPointID(m.key, native)
		p := source.Point{Point: backup.Point{
			ID:      ids[k],
			Machine: backup.Machine{Key: m.key, Name: m.name},
			Created: st.created, Zone: st.zone,
			Origin: backup.Origin{Format: Format{}.Name(), Source: s.root.Name(), NativePointID: native, Location: m.location},
		}}
		if known[p.ID] {
			continue
		}
		known[p.ID] = true
		bad := st.verdict()
		p.State, p.Reason = bad.state, bad.reason
		if p.State == "" {
			p.State = backup.StateComplete
		}
		seen := map[*file]bool{}
		for _, disk := range st.disks {
			p.Objects = append(p.Objects, disk.object())
			for _, f := range disk.top.layers() {
				if !seen[f] {
					seen[f] = true
					p.Files = append(p.Files, f.FileIdentity)
				}
			}
		}
		for _, entry := range m.beside {
			p.Objects = append(p.Objects, backup.Object{Role: configurationRole(entry), Name: entry.Name, Size: entry.Size, Format: "file"})
		}
		if p.State == backup.StateComplete {
			p.Opener = &opener{root: s.root, disks: st.disks, beside: m.beside, ancestors: m.ancestors(k, ids)}
		}
		points = append(points, p)
	}
	return points
}

// native identifies a state in its format: path, size and mtime in nanoseconds of each file of each chain, top first.
// Of a file whose internal snapshot is meant, the snapshot's own identity stands instead of size and mtime, which change
// with the active state while the snapshot does not. Names are escaped, so the separators are unambiguous.
func (st *state) native() string {
	var chains []string
	for _, disk := range st.disks {
		var files []string
		for k, f := range disk.top.layers() {
			if k == 0 && disk.snapshot != active {
				snapshot := f.snapshots[disk.snapshot]
				files = append(files, fmt.Sprintf("%s;snapshot;%s;%s;%s", url.PathEscape(f.Path),
					url.PathEscape(snapshot.ID), url.PathEscape(snapshot.Name), nanoseconds(snapshot.Created)))
				continue
			}
			files = append(files, fmt.Sprintf("%s;%d;%s", url.PathEscape(f.Path), f.Size, nanoseconds(f.ModTime)))
		}
		chains = append(chains, strings.Join(files, ","))
	}
	if len(st.disks) == 0 {
		// A described point without any of its files: its time and reason are all there is.
		return "nothing;" + nanoseconds(st.given) + ";" + url.PathEscape(st.trouble.reason)
	}
	return strings.Join(chains, "/")
}

// nanoseconds writes a time of any year as nanoseconds since 1970.
func nanoseconds(t time.Time) string { return fmt.Sprintf("%d%09d", t.Unix(), t.Nanosecond()) }

// verdict says what is wrong with a state: the gravest trouble of its chains. In a machine of several disks the
// reason names the file.
func (st *state) verdict() trouble {
	verdict := st.trouble
	for _, disk := range st.disks {
		bad := disk.top.chained
		if bad.state != "" && len(st.disks) > 1 {
			bad.reason = backup.EncodeName(disk.top.Path) + ": " + bad.reason
		}
		verdict = worse(verdict, bad)
	}
	return verdict
}

// object describes a disk as far as headers tell.
func (d diskState) object() backup.Object {
	object := backup.Object{Role: backup.RoleDisk, Name: d.name, Size: d.top.size, Format: string(d.top.format)}
	if d.snapshot != active {
		object.Size = d.top.snapshots[d.snapshot].Size
	}
	return object
}

// ancestors are the earlier points of the machine whose every disk is a lower part of the same disk's chain in state k.
// The ids are those of the states up to k.
func (m *machine) ancestors(k int, ids []backup.PointID) []backup.PointID {
	var found []backup.PointID
	for n := k - 1; n >= max(0, k-lookBack); n-- {
		if m.states[k].above(&m.states[n]) {
			found = append(found, ids[n])
		}
	}
	return found
}

// above is true if each disk of the older state is what the same disk of this state stands on.
func (st *state) above(older *state) bool {
	if len(older.disks) == 0 || len(older.disks) > len(st.disks) {
		return false
	}
	tops := map[string]diskState{}
	for _, disk := range st.disks {
		tops[disk.name] = disk
	}
	for _, disk := range older.disks {
		mine, there := tops[disk.name]
		if !there || disk.snapshot != active {
			return false
		}
		if mine.top == disk.top && mine.snapshot == active {
			continue
		}
		f := mine.top.below
		for f != nil && f != disk.top {
			f = f.below
		}
		if f == nil {
			return false
		}
	}
	return true
}
