package virtnbdbackup

import (
	"strings"
	"testing"

	"ferry/internal/source/virtnbdbackup/streamtest"
)

// FuzzNamesAndXML holds what names, domains and checkpoints say to their rules: names of files that are looked for lead nowhere
// else, and disks are told apart.
func FuzzNamesAndXML(f *testing.F) {
	f.Add("vda.inc.virtnbdbackup.1.data", []byte(streamtest.Domain("vm", "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", "vda", "vdb")))
	f.Add("a.b.diff.1795322413.data.partial", []byte(streamtest.Checkpoint("virtnbdbackup.1", 1795322413, []string{"vda"}, []string{"hdc"})))
	f.Add("backup.full.11222026050000.log", []byte("<domain><name>x</name><os><loader>../..</loader><nvram>/</nvram><kernel>a/..</kernel></os></domain>"))
	f.Add(".full.data", []byte("<domain><uuid>x</uuid><devices><disk/><disk><target dev='a'/></disk><disk><target dev='a'/></disk></devices></domain>"))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if data, ok := parseDataName(name); ok {
			if data.disk == "" || data.ident == "" || !strings.HasPrefix(name, data.disk+"."+string(data.level)) {
				t.Fatalf("%q is %+v", name, data)
			}
			if data.partial != strings.HasSuffix(name, ".partial") || isDiffIdent(data.ident) != (data.level == levelDiff) {
				t.Fatalf("%q is %+v", name, data)
			}
		}
		if log, ok := parseLogName(name); ok && (log.name != name || log.started.IsZero()) {
			t.Fatalf("%q is %+v", name, log)
		}
		if d, err := parseDomain(text); err == nil {
			seen := map[string]bool{}
			for _, disk := range d.Disks {
				if dev := disk.Target.Dev; dev == "" || seen[dev] {
					t.Fatalf("disks %+v", d.Disks)
				} else {
					seen[dev] = true
				}
			}
			for _, file := range d.firmware {
				if strings.Contains(file, "/") || file == "." || file == ".." {
					t.Fatalf("firmware %q", file)
				}
			}
			if d.Name == "" && d.UUID == "" || d.UUID != "" && !uuidPattern.MatchString(d.UUID) {
				t.Fatalf("domain %q, %q", d.Name, d.UUID)
			}
		}
		if c, err := parseCheckpoint(text, "virtnbdbackup.1"); err == nil && (c.created.Unix() <= 0 || c.created.Year() > 40000) {
			t.Fatalf("created %v", c.created)
		}
	})
}
