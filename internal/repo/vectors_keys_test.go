package repo_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/storage/memory"
)

// vectorRing has fixed keys of two generations, the second proven by the first.
func vectorRing(t *testing.T) ([]byte, *keyring.Ring) {
	t.Helper()
	created := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	one := &keyring.Ring{
		Repository: format.Name(ramp(16)), IDKey: keyring.Key(ramp(64)[32:]),
		DataKeys: []keyring.DataKey{{Generation: 1, Key: keyring.Key(ramp(100)[64:]), Created: created}},
	}
	second := ramp(140)[100:132]
	proof := must(one.Derive(1, second, "ferry v1 next data key 2"))(t)
	one.DataKeys = append(one.DataKeys, keyring.DataKey{
		Generation: 2, Key: keyring.Key(second), Created: created.Add(time.Hour), After: 1, Proof: keyring.Key(proof),
	})
	raw := one.Encode()
	ring, err := keyring.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return raw, ring
}

// keyVectors are those of encrypted repositories: what is derived from keys, and files that only the key ring proves.
func keyVectors(t *testing.T) []vector {
	raw, ring := vectorRing(t)
	var all []vector
	add := func(name, function, hash string, output []byte, input ...[]byte) {
		parts := []string{}
		for _, part := range input {
			parts = append(parts, hex.EncodeToString(part))
		}
		v := vector{Name: "keys: " + name, Function: function, Hash: hash, Input: parts, Output: hex.EncodeToString(output)}
		if len(parts) == 1 {
			v.Input = parts[0]
		}
		all = append(all, v)
	}
	check := ring.Check()
	add("key check of the ring", "keyCheck", "", check[:], raw)
	key := ring.DataKeys[0].Key
	for _, info := range []string{format.InfoLog, format.InfoPoint} {
		derived := must(ring.Derive(1, nil, info))(t)
		add(fmt.Sprintf("derived for %q", info), "derive", "", derived[:], key[:], nil, []byte(info))
	}
	derived := must(ring.Derive(1, ramp(16), format.InfoFrame))(t)
	add("derived with a salt", "derive", "", derived[:], key[:], ramp(16), []byte(format.InfoFrame))

	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		hasher := format.NewEncryptedHasher(algorithm, ring.IDKey, ringKeys{ring})
		hash := algorithm.String()
		mac := must(hasher.MAC(format.InfoLog, 1, []byte("ferry")))(t)
		if algorithm == format.HashBLAKE3 {
			add("MAC", "mac", "", mac[:], key[:], []byte(format.InfoLog), []byte("ferry"))
		}
		for _, size := range []int{5, 16, 100} {
			content := ramp(size)
			frame := sealedFrame(t, hasher, ring, content)
			_, got, err := pack.DecodeFrame(nil, frame, pack.NewOpener(ringKeys{ring}, hasher))
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("the frame made by hand opens to %x, %v", got, err)
			}
			add(fmt.Sprintf("%s: encrypted frame of %d bytes", hash, size), "openFrame", hash, content, raw, frame)
		}
		payload := &commitlog.Payload{Time: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Writer: format.Name(ramp(16)).String()}
		entry, _, err := commitlog.Encode(hasher, 2, format.ID(ramp(32)), payload)
		if err != nil {
			t.Fatal(err)
		}
		add(hash+": log entry with a MAC", "openEntry", hash, must(json.Marshal(payload))(t), raw, entry)
		payload.Rotated = 2
		entry, _, err = commitlog.Encode(hasher, 3, format.ID(ramp(32)), payload)
		if err != nil {
			t.Fatal(err)
		}
		add(hash+": log entry that ends a rotation", "openEntry", hash, must(json.Marshal(payload))(t), raw, entry)
		file, body := sealedPoint(t, hasher)
		add(hash+": point with a body", "openPoint", hash, body, raw, file)
	}
	return all
}

// keyListVectors are lists of key files, and which files they name.
func keyListVectors(t *testing.T) []vector {
	one, two := keyring.FileOf(1, ramp(10)).Path(), keyring.FileOf(12, ramp(20)).Path()
	bare := func(path string) string { return strings.TrimPrefix(path, keyring.Folder) }
	var all []vector
	for _, c := range []struct{ what, list string }{
		{"empty", ""},
		{"two files", bare(one) + "\n" + bare(two) + "\n"},
		{"lines that are no names of key files", "ferry\n" + one + "\n" + bare(two) + ".recipient\n\n000012\n" + bare(two) + " \n" + bare(one) + "\n"},
		{"the last line does not end", bare(two) + "\n" + bare(one)},
		{"the last line is cut", bare(two) + "\n" + bare(one)[:20]},
	} {
		store := memory.New()
		if err := store.Put(t.Context(), "marks/keys-000001", []byte(c.list)); err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, file := range must(keyring.Files(t.Context(), store))(t) {
			named = append(named, file.Path())
		}
		slices.Sort(named)
		all = append(all, vector{Name: "list of key files: " + c.what, Function: "keyList", Input: hexes(c.list)[0], Output: hexes(strings.Join(named, " "))[0]})
	}
	return all
}

// sealedFrame makes a frame by hand, with a salt and a counter that are always the same.
func sealedFrame(t *testing.T, hasher *format.Hasher, ring *keyring.Ring, content []byte) []byte {
	t.Helper()
	id := hasher.Sum(format.ContextBlock, content)
	header := slices.Concat([]byte("FRM1"), []byte{1, 0, 0, 0})
	header = binary.LittleEndian.AppendUint32(header, uint32(len(content)))
	header = binary.LittleEndian.AppendUint32(header, uint32(len(content)+16))
	header = binary.LittleEndian.AppendUint64(header, 2) // key generation, and reserved
	header = binary.LittleEndian.AppendUint64(header, 77)
	header = slices.Concat(header, ramp(40)[24:], id[:])
	key := must(ring.Derive(2, header[32:48], "ferry v1 frame"))(t)
	gcm := must(cipher.NewGCM(must(aes.NewCipher(key[:]))(t)))(t)
	nonce := append(make([]byte, 4), header[24:32]...)
	stored := gcm.Seal(nil, nonce, content, slices.Concat([]byte("ferry v1"), header[4:6], header[8:12], id[:]))
	sum := hasher.Sum(format.ContextFrame, header, stored)
	return slices.Concat(header, sum[:16], stored)
}

// sealedPoint makes a point's file under a salt that is always the same, and returns its body too.
func sealedPoint(t *testing.T, hasher *format.Hasher) (file, body []byte) {
	t.Helper()
	machine := backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump")
	id := backup.NewPointID(machine, "native")
	pseudonym := hasher.Sum(format.ContextMachine, machine.Canonical())
	header := fmt.Appendf(nil, `{"id":"%s","machine":"%s","created":"2026-11-22T01:00:00Z","domain":"%s","trees":[]}`,
		id, format.Name(pseudonym[:16]), format.Name(ramp(16)))
	body = []byte(`{"machine":{"platform":"proxmox","nativeId":"100","sourceName":"dump","name":"web"},"zone":"UTC",` +
		`"origin":{"format":"vzdump","source":"dump","nativeId":"native"},"objects":[]}`)
	file, err := repo.SealPoint(hasher, [format.SaltSize]byte(ramp(16)), id, header, body)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := repo.DecodePoint(hasher, file); err != nil || p.Machine.Name != "web" {
		t.Fatalf("%+v, %v", p, err)
	}
	return file, body
}
