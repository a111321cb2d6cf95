package format

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func describe(t testing.TB, change func(*Description)) []byte {
	d := NewDescription(HashBLAKE3, 128<<10, time.Date(2026, 11, 22, 1, 0, 0, 5, time.FixedZone("CET", 3600)))
	change(&d)
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseDescription(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*Description)
		want   error
	}{
		{"as made", func(*Description) {}, nil},
		{"other hash", func(d *Description) { d.Hash = "hmac-sha-256" }, nil},
		{"least block size", func(d *Description) { d.BlockSize = MinBlockSize }, nil},
		{"greatest block size", func(d *Description) { d.BlockSize = MaxBlockSize }, nil},
		{"optional feature", func(d *Description) { d.OptionalFeatures = 4 }, nil},
		{"other format", func(d *Description) { d.Format = "other" }, ErrCorrupt},
		{"version 0", func(d *Description) { d.Version = 0 }, ErrCorrupt},
		{"negative version", func(d *Description) { d.Version = -1 }, ErrCorrupt},
		{"no id", func(d *Description) { d.ID = Name{} }, ErrCorrupt},
		{"version 2", func(d *Description) { d.Version = 2 }, ErrNewer},
		{"encrypted", func(d *Description) { d.Encrypt(Name{1}) }, nil},
		{"encrypted, its bit not set", func(d *Description) { d.Encrypt(Name{1}); d.RequiredFeatures = 0 }, ErrCorrupt},
		{"encrypted by its bit alone", func(d *Description) { d.RequiredFeatures = RequiredEncrypted }, ErrCorrupt},
		{"encrypted by its key check alone", func(d *Description) { d.KeyCheck = Name{1} }, ErrCorrupt},
		{"encrypted without a key check", func(d *Description) { d.Encrypt(Name{}) }, ErrCorrupt},
		{"unknown requirement", func(d *Description) { d.RequiredFeatures = 2 }, ErrNewer},
		{"encrypted, and unknown requirement", func(d *Description) { d.Encrypt(Name{1}); d.RequiredFeatures |= 2 }, ErrNewer},
		{"unknown hash", func(d *Description) { d.Hash = "md5" }, ErrNewer},
		{"no block size", func(d *Description) { d.BlockSize = 0 }, ErrCorrupt},
		{"small blocks", func(d *Description) { d.BlockSize = MinBlockSize / 2 }, ErrCorrupt},
		{"large blocks", func(d *Description) { d.BlockSize = MaxBlockSize * 2 }, ErrCorrupt},
		{"odd blocks", func(d *Description) { d.BlockSize = MinBlockSize + 512 }, ErrCorrupt},
		{"negative blocks", func(d *Description) { d.BlockSize = -MinBlockSize }, ErrCorrupt},
	} {
		raw := describe(t, c.change)
		d, algorithm, err := ParseDescription(raw)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if err == nil && (algorithm.String() != d.Hash || !d.Created.Equal(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))) {
			t.Errorf("%s: hash %s, created %s", c.what, algorithm, d.Created)
		}
	}
}

func FuzzParseDescription(f *testing.F) {
	good := describe(f, func(*Description) {})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(strings.Replace(string(good), "131072", "1e99", 1)))
	f.Add([]byte(`{"format":"ferry-repository","version":9}`))
	f.Add([]byte(strings.Replace(string(good), "00:00:00Z", "00:00:00+01:00", 1)))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, algorithm, err := ParseDescription(raw)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrNeedsKey) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if d.ID.IsZero() || d.Version != Version || d.RequiredFeatures != 0 || CheckBlockSize(d.BlockSize) != nil {
			t.Fatalf("accepted %+v", d)
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err) // for example a year that JSON has no room for
		}
		back, other, err := ParseDescription(again)
		if err != nil || other != algorithm || !back.Created.Equal(d.Created) {
			t.Fatalf("%+v reads back as %+v, %v", d, back, err)
		}
		back.Created = d.Created // equal times may still have zones that are other values
		if back != d {
			t.Fatalf("%+v reads back as %+v", d, back)
		}
	})
}
