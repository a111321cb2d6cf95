package repo_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
)

// keyFileRings are the rings in the key files below testdata/keys, by name: generations are added to the first one by rotations,
// two of them at once, and once by somebody who contradicts.
func keyFileRings(t *testing.T) map[string]*keyring.Ring {
	t.Helper()
	_, second := vectorRing(t)
	created := second.DataKeys[1].Created
	with := func(ring *keyring.Ring, generation, after uint32, key byte) *keyring.Ring {
		next := ring.For(ring.Repository)
		made := keyring.Key{0: key, 31: 1}
		proof := must(ring.Derive(after, made[:], "ferry v1 next data key "+strconv.Itoa(int(generation))))(t)
		next.DataKeys = append(next.DataKeys, keyring.DataKey{Generation: generation, Key: made, Created: created.Add(time.Hour), After: after, Proof: keyring.Key(proof)})
		return next
	}
	first := second.For(second.Repository)
	first.DataKeys = first.DataKeys[:1]
	return map[string]*keyring.Ring{
		"first": first, "second": second, "stranger": second.For(format.Name(ramp(48)[32:])),
		"third":  with(first, 3, 1, 3),                // at the same time as the second
		"onward": with(second, 3, 2, 4),               // after it
		"fourth": with(with(first, 2, 1, 5), 4, 2, 6), // its generation 2 is another than that of the second
	}
}

