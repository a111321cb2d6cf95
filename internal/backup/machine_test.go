package backup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

func TestMachineKeyCanonical(t *testing.T) {
	const uuid = "3f1d0000-0000-4000-8000-00000000abcd"
	for _, c := range []struct {
		what string
		key  backup.MachineKey
		want string
	}{
		{
			"all parts absent", backup.MachineKey{},
			"\x14\x00\x00\x00ferry v1 machine key\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		},
		{
			"a source's name stands in for a UUID", backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump"),
			"\x14\x00\x00\x00ferry v1 machine key\x07\x00\x00\x00proxmox\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00dump\x03\x00\x00\x00100",
		},
		{
			"with a UUID, in lower case, it does not", backup.NewMachineKey(backup.PlatformProxmox, "100", strings.ToUpper(uuid), "dump"),
			"\x14\x00\x00\x00ferry v1 machine key\x07\x00\x00\x00proxmox\x00\x00\x00\x00\x24\x00\x00\x00" + uuid + "\x00\x00\x00\x00\x03\x00\x00\x00100",
		},
	} {
		if got := string(c.key.Canonical()); got != c.want {
			t.Errorf("%s: canonical key %q, want %q", c.what, got, c.want)
		}
	}
}

func TestMachineKeyString(t *testing.T) {
	for _, c := range []struct {
		key  backup.MachineKey
		want string
	}{
		{backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump"), "proxmox/dump/100"},
		{backup.NewMachineKey(backup.PlatformProxmox, "100", "AB", "dump"), "proxmox/100/ab"},
		{backup.NewMachineKey(backup.PlatformLibvirt, "AB", "ab", ""), "libvirt/AB"},
		{backup.MachineKey{Platform: backup.PlatformImage, Instance: "a/b", NativeID: "x y\n"}, "image/a%2Fb/x%20y%0A"},
		{backup.MachineKey{Platform: "a/b \x1b[2J\xff", NativeID: "1"}, "a%2Fb%20%1B[2J%FF/1"},
	} {
		if got := c.key.String(); got != c.want {
			t.Errorf("%#v prints as %q, want %q", c.key, got, c.want)
		}
	}
}

func anyKey() *rapid.Generator[backup.MachineKey] {
	part := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "ab"}), anyName())
	return rapid.Custom(func(t *rapid.T) backup.MachineKey {
		return backup.MachineKey{
			Platform: backup.Platform(part.Draw(t, "platform")), Instance: part.Draw(t, "instance"), UUID: part.Draw(t, "uuid"),
			SourceName: part.Draw(t, "source"), NativeID: part.Draw(t, "native"),
		}
	})
}

// Two machines are one exactly if their canonical keys are: no choice of parts can imitate another.
func TestCanonicalKeysDoNotCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyKey().Draw(t, "a"), anyKey().Draw(t, "b")
		if same := bytes.Equal(a.Canonical(), b.Canonical()); same != (a == b) {
			t.Fatalf("%#v and %#v: canonical keys equal: %v", a, b, same)
		}
		one, other := rapid.String().Draw(t, "one"), rapid.String().Draw(t, "other")
		if same := backup.NewPointID(a, one) == backup.NewPointID(b, other); same != (a == b && one == other) {
			t.Fatalf("%#v %q and %#v %q: point ids equal: %v", a, one, b, other, same)
		}
	})
}

func TestPointIDText(t *testing.T) {
	id := backup.NewPointID(backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump"), "native")
	text, err := json.Marshal(id)
	if err != nil || len(text) != 66 || !strings.HasPrefix(id.String(), id.Short()) || len(id.Short()) != 12 {
		t.Fatalf("point id %s, short %s, as JSON %s, %v", id, id.Short(), text, err)
	}
	var back backup.PointID
	if err := json.Unmarshal(text, &back); err != nil || back != id {
		t.Fatalf("read back as %s, %v", back, err)
	}
	for _, bad := range []string{"", "00", id.String() + "00", id.String()[1:], "g" + id.String()[1:]} {
		if _, err := backup.ParsePointID(bad); err == nil {
			t.Errorf("ParsePointID(%q) gave no error", bad)
		}
	}
}

func TestErrorNamesThePlace(t *testing.T) {
	inner := &backup.Error{Offset: backup.NoOffset, Hint: "inner hint", Err: backup.ErrDamaged}
	outer := &backup.Error{Machine: "web\n01", Point: "ab12", Object: "sda", Offset: 4096, Hint: "outer hint", Err: fmt.Errorf("reading: %w", inner)}
	if got, want := outer.Error(), "machine web%0A01, point ab12, sda, offset 4096: reading: damaged"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if !errors.Is(outer, backup.ErrDamaged) || backup.Hint(outer) != "inner hint" || inner.Error() != "damaged" {
		t.Errorf("cause or hint lost: %q, %q", backup.Hint(outer), inner)
	}
	if got := backup.Hint(errors.New("plain")); got != "" {
		t.Errorf("hint %q from nowhere", got)
	}
}

func TestExtentEnd(t *testing.T) {
	if end := (backup.Extent{Offset: 3, Length: 4}).End(); end != 7 {
		t.Errorf("end %d, want 7", end)
	}
}
