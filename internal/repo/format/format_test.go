package format

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCheckPrelude(t *testing.T) {
	good := AppendPrelude(nil, MagicPack)
	if len(good) != PreludeSize || string(good) != "FerryPak\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" {
		t.Fatalf("prelude %q", good)
	}
	with := func(at int, value uint32) []byte {
		raw := AppendPrelude(nil, MagicPack)
		binary.LittleEndian.PutUint32(raw[at:], value)
		return raw
	}
	for _, c := range []struct {
		what string
		file []byte
		want error
	}{
		{"good", good, nil},
		{"good with content", append(AppendPrelude(nil, MagicPack), 1, 2), nil},
		{"optional feature", with(16, 1<<31), nil},
		{"empty", nil, ErrCorrupt},
		{"short", good[:19], ErrCorrupt},
		{"other magic", AppendPrelude(nil, MagicIndex), ErrCorrupt},
		{"version 0", with(8, 0), ErrCorrupt},
		{"version 2", with(8, 2), ErrNewer},
		{"encrypted", with(12, RequiredEncrypted), nil},
		{"encrypted and more", with(12, 3), ErrNewer},
		{"unknown requirement", with(12, 1<<31), ErrNewer},
	} {
		if err := CheckPrelude(c.file, MagicPack); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if got, want := HasUnknownOptional(c.file), c.what == "optional feature"; got != want {
			t.Errorf("%s: unknown optional features: %v", c.what, got)
		}
	}
	for _, magic := range []Magic{MagicLog, MagicCheckpoint, MagicPoint, MagicPack, MagicIndex, MagicPartial} {
		file := AppendPrelude(nil, magic)
		if IsEncrypted(file) {
			t.Errorf("%s is encrypted", magic)
		}
		MarkEncrypted(file)
		err := CheckPrelude(file, magic)
		if may := magic == MagicPoint || magic == MagicPack; !IsEncrypted(file) || may != (err == nil) || !may && !errors.Is(err, ErrNewer) {
			t.Errorf("%s, encrypted: %v", magic, err)
		}
	}
}

func TestIDText(t *testing.T) {
	id, name := ID{0xab, 31: 1}, Name{0xcd, 15: 2}
	text, err := json.Marshal([]any{id, name})
	want := `["ab` + strings.Repeat("00", 30) + `01","cd` + strings.Repeat("00", 14) + `02"]`
	if err != nil || string(text) != want {
		t.Fatalf("as JSON %s, %v; want %s", text, err, want)
	}
	var gotID ID
	var gotName Name
	if err := json.Unmarshal(text, &[]any{&gotID, &gotName}); err != nil || gotID != id || gotName != name {
		t.Fatalf("read back as %s and %s, %v", gotID, gotName, err)
	}
	for _, bad := range []string{"", "00", id.String() + "0", id.String()[1:], "x" + id.String()[1:], id.String() + "00"} {
		if err := gotID.UnmarshalText([]byte(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("id %q: %v, want ErrCorrupt", bad, err)
		}
		if err := gotName.UnmarshalText([]byte(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("name %q: %v, want ErrCorrupt", bad, err)
		}
	}
	if !(ID{}).IsZero() || !(Name{}).IsZero() || id.IsZero() || name.IsZero() || RandomName().IsZero() {
		t.Error("zero or random names are not what they say")
	}
}