// Each key file below testdata/keys holds the ring of its name.
func TestVectorKeyFiles(t *testing.T) {
	f := newFiles(t, format.HashBLAKE3)
	rings := keyFileRings(t)
	identity := must(age.ParseIdentities(strings.NewReader(f.identityLines()[0])))(t)
	for _, name := range []string{"first", "third", "onward", "fourth", "stranger"} {
		ring, err := keyring.Open(f.keyFile(name), identity...)
		if err != nil || !bytes.Equal(ring.Encode(), rings[name].Encode()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// openingVectors are key files, the notes about them, and the recovery kit: what finds and opens a repository's keys. What age
// makes is never the same twice, so the files below testdata/keys were made once; who can open them everybody knows.
func openingVectors(t *testing.T) []vector {
	t.Helper()
	f := newFiles(t, format.HashBLAKE3)
	f.rings()
	f.keyFiles()
	f.keyLists()
	f.notes()
	f.kits()
	for i := range f.all {
		f.all[i].Name, f.all[i].Hash = "keys: "+strings.TrimPrefix(f.all[i].Name, "blake3-256: "), ""
	}
	return f.all
}

// rings are those that no reader takes.
func (f *files) rings() {
	refused := func(name, class, old, replaced string) {
		text := strings.Replace(string(f.rawRing), old, replaced, 1)
		if text == string(f.rawRing) {
			f.t.Errorf("%s: nothing was replaced", name)
		}
		f.refused(name, "keyCheck", class, []byte(text))
	}
	key, proof := hex.EncodeToString(f.ring.DataKeys[1].Key[:]), hex.EncodeToString(f.ring.DataKeys[1].Proof[:])
	refused("a ring of version 2", "newer", `"version": 1`, `"version": 2`)
	refused("a ring of another format", "corrupt", "ferry-key-ring", "ferry-ring")
	refused("a ring with a generation whose maker did not have the one before", "foreign", proof, strings.Repeat("0", 64))
	refused("a ring with another key than the proof is of", "foreign", key, strings.Repeat("1", 64))
	refused("a ring with a generation that follows none", "corrupt", `"after": 1`, `"after": 0`)
	refused("a ring without the generation that another follows", "corrupt", `"after": 1`, `"after": 7`)
	refused("a ring with generations out of order", "corrupt", `"generation": 2`, `"generation": 1`)
	refused("a ring with a generation that is too large", "corrupt", `"generation": 2`, `"generation": 1000000`)
	refused("a ring whose first generation has a proof", "corrupt", `"created": "2026-11-22T00:00:00Z"`, `"created": "2026-11-22T00:00:00Z", "proof": "`+proof+`"`)
	refused("a ring without the key of a generation", "corrupt", key, strings.Repeat("0", 64))
	f.refused("a ring without data keys", "keyCheck", "corrupt", []byte(string(f.rawRing[:strings.Index(string(f.rawRing), "[")])+"[]}"))
}

// keyFile reads one that was made for these vectors.
func (f *files) keyFile(name string) []byte {
	f.t.Helper()
	return must(os.ReadFile(filepath.Join("testdata", "keys", name+".age")))(f.t)
}

// identityLines are the secrets that open the key files, a line each: X25519, hybrid, passphrase.
func (f *files) identityLines() []string {
	f.t.Helper()
	lines := strings.Split(strings.TrimSpace(string(must(os.ReadFile(filepath.Join("keyring", "testdata", "identities.txt")))(f.t))), "\n")
	return []string{lines[1], lines[2], "passphrase: " + vectorPassphrase}
}

const vectorPassphrase = "ferry golden passphrase"

// united is the ring after two rotations at once: the generations 2 and 3 both follow the first.
func (f *files) united() *keyring.Ring {
	ring := f.ring.For(f.ring.Repository)
	ring.DataKeys = append(ring.DataKeys, keyFileRings(f.t)["third"].DataKeys[1])
	return ring
}

// keyFiles are folders with key files, and the ring that is found there.
func (f *files) keyFiles() {
	check, repository := f.ring.Check(), f.ring.Repository
	secrets := f.identityLines()
	first, second, third, onward := f.keyFile("first"), f.keyFile("x25519"), f.keyFile("third"), f.keyFile("onward")
	in := func(generation uint32, content []byte) [][]byte {
		return [][]byte{[]byte(keyring.FileOf(generation, content).Path()), content}
	}
	with := func(secret string, folder ...[][]byte) [][]byte {
		return slices.Concat([][]byte{[]byte(secret), repository[:], check[:]}, slices.Concat(folder...))
	}
	says := func(name string, ring *keyring.Ring, input [][]byte) {
		f.says(name, "openRing", string(ring.Encode()), input...)
	}
	for i, kind := range []string{"x25519", "hybrid", "passphrase"} {
		says("key file, "+kind, f.ring, with(secrets[i], in(2, f.keyFile(kind))))
	}
	says("key files of two generations", f.ring, with(secrets[0], in(1, first), in(2, second)))
	says("key files of two rotations at once", f.united(), with(secrets[0], in(2, second), in(3, third)))
	says("a key file of the newest generation for somebody else, and a note", f.ring, with(secrets[2],
		in(2, f.keyFile("passphrase")), in(3, onward), [][]byte{[]byte(keyring.FileOf(3, onward).NotePath()), []byte("note")}))
	says("a damaged key file beside a good one", f.ring, with(secrets[0], in(2, second), [][]byte{in(2, first)[0], flipped(first, 300)}))

	refused := func(name, class string, input [][]byte) { f.refused(name, "openRing", class, input...) }
	refused("a key file with a damaged byte", "key", with(secrets[0], [][]byte{in(2, second)[0], flipped(second, 400)}))
	refused("a key file that is cut, under a name that fits", "key", with(secrets[0], in(2, second[:len(second)-20])))
	refused("a key file of an earlier generation than its name says", "key", with(secrets[0], in(2, first)))
	refused("a key file of a later generation than its name says", "key", with(secrets[0], in(1, second)))
	refused("a key file with two recipients", "key", with(secrets[0], in(2, f.keyFile("two-recipients"))))
	refused("a key file with the ring of another repository", "key", with(secrets[0], in(2, f.keyFile("stranger"))))
	work := bytes.Replace(f.keyFile("passphrase"), []byte(" 10\n"), []byte(" 21\n"), 1)
	refused("a key file with a work factor that is too large", "key", with(secrets[2], in(2, work)))
	refused("a key file for somebody else", "key", with(secrets[2], in(2, second)))
	refused("rings that contradict each other", "forged", with(secrets[0], in(4, f.keyFile("fourth")), in(3, onward)))
	wrong := check
	wrong[0]++
	refused("a ring with another check than the repository's", "key", append([][]byte{[]byte(secrets[0]), repository[:], wrong[:]}, in(2, second)...))
}

// keyLists are folders of lists of key files, of which a listing shows some, and the key files that the one names which counts.
func (f *files) keyLists() {
	list := func(number int) [][]byte {
		named := strings.TrimPrefix(keyring.FileOf(uint32(number), ramp(number)).Path(), keyring.Folder)
		return [][]byte{fmt.Appendf(nil, "marks/keys-%06d", number), []byte(named + "\n")}
	}
	says := func(name string, counts int, last string, lists ...int) {
		input := [][]byte{[]byte(last)}
		for _, number := range lists {
			input = append(input, list(number)...)
		}
		want := ""
		if counts > 0 {
			want = keyring.FileOf(uint32(counts), ramp(counts)).Path()
		}
		f.says("lists of key files, "+name, "keyFiles", want, input...)
	}
	says("all shown", 3, "marks/keys-000003", 1, 2, 3)
	says("the last ones not shown", 4, "marks/keys-000002", 1, 2, 3, 4)
	says("none shown", 2, "", 1, 2)
	says("none shown, and one lost", 4, "", 1, 2, 4)
	says("none shown, and the first lost", 2, "", 2)
	says("none shown, and two in a row lost", 1, "", 1, 4)
	says("the one behind two that are lost is shown", 4, "marks/keys-000004", 1, 4)
	says("none", 0, "")
}

// noteVector is the note about a key file, by hand: the tests of keyring prove that the program makes the same.
func (f *files) noteVector(name, plain string, generation uint32) []byte {
	salt := ramp(16)
	aead := must(format.NewAEAD(atGeneration{f.ring, 2}, generation, salt, "ferry v1 recipient"))(f.t)
	return aead.Seal(salt, make([]byte, 12), []byte(plain), []byte(strings.TrimPrefix(name, keyring.Folder)))
}

func (f *files) notes() {
	name := keyring.FileOf(2, f.keyFile("x25519")).Path()
	note := f.noteVector(name, `{"recipient":"`+packA.String()+`","publicKey":"age1…","label":"Ada's laptop","added":"2026-11-22T01:00:00Z"}`, 2)
	f.says("note", "openNote", packA.String()+" age1… Ada's laptop 20261122T010000.000000000Z", f.rawRing, []byte(name), note)
	refused := func(what string, name string, note []byte) {
		f.refused(what, "openNote", "forged", f.rawRing, []byte(name), note)
	}
	refused("the note about another key file", keyring.FileOf(2, f.keyFile("hybrid")).Path(), note)
	refused("a note of another generation than its key file", name, f.noteVector(name, "{}", 1))
	refused("a note with a damaged byte", name, flipped(note, 20))
	refused("a note that is shorter than its salt", name, note[:15])
}

func (f *files) kits() {
	kit := keyring.Kit{Ring: f.ring, Exported: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Entries: 17, Checksum: format.ID(ramp(32))}
	plain := must(kit.Encode("/mnt/vault", keyring.NewPassphrase("")))(f.t)
	said := fmt.Sprintf("entries=17 checksum=%s exported=20261122T010000.000000000Z\n%s", kit.Checksum, f.rawRing)
	f.says("recovery kit", "openKit", said, nil, plain)
	f.says("recovery kit, with the line ends of another system", "openKit", said, nil, bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n")))
	sealed := must(os.ReadFile(filepath.Join("testdata", "keys", "kit.txt")))(f.t)
	f.says("recovery kit with a passphrase", "openKit", said, []byte(vectorPassphrase), sealed)
	f.refused("a recovery kit with another passphrase", "openKit", "key", []byte("wrong"), sealed)
	f.refused("a recovery kit that is encrypted, without a passphrase", "openKit", "key", nil, sealed)
	f.refused("a recovery kit that is cut", "openKit", "corrupt", nil, plain[:len(plain)-40])
	f.refused("a recovery kit of version 2", "openKit", "newer", nil, bytes.Replace(plain, []byte(`"version": 1`), []byte(`"version": 2`), 1))
}
