package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo/format"
)

var made = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

// fixed is a ring of known keys: never use it for anything else.
func fixed() *Ring {
	ring := &Ring{Repository: format.Name{1, 2, 3}, IDKey: Key{9}}
	ring.DataKeys = []DataKey{{Generation: 1, Key: Key{31: 1}, Created: made}}
	next := DataKey{Generation: 2, Key: Key{31: 2}, Created: made.Add(time.Hour), After: 1}
	next.Proof = prove(ring.DataKeys[0].Key, next)
	ring.DataKeys = append(ring.DataKeys, next)
	return ring
}

// TestGolden holds values that Python computed, from docs/format.md.
func TestGolden(t *testing.T) {
	ring := fixed()
	for _, c := range []struct{ what, got, want string }{
		{"derived, generation 1", derived(t, ring, 1, "salt", "ferry v1 frame"), goldenDerived1},
		{"derived, generation 2, no salt", derived(t, ring, 2, "", "ferry v1 log"), goldenDerived2},
		{"key check", ring.Check().String(), goldenCheck},
		{"proof", hex.EncodeToString(ring.DataKeys[1].Proof[:]), goldenProof},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.what, c.got, c.want)
		}
	}
	const text = `{
  "format": "ferry-key-ring",
  "version": 1,
  "repository": "01020300000000000000000000000000",
  "idKey": "0900000000000000000000000000000000000000000000000000000000000000",
  "dataKeys": [
    {
      "generation": 1,
      "key": "0000000000000000000000000000000000000000000000000000000000000001",
      "created": "2026-11-22T01:00:00Z"
    },
    {
      "generation": 2,
      "key": "0000000000000000000000000000000000000000000000000000000000000002",
      "created": "2026-11-22T02:00:00Z",
      "after": 1,
      "proof": "` + goldenProof + `"
    }
  ]
}
`
	if string(ring.Encode()) != text {
		t.Errorf("encoded: %s", ring.Encode())
	}
}

func derived(t *testing.T, ring *Ring, generation uint32, salt, info string) string {
	t.Helper()
	key, err := ring.Derive(generation, []byte(salt), info)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(key[:])
}

func TestRingRoundTrip(t *testing.T) {
	ring := New(format.RandomName(), made)
	if ring.Current(0).Generation != 1 || ring.Newest() != 1 {
		t.Errorf("new ring: %v", ring)
	}
	if other := New(ring.Repository, made); other.IDKey == ring.IDKey || other.DataKeys[0].Key == ring.DataKeys[0].Key {
		t.Error("two new rings have equal keys")
	}
	next, err := ring.rotated(2, 0, made)
	if err != nil {
		t.Fatal(err)
	}
	if len(ring.DataKeys) != 1 || next.Current(0).Generation != 2 || next.IDKey != ring.IDKey || next.Check() != ring.Check() {
		t.Errorf("rotated: %v", next)
	}
	read, err := Decode(next.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.Encode(), next.Encode()) {
		t.Errorf("read back otherwise")
	}
	if _, err := ring.Derive(2, nil, "x"); !errors.Is(err, ErrNoGeneration) {
		t.Errorf("generation 2: %v", err)
	}
	if !ring.SameDataKey(next, 1) || ring.SameDataKey(next, 2) || ring.SameDataKey(New(ring.Repository, made), 1) {
		t.Error("data keys are compared wrongly")
	}
	if err := next.Fits(ring.Repository, ring.Check()); err != nil {
		t.Error(err)
	}
	for _, other := range []*Ring{New(ring.Repository, made), next.For(format.RandomName())} {
		if err := other.Fits(ring.Repository, ring.Check()); !errors.Is(err, ErrForeign) {
			t.Errorf("another ring fits: %v", err)
		}
	}
}

// Two rotations at once: both keys read, the lower number writes, and who has only one key of the two goes on with that.
func TestUnite(t *testing.T) {
	first := New(format.RandomName(), made)
	two, _ := first.rotated(2, 0, made)
	three, _ := first.rotated(3, 0, made)
	united, err := three.unite(two)
	if err != nil {
		t.Fatal(err)
	}
	if !united.Has(1) || !united.Has(2) || !united.Has(3) || united.Current(0).Generation != 2 || united.Newest() != 3 {
		t.Errorf("united: %v, current %d", united, united.Current(0).Generation)
	}
	if _, err := Decode(united.Encode()); err != nil {
		t.Error(err)
	}
	next, _ := united.rotated(4, 0, made)
	if next.Current(0).Generation != 4 {
		t.Errorf("after rotation the current generation is %d", next.Current(0).Generation)
	}
	if _, err := Decode(next.Encode()); err != nil {
		t.Error(err)
	}
	forged, _ := first.rotated(2, 0, made)
	if _, err := two.unite(forged); !errors.Is(err, ErrForged) {
		t.Errorf("two keys of one generation: %v", err)
	}
	if _, err := two.unite(New(first.Repository, made)); !errors.Is(err, ErrForged) {
		t.Errorf("another id key: %v", err)
	}
}

