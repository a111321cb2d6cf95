package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
)

// pushBackups makes what libvirt's push mode leaves: thin increments whose headers name the live disk.
func pushBackups(t *testing.T, dir string) {
	t.Helper()
	create(t, dir, "full.qcow2", "", "1M", "write -P 1 0 256k")
	create(t, dir, "inc1.qcow2", "", "1M", "write -P 2 64k 64k")
	create(t, dir, "inc2.qcow2", "", "1M", "write -P 3 128k 64k")
	for _, name := range []string{"inc1.qcow2", "inc2.qcow2"} {
		setBacking(t, filepath.Join(dir, name), "/var/lib/libvirt/images/live.qcow2")
	}
}

func TestPushModeBackups(t *testing.T) {
	dir := t.TempDir()
	pushBackups(t, dir)
	s := scanDir(t, dir)
	expect(t, s, "full.qcow2 complete full\ninc1.qcow2 broken inc1\ninc2.qcow2 broken inc2")
	if reason := s.of(t, "inc1", 1)[0].Reason; !strings.Contains(reason, "outside the source; a ferry.yaml can say") {
		t.Errorf("reason %q", reason)
	}
	writeFile(t, dir, "ferry.yaml", []byte(`
machines:
  - name: web
    uuid: 0AB5b3a4-9f5e-4f7f-8f63-4cf1c2a6a111
    chains:
      vda: [full.qcow2, inc1.qcow2, inc2.qcow2]
`))
	s = scanDir(t, dir)
	expect(t, s, `image/web/0ab5b3a4-9f5e-4f7f-8f63-4cf1c2a6a111 complete vda
image/web/0ab5b3a4-9f5e-4f7f-8f63-4cf1c2a6a111 complete vda
image/web/0ab5b3a4-9f5e-4f7f-8f63-4cf1c2a6a111 complete vda`)
	points := s.of(t, "web", 3)
	var base *backup.Base
	var before []byte
	for k, want := range []string{"\x01\x01\x01\x01", "\x01\x02\x01\x01", "\x01\x02\x03\x01"} {
		content := opened(t, points[k])
		got, kinds := readDisk(t, disk(t, content, 0), base, before)
		for n := range want {
			if got[n<<16] != want[n] || got[n<<16+65535] != want[n] {
				t.Errorf("point %d, cluster %d: %d", k, n, got[n<<16])
			}
		}
		if k > 0 && (kinds[backup.ExtentData] != 64<<10 || len(content.Ancestors()) != k) {
			t.Errorf("point %d: %v, %d ancestors", k, kinds, len(content.Ancestors()))
		}
		base, before = &backup.Base{ID: points[k].ID, Validator: content.Validator()}, got
	}
	if s.listing.Unknown() != 0 {
		t.Errorf("%d unknown files", s.listing.Unknown())
	}
}

func TestDescribedPoints(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "db/monday", []byte("mon"))
	writeFile(t, dir, "db/tuesday.bin", []byte("tue"))
	writeFile(t, dir, "db/other.raw", []byte("left out"))
	writeFile(t, dir, "db/db.conf", []byte("cpu=1"))
	writeFile(t, dir, "shared.raw", []byte("shared"))
	writeFile(t, dir, "single.raw", []byte("single"))
	writeFile(t, dir, "db/ferry.yaml", []byte(`
machines:
  - name: database
    points:
      - created: 2026-01-05T22:00:00+01:00
        disks: {root: monday, shared: ../shared.raw}
      - created: 2026-01-06T22:00:00Z
        disks: {root: [tuesday.bin], shared: ../shared.raw}
      - disks: {root: wednesday}
`))
	s := scanDir(t, dir)
	expect(t, s, "db%2Fdatabase complete root,shared,db.conf\ndb%2Fdatabase complete root,shared,db.conf\ndb%2Fdatabase broken db.conf\nsingle.raw complete single")
	points := s.of(t, "database", 3)
	if !points[0].Created.Equal(time.Date(2026, 1, 5, 21, 0, 0, 0, time.UTC)) || points[0].Zone != "+01:00" || points[1].Zone != "UTC" || points[0].Machine.Name != "database" {
		t.Errorf("%v %s, %s", points[0].Created, points[0].Zone, points[0].Machine.Name)
	}
	if reason := points[2].Reason; reason != "ferry.yaml, line 9: wednesday: it is missing" {
		t.Errorf("reason %q", reason)
	}
	if got, _ := readDisk(t, disk(t, opened(t, points[1]), 0), nil, nil); string(got) != "tue" {
		t.Errorf("content %q", got)
	}
	if s.listing.Unknown() != 1 {
		t.Errorf("%d unknown files, not other.raw", s.listing.Unknown())
	}
}

