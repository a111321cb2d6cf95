package vzdump

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

func TestGoldenScan(t *testing.T) {
	points, listing := scanListing(t, goldenFolder(t))
	if unknown := listing.Unknown(); unknown != 0 {
		t.Errorf("%d files are unknown", unknown)
	}
	for i, native := range []string{"9a847a59-387b-4c50-81fe-f4a9f23fb97d", "", "7d35e709-011d-4694-b16e-0c07e78bf7ff"} {
		p := points[i]
		key := backup.MachineKey{Platform: backup.PlatformProxmox, NativeID: "100", UUID: smbios}
		if p.Machine.Key != key || p.Machine.Name != "web01" {
			t.Errorf("point %d is of %+v", i, p.Machine)
		}
		if i == 0 && p.Origin.NativePointID != native {
			t.Errorf("point %d has native id %s", i, p.Origin.NativePointID)
		}
		if p.ID != backup.NewPointID(key, p.Origin.NativePointID) {
			t.Errorf("point %d has id %s", i, p.ID)
		}
		if want := time.Date(2026, 11, 20+i, 1, 0, 0, 0, time.UTC); !p.Created.Equal(want) || p.Zone != "UTC" {
			t.Errorf("point %d was created %v %s", i, p.Created, p.Zone)
		}
		if len(p.Objects) < 3 || p.Objects[0].Name != "drive-scsi0" || p.Objects[0].Size != 13633024 || p.Objects[1].Size != 4<<20 ||
			p.Objects[2].Role != backup.RoleConfiguration || !bytes.Contains(p.Objects[2].Inline, []byte("web01")) {
			t.Errorf("point %d holds %+v", i, p.Objects)
		}
		if p.Origin.Format != "vzdump" || p.Origin.Source != "pve" || p.Origin.Location != p.Files[0].Path {
			t.Errorf("point %d comes from %+v", i, p.Origin)
		}
	}
	content, err := points[0].Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	const file = "vzdump-qemu-100-2026_11_20-01_00_00"
	want := map[string]source.Object{
		file + ".log":               {Object: backup.Object{Role: backup.RoleLog, Inline: []byte("INFO: ok\n")}},
		file + ".vma.zst.notes":     {Object: backup.Object{Role: backup.RoleConfiguration, Inline: []byte("web01 first\n")}},
		file + ".vma.zst.protected": {Object: backup.Object{Role: backup.RoleConfiguration, Inline: []byte{}}},
	}
	for i, object := range content.Objects() {
		if listed := points[0].Objects[i]; listed.Name != object.Name || listed.Role != object.Role || listed.Size != object.Size {
			t.Errorf("object %d was listed as %+v and is %+v", i, listed, object)
		}
		if w, beside := want[object.Name]; beside {
			if object.Role != w.Role || !bytes.Equal(object.Inline, w.Inline) || object.Access != source.AccessInline {
				t.Errorf("%s is %+v", object.Name, object)
			}
			delete(want, object.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestRoles(t *testing.T) {
	archive, _ := testVMA(conf)
	p := onePoint(t, qemuBase+".vma", encodeVMA(t, archive))
	var roles []backup.Role
	for _, object := range p.Objects {
		roles = append(roles, object.Role)
	}
	if want := []backup.Role{backup.RoleDisk, backup.RoleFirmware, backup.RoleTPM, backup.RoleMemory, backup.RoleConfiguration}; !slices.Equal(roles, want) {
		t.Errorf("roles %v, want %v", roles, want)
	}
	if p.Objects[3].Size != backup.UnknownSize || !slices.Equal(p.Machine.Labels, []string{"prod", "web"}) {
		t.Errorf("RAM state of %d bytes, labels %q", p.Objects[3].Size, p.Machine.Labels)
	}
}

func TestStates(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	damaged := bytes.Clone(raw)
	damaged[9]++
	skippable := append(binary.LittleEndian.AppendUint32([]byte("\x50\x2a\x4d\x18"), 2<<20), make([]byte, 2<<20)...)
	archiveTar := testTar(t, "hostname: ct101\n")
	for _, test := range []struct {
		name, reason string
		content      []byte
		state        backup.State
	}{
		{qemuBase + ".vma", "", raw, backup.StateComplete},
		{qemuBase + ".vma.zst", "", compressed(t, raw, "zst"), backup.StateComplete},
		{qemuBase + ".vma.lzo", "", compressed(t, raw, "lzo"), backup.StateComplete},
		{lxcBase + ".tar", "", archiveTar, backup.StateComplete},
		{lxcBase + ".tgz", "", compressed(t, archiveTar, "gz"), backup.StateComplete},
		{qemuBase + ".vma", "empty", nil, backup.StateBroken},
		{qemuBase + ".vma", "ends inside", raw[:5000], backup.StateBroken},
		{qemuBase + ".vma", "magic", archiveTar, backup.StateBroken},
		{qemuBase + ".vma", "MD5", damaged, backup.StateBroken},
		{qemuBase + ".vma.zst", "zst", raw, backup.StateBroken},
		{qemuBase + ".vma.gz", "gz", raw, backup.StateBroken},
		{qemuBase + ".vma.gz", "cut off", compressed(t, raw, "gz")[:6], backup.StateBroken},
		{qemuBase + ".vma.lzo", "magic", raw, backup.StateBroken},
		{qemuBase + ".vma.bz2", "bz2", raw, backup.StateBroken},
		{qemuBase + ".vma.zst", "MD5", compressed(t, damaged, "zst"), backup.StateBroken},
		{qemuBase + ".vma.zst", "cut off", compressed(t, raw, "zst")[:20], backup.StateBroken},
		{qemuBase + ".vma.zst", "first 1048576 bytes", append(skippable, compressed(t, raw, "zst")...), backup.StateUnsupported},
		{lxcBase + ".tar", "tar header", raw, backup.StateBroken},
		{lxcBase + ".tar", "first header", archiveTar[:511], backup.StateBroken},
		{lxcBase + ".tar.zst", "tar header", compressed(t, make([]byte, 4096), "zst"), backup.StateBroken},
		{qemuBase + ".vma.xz", ".xz", raw, backup.StateUnsupported},
		{qemuBase + ".vma.zst.gpg", ".gpg", raw, backup.StateEncrypted},
		{qemuBase + ".vma.dat", "writing", compressed(t, raw, "zst")[:40000], backup.StateLocked},
		{qemuBase + ".dat", "writing", raw[:20000], backup.StateLocked},
		{qemuBase + ".vma.dat", "writing", nil, backup.StateLocked},
		{lxcBase + ".tar.dat", "writing", compressed(t, archiveTar, "gz")[:100], backup.StateLocked},
	} {
		p := onePoint(t, test.name, test.content)
		if p.State != test.state || !strings.Contains(p.Reason, test.reason) {
			t.Errorf("%s: %s (%s), want %s with %q", test.name, p.State, p.Reason, test.state, test.reason)
		}
	}
}

// A running backup of a machine whose archive says who it is has the id it will have when it is done.
func TestRunningKeepsItsIdentity(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	running := onePoint(t, qemuBase+".vma.dat", compressed(t, raw, "zst")[:200_000])
	done := onePoint(t, qemuBase+".vma.zst", compressed(t, raw, "zst"))
	if running.ID != done.ID || running.Machine.Key != done.Machine.Key {
		t.Errorf("%s became %s", running.Machine.Key, done.Machine.Key)
	}
}

func TestTemporaryFolder(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	folder := t.TempDir()
	put(t, folder, "dump/"+qemuBase+".vma", raw)
	put(t, folder, "dump/"+qemuBase+".tmp/qemu-server.conf", []byte(conf)) // of a backup that is done
	const next = "vzdump-qemu-100-2026_11_21-01_00_00"
	put(t, folder, "dump/"+next+".tmp/qemu-server.conf", []byte(conf))
	const other = "vzdump-qemu-200-2026_11_21-01_00_00"
	put(t, folder, "dump/"+other+".tmp/qemu-server.conf", []byte(conf))
	put(t, folder, "dump/"+other+".vma.dat", nil)
	points, listing := scanListing(t, folder)
	var got []string
	for _, p := range points {
		got = append(got, filepath.Base(p.Origin.Location)+" "+string(p.State)+" "+p.Machine.Key.String())
	}
	want := []string{
		next + ".tmp locked proxmox/100/" + smbios, // attributed: the folder's other backups of 100 agree
		other + ".vma.dat locked proxmox/pve/200",
		qemuBase + ".vma complete proxmox/100/" + smbios,
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if listing.Unknown() != 0 {
		t.Errorf("%d files are unknown", listing.Unknown())
	}
}

// Broken archives go to the machine that has their VMID only if there is no doubt.
func TestAttribution(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	folder := t.TempDir()
	put(t, folder, qemuBase+".vma", raw)
	put(t, folder, "vzdump-qemu-100-2026_11_21-01_00_00.vma", nil)
	points := scanFolder(t, folder)
	if points[1].State != backup.StateBroken || points[1].Machine.Key != points[0].Machine.Key || points[1].Machine.Name != "web01" {
		t.Errorf("broken point is of %s", points[1].Machine.Key)
	}
	archive, _ = testVMA(strings.Replace(conf, "3f1d", "0000", 1))
	archive.UUID[1]++
	put(t, folder, "vzdump-qemu-100-2026_11_19-01_00_00.vma", encodeVMA(t, archive))
	for _, p := range scanFolder(t, folder) {
		if want := backup.NewMachineKey(backup.PlatformProxmox, "100", "", "pve"); p.State == backup.StateBroken && p.Machine.Key != want {
			t.Errorf("broken point of a VMID used twice is of %s", p.Machine.Key)
		}
	}
}

// The identity of a point depends on nothing but the archive: not on the folder's place, nor on the reader's time zone.
func TestIdentity(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	tarball := testTar(t, "")
	first, second := t.TempDir(), t.TempDir()
	for _, place := range []string{first, filepath.Join(second, "a/dump")} {
		put(t, place, qemuBase+".vma", raw)
		put(t, place, lxcBase+".tar", tarball)
	}
	before := scanFolder(t, first)
	local := time.Local
	time.Local = time.FixedZone("far", 7*3600)
	defer func() { time.Local = local }()
	after := scanFolder(t, second)
	for i := range before {
		if before[i].ID != after[i].ID || !before[i].Created.Equal(after[i].Created) {
			t.Errorf("%s became %s", before[i].Origin.NativePointID, after[i].Origin.NativePointID)
		}
	}
	container := before[0]
	if container.Zone != "unknown" || !container.Created.Equal(created.Add(time.Hour)) || container.Machine.Key.String() != "proxmox/pve/101" {
		t.Errorf("container: %v %s %s", container.Created, container.Zone, container.Machine.Key)
	}

	// Another UUID is another machine; no UUID takes the source's name.
	archive, _ = testVMA("name: x\n")
	if key := onePoint(t, qemuBase+".vma", encodeVMA(t, archive)).Machine.Key; key.SourceName != "pve" || key.UUID != "" {
		t.Errorf("machine without UUID is %s", key)
	}
	// A non-standard name hides the VMID, not the rest.
	p := onePoint(t, "vzdump-qemu-kept\n\xff.vma", raw)
	if p.State != backup.StateComplete || p.Machine.Key.NativeID != "vzdump-qemu-kept\n\xff" || p.Machine.Key.UUID != smbios || !p.Created.Equal(created) {
		t.Errorf("non-standard: %s %+v %v", p.State, p.Machine.Key, p.Created)
	}
	if p.Origin.NativePointID != before[1].Origin.NativePointID {
		t.Errorf("native id %q", p.Origin.NativePointID)
	}
	p = onePoint(t, "vzdump-lxc-kept.tar", tarball)
	if p.State != backup.StateComplete || !p.Created.Equal(p.Files[0].ModTime) || p.Zone != "UTC" {
		t.Errorf("non-standard container: %s %v", p.State, p.Created)
	}
}

func TestContainerHead(t *testing.T) {
	p := onePoint(t, lxcBase+".tar.zst", compressed(t, testTar(t, "hostname: ct101\ntags: a;b\n"), "zst"))
	if p.Machine.Name != "ct101" || !slices.Equal(p.Machine.Labels, []string{"a", "b"}) || p.Objects[0].Name != lxcBase || !p.Objects[0].Shifting {
		t.Errorf("%+v, %+v", p.Machine, p.Objects)
	}
	// A compressed file that is vast when unpacked is not unpacked to find nothing.
	vast := &bytes.Buffer{}
	vast.Write(testTar(t, "")[512*2:][:512]) // a header of an entry, and nothing that is a configuration
	io.CopyN(vast, zeroReader{}, 64<<20)
	if p := onePoint(t, lxcBase+".tar.zst", compressed(t, vast.Bytes(), "zst")); p.Machine.Name != "101" {
		t.Errorf("named %q", p.Machine.Name)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Whatever files are like, no more than the limit is read of each.
func TestScanReadsLittle(t *testing.T) {
	folder := t.TempDir()
	random := make([]byte, 3<<20)
	for i := range random {
		random[i] = byte(i * i >> 7)
	}
	for i, extension := range []string{".vma", ".vma.zst", ".vma.gz", ".vma.lzo", ".vma.bz2", ".tar", ".tar.zst"} {
		content := random
		if extension == ".tar" {
			content = slices.Concat(testTar(t, "")[1024:1536], random)
		}
		if extension == ".vma.zst" {
			content = append(binary.LittleEndian.AppendUint32([]byte("\x50\x2a\x4d\x18"), 2<<20), random...)
		}
		put(t, folder, "vzdump-qemu-"+string(rune('1'+i))+"-2026_11_20-01_00_00"+extension, content)
		root, err := source.OpenRoot(folder, "pve")
		if err != nil {
			t.Fatal(err)
		}
		listing, err := source.List(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Format{}).Scan(context.Background(), listing); err != nil {
			t.Fatal(err)
		}
		if limit := int64(i+1) * source.ScanLimit; root.BytesRead() > limit {
			t.Errorf("with %s: %d bytes read, limit %d", extension, root.BytesRead(), limit)
		}
		root.Close()
	}
}

// What happens to files between the listing and the look.
func TestBetweenLooks(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	for name, test := range map[string]struct {
		change func(path string) error
		state  backup.State
	}{
		"grows":        {func(path string) error { return os.WriteFile(path, append(bytes.Clone(raw), 0), 0o644) }, backup.StateLocked},
		"touched":      {func(path string) error { return os.Chtimes(path, created, created) }, backup.StateLocked},
		"gone":         {os.Remove, ""},
		"now a pipe":   {func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) }, backup.StateLocked},
		"now a folder": {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, backup.StateLocked},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := put(t, folder, qemuBase+".vma", raw)
			root, err := source.OpenRoot(folder, "pve")
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			listing, err := source.List(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.change(path); err != nil {
				t.Fatal(err)
			}
			points, err := New().Scan(t.Context(), listing)
			if err != nil {
				t.Fatal(err)
			}
			if test.state == "" {
				if len(points) != 0 {
					t.Errorf("%d points of a file that is gone", len(points))
				}
			} else if len(points) != 1 || points[0].State != test.state {
				t.Errorf("%+v", points)
			}
		})
	}
}

// A pipe in the folder is never opened; a scan that is called off says so.
func TestPipeAndCancel(t *testing.T) {
	folder := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(folder, qemuBase+".vma"), 0o600); err != nil {
		t.Skip(err)
	}
	put(t, folder, lxcBase+".tar", testTar(t, ""))
	points, listing := scanListing(t, folder)
	if len(points) != 1 {
		t.Errorf("%d points", len(points))
	}
	fresh, err := source.List(context.Background(), listing.Root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New().Scan(ctx, fresh); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	archive, _ := testVMA(conf)
	folder := t.TempDir()
	path := put(t, folder, qemuBase+".vma", encodeVMA(t, archive))
	if p := scanFolder(t, folder)[0]; p.State != backup.StateComplete {
		t.Fatalf("as it is: %s, %s", p.State, p.Reason)
	}
	err := errors.Join(os.Chmod(path, 0), os.Chmod(folder, 0o755), os.Chmod(filepath.Dir(folder), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // who may read everything: for a moment we are somebody else
		const nobody, asItIs = 65534, -1
		if err := syscall.Setresuid(asItIs, nobody, asItIs); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setresuid(asItIs, 0, asItIs); err != nil {
				t.Fatal(err)
			}
		}()
	}
	if p := scanFolder(t, folder)[0]; p.State != backup.StateBroken {
		t.Errorf("unreadable file is %s", p.State)
	}
}

func TestSidecarsBelong(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	folder := t.TempDir()
	put(t, folder, qemuBase+".vma", raw)
	put(t, folder, qemuBase+".vma.gz", compressed(t, raw, "gz"))
	put(t, folder, qemuBase+".log", []byte("log"))
	put(t, folder, qemuBase+".vma.gz.notes", []byte("notes"))
	put(t, folder, "other/"+qemuBase+".vma.protected", nil)
	put(t, folder, "vzdump-qemu-7-2026_11_20-01_00_00.log", []byte("failed"))
	put(t, folder, qemuBase+".vma.sha256", []byte("0"))
	points, listing := scanListing(t, folder)
	if len(points) != 2 || len(points[0].Files) != 2 || len(points[1].Files) != 3 {
		t.Errorf("%d points", len(points))
	}
	if listing.Unknown() != 1 {
		t.Errorf("%d unknown files, want the checksum", listing.Unknown())
	}
}