// Whoever had the ring before a rotation cannot make a generation that is used after it.
func TestFormerHolder(t *testing.T) {
	old := New(format.RandomName(), made)
	now, _ := old.rotated(2, 0, made)
	forged, _ := old.rotated(3, 0, made)
	united, err := now.unite(forged)
	if err != nil {
		t.Fatal(err)
	}
	if united.Current(0).Generation != 2 {
		t.Errorf("generation %d, made by a former holder, is current", united.Current(0).Generation)
	}
	// Nor where a number was left out, and whichever of two the log has reached.
	later, _ := old.rotated(3, 0, made)
	gap, _ := old.rotated(2, 0, made)
	united, err = later.unite(gap)
	if err != nil {
		t.Fatal(err)
	}
	if united.Current(3).Generation != 3 || united.Follows(2, 3) || !united.Follows(3, 1) || !united.Follows(3, 3) || !united.Forked() || later.Forked() {
		t.Errorf("generation %d is current after 3", united.Current(3).Generation)
	}
	if next, _ := united.rotated(4, 3, made); next.Current(3).Generation != 4 || !next.Follows(4, 3) || next.Follows(4, 2) {
		t.Errorf("generation %d is current after a rotation", next.Current(3).Generation)
	}
	// Nor say that it came after a generation whose key is not known.
	forged.DataKeys[1].After = 2
	forged.DataKeys = slices.Concat(now.DataKeys, forged.DataKeys[1:])
	if _, err := Decode(forged.Encode()); !errors.Is(err, ErrForeign) {
		t.Errorf("a generation without proof: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	change := func(edit func(map[string]any)) []byte {
		var ring map[string]any
		if err := json.Unmarshal(fixed().Encode(), &ring); err != nil {
			t.Fatal(err)
		}
		edit(ring)
		raw, err := json.Marshal(ring)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	second := func(ring map[string]any) map[string]any { return ring["dataKeys"].([]any)[1].(map[string]any) }
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":         {nil, format.ErrCorrupt},
		"not JSON":        {[]byte("secret"), format.ErrCorrupt},
		"another format":  {change(func(r map[string]any) { r["format"] = "x" }), format.ErrCorrupt},
		"newer":           {change(func(r map[string]any) { r["version"] = 2 }), format.ErrNewer},
		"no version":      {change(func(r map[string]any) { r["version"] = 0 }), format.ErrCorrupt},
		"no repository":   {change(func(r map[string]any) { delete(r, "repository") }), format.ErrCorrupt},
		"no keys":         {change(func(r map[string]any) { r["dataKeys"] = []any{} }), format.ErrCorrupt},
		"short key":       {change(func(r map[string]any) { second(r)["key"] = "00" }), format.ErrCorrupt},
		"zero key":        {change(func(r map[string]any) { second(r)["key"] = strings.Repeat("0", 64) }), format.ErrCorrupt},
		"twice the same":  {change(func(r map[string]any) { second(r)["generation"] = 1 }), format.ErrCorrupt},
		"too great":       {change(func(r map[string]any) { second(r)["generation"] = MaxGeneration + 1 }), format.ErrCorrupt},
		"two beginnings":  {change(func(r map[string]any) { delete(second(r), "after") }), format.ErrCorrupt},
		"after itself":    {change(func(r map[string]any) { second(r)["after"] = 2 }), format.ErrCorrupt},
		"another proof":   {change(func(r map[string]any) { second(r)["proof"] = strings.Repeat("1", 64) }), ErrForeign},
		"no proof":        {change(func(r map[string]any) { delete(second(r), "proof") }), ErrForeign},
		"too many":        {change(func(r map[string]any) { r["dataKeys"] = make([]any, maxGenerations+1) }), format.ErrCorrupt},
		"no first":        {change(func(r map[string]any) { r["dataKeys"] = r["dataKeys"].([]any)[1:] }), format.ErrCorrupt},
		"a generation 0 ": {change(func(r map[string]any) { r["dataKeys"].([]any)[0].(map[string]any)["generation"] = 0 }), format.ErrCorrupt},
	} {
		ring, err := Decode(c.raw)
		if !errors.Is(err, c.want) || ring != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No verb prints a key: logs and messages are made of them.
func TestSecretsDoNotPrint(t *testing.T) {
	ring := fixed()
	ring.IDKey, ring.DataKeys[0].Key = Key([]byte(strings.Repeat("k", 32))), Key([]byte(strings.Repeat("k", 32)))
	secret := hex.EncodeToString(bytes.Repeat([]byte("k"), 8))
	for _, value := range []any{ring, *ring, ring.DataKeys, ring.DataKeys[0], &ring.DataKeys[0], ring.IDKey, &ring.IDKey, []any{ring}, map[string]any{"r": *ring}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			out := fmt.Sprintf(verb, value)
			if strings.Contains(out, "kkkk") || strings.Contains(strings.ToLower(out), secret) || strings.Contains(out, "107 107") {
				t.Errorf("%s of %T prints %s", verb, value, out)
			}
		}
	}
	if err := errors.Join(fmt.Errorf("%v", ring)); strings.Contains(err.Error(), "kkkk") {
		t.Error(err)
	}
}

// Made by Python's hmac module.
const (
	goldenDerived1 = "f59153249f91213ec2a2d92ff7f06104c7526d54bf44b678d9821b6e992e6a7b"
	goldenDerived2 = "d4ea62b75914569f4acc60895d8a550159788f6a86118d8231ed2c59a23a58ae"
	goldenCheck    = "75b864b3f9680eafe46a90171f782e69"
	goldenProof    = "55a99343856211a946aec5c95a77e9df5233326eb3f8e04895a618128be23850"
)