func TestDescriptionsThatAreRefused(t *testing.T) {
	for content, want := range map[string]string{
		"":                        "empty",
		"machines: []":            "no machines",
		"machines: 7":             "line 1",
		"machines:\n  - names: x": "line 2: field names not found",
		"machines:\n  - name: x":  "line 2: machine x needs either chains or points",
		"machines:\n  - name: x\n    uuid: zzz\n    chains: {a: b}":                              "line 3: \"zzz\" is not a UUID",
		"machines:\n  - name: x\n    chains: {a: [b], c: [d, e]}":                                "line 3: the chains of machine x have 1 and 2 files",
		"machines:\n  - name: x\n    chains: {a: {b: c}}":                                        "line 3: expected one value",
		"machines:\n  - name: x\n    chains: {a: []}":                                            "line 3: a list of 0 files",
		"machines:\n  - name: x\n    chains: {a: ['']}":                                          "line 3: a file name is missing",
		"machines:\n  - name: x\n    chains: {a: , b: c}":                                        "line 2: machine x has a disk without",
		"machines:\n  - name: x\n    points:\n      - disks: {a: }":                              "point 1 has a disk without",
		"machines:\n  - name: x\n    points:\n      - disks: {}":                                 "point 1 has no disks",
		"machines:\n  - name: x\n    points:\n      - created: yesterday\n        disks: {a: b}": "line 4: \"yesterday\" is not a time",
		"machines:\n  - &m {name: x, chains: {a: b}}\n  - *m":                                    "line 3: aliases",
		"machines: [{name: x, chains: {a: b}}]\n---\nmachines: []":                               "more than one document",
		"machines: [":                     "line 1",
		strings.Repeat("#", 1<<20) + "\n": "more than 1048576 bytes",
	} {
		_, err := parseDescription([]byte(content))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, not %q", content, err, want)
		}
	}
}

func TestBadDescriptionBreaksItsFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "a.raw", []byte("a"))
	writeFile(t, dir, "ferry.yaml", []byte("machines:\n  - name: x\n    chain: {}"))
	writeFile(t, dir, "vm/b.raw", []byte("b"))
	writeFile(t, dir, "big/ferry.yaml", make([]byte, descriptionLimit+1))
	writeFile(t, dir, "big/c.raw", []byte("c"))
	s := scanDir(t, dir)
	expect(t, s, "a.raw broken a\nbig%2F broken c\nvm%2F complete b")
	if reason := s.of(t, "a", 1)[0].Reason; reason != "ferry.yaml: line 3: field chain not found" {
		t.Errorf("reason %q", reason)
	}
}

func TestDescriptionContradictions(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.qcow2", "b.qcow2", "top.qcow2"} {
		create(t, dir, name, "", "1M")
	}
	writeFile(t, dir, "r.raw", []byte("r"))
	writeFile(t, dir, "ferry.yaml", []byte(`
machines:
  - {name: two, points: [{disks: {d: [a.qcow2, top.qcow2]}}, {disks: {d: [b.qcow2, top.qcow2]}}]}
  - {name: raw, chains: {d: [a.qcow2, r.raw]}}
  - {name: out, chains: {d: [../../etc/passwd]}}
`))
	s := scanDir(t, dir)
	for machine, want := range map[string]string{
		"raw": "a raw image cannot stand on another", "out": "lies outside the source",
	} {
		points := s.of(t, machine, map[string]int{"raw": 2, "out": 1}[machine])
		if last := points[len(points)-1]; last.State != backup.StateBroken || !strings.Contains(last.Reason, want) {
			t.Errorf("%s: %s %q", machine, last.State, last.Reason)
		}
	}
	for _, p := range s.of(t, "two", 1) {
		if p.State != backup.StateBroken || !strings.Contains(p.Reason, "stands on two different files") {
			t.Errorf("two: %s %q", p.State, p.Reason)
		}
	}
}

func FuzzFerryYAML(f *testing.F) {
	f.Add([]byte("machines:\n  - name: x\n    chains: {a: [b, c]}\n"))
	f.Add([]byte("machines:\n  - name: x\n    id: y\n    points:\n      - created: 2026-01-01T00:00:00Z\n        disks: {a: b}\n"))
	f.Add([]byte("machines:\n  - name: 0\n    chains: {0} "))
	f.Add([]byte("machines: &a [*a]"))
	f.Add([]byte("a: [[[[[[[["))
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 64<<10 {
			return
		}
		d, err := parseDescription(content)
		if (d == nil) != (err != nil) {
			t.Fatalf("%v, %v", d, err)
		}
		if err != nil {
			return
		}
		for k := range d.Machines {
			points := d.Machines[k].points()
			if len(points) == 0 || len(points) > len(content) {
				t.Fatalf("%d points", len(points))
			}
		}
	})
}
