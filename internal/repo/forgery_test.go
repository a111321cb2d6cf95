package repo_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// attacked is an encrypted repository that somebody without the key can write to.
type attacked struct {
	store  *memory.Store
	cache  string
	points []*sourcetest.Point
	// hasher is what everyone can compute.
	hasher *format.Hasher
}

// newAttacked makes one with two points, and data packs of several frames.
func newAttacked(t *testing.T) attacked {
	t.Helper()
	first := onePoint("web", "w1", content(91, 50*smallBlock))
	second := onePoint("web", "w2", changed(first.Objects[0].Data, 92, 53*smallBlock))
	a := attacked{
		store: memory.New(), cache: newCache(t), points: []*sourcetest.Point{first, second}, hasher: format.NewLockedHasher(format.HashBLAKE3),
	}
	r := must(repo.Init(t.Context(), a.store, repo.Environment{}, encryptedOptions(repo.Options{BlockSize: smallBlock})))(t)
	closeRepo(t, r)
	r = must(openSmall(t.Context(), a.store, a.cache))(t)
	mustCopyAll(t, r, a.points...)
	check(t, r, a.points...)
	closeRepo(t, r)
	return a
}

// clone is the same repository, to do something else to.
func (a attacked) clone() attacked {
	a.store = a.store.Clone()
	return a
}

func (a attacked) tamper(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	if err := a.store.Tamper(name, change); err != nil {
		t.Fatal(err)
	}
}

// open opens it with the key, on a machine that has not seen it.
func (a attacked) open(t *testing.T) *repo.Repository {
	t.Helper()
	r := must(openSmall(t.Context(), a.store, ""))(t)
	t.Cleanup(func() { closeRepo(t, r) })
	return r
}

// refused opens it and wants the error.
func (a attacked) refused(t *testing.T, cache string, want error, mention string) {
	t.Helper()
	r, err := openSmall(t.Context(), a.store, cache)
	if err == nil {
		closeRepo(t, r)
	}
	if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), mention) {
		t.Errorf("opens with %v; want %v that mentions %s", err, want, mention)
	}
}

// lastEntry is the number of the log's last entry.
func (a attacked) lastEntry() uint64 { return uint64(len(a.store.Names("log/"))) }

// dataPack returns the name of a data pack with at least two frames, and its table.
func (a attacked) dataPack(t *testing.T, after string) (string, pack.Table) {
	t.Helper()
	for _, name := range a.store.Names("packs/") {
		raw := must(storage.ReadAll(t.Context(), a.store, name, 1<<30))(t)
		table := must(pack.ReadTable(bytes.NewReader(raw), int64(len(raw)), a.hasher))(t)
		if table.Header.Kind == pack.KindBlock && len(table.Entries) > 1 && name > after {
			if table.Header.Generation == 0 {
				t.Fatalf("%s is not encrypted", name)
			}
			return name, table
		}
	}
	t.Fatal("no such pack")
	return "", pack.Table{}
}

const frameSumAt, entrySize, trailerSize = 80, 64, 64

// mend makes all checksums of a pack fit what it holds: those of frames, table and trailer.
func (a attacked) mend(raw []byte, entries []pack.Entry) []byte {
	table := len(raw) - trailerSize - len(entries)*entrySize
	for i, e := range entries {
		frame := raw[e.Offset:][:e.FrameSize()]
		sum := a.hasher.Sum(format.ContextFrame, frame[:frameSumAt], frame[pack.FrameHeaderSize:])
		copy(frame[frameSumAt:], sum[:16])
		line := raw[table+i*entrySize:]
		copy(line, frame[48:80])
		copy(line[36:], frame[12:16])
		copy(line[40:], frame[8:12])
		copy(line[44:], frame[4:6])
		copy(line[48:], sum[:16])
	}
	root := a.hasher.Sum(format.ContextPack, raw[:64], raw[table:len(raw)-trailerSize])
	copy(raw[len(raw)-32:], root[:])
	return raw
}

// mustFindForgery wants reading and verification to call a pack forged, and no wrong byte. Verification is to say why, too.
func (a attacked) mustFindForgery(t *testing.T, what, file string, why ...string) {
	t.Helper()
	a.mustCallForged(t, what, file, append(why, notThePack)...)
}

// mustCallForged is that for any file, with all that verification says of it.
func (a attacked) mustCallForged(t *testing.T, what, file string, why ...string) {
	t.Helper()
	r := a.open(t)
	forged := false
	for _, p := range a.points {
		err := compare(t.Context(), r, p)
		var wrong *wrongBytes
		if errors.As(err, &wrong) {
			t.Errorf("%s: wrong bytes", what)
		}
		if err != nil && !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: not called damaged: %v", what, err)
		}
		forged = forged || errors.Is(err, repo.ErrForged)
	}
	if !forged {
		t.Errorf("%s: no read calls it forged", what)
	}
	report := must(r.Verify(t.Context(), nil))(t)
	a.forgedFile(t, report, what, file, why...)
	// Without the key it is named all the same.
	a.forgedFile(t, must(a.openLocked(t).Verify(t.Context(), nil))(t), what+", without the key", file)
}

// notThePack is what verification says of a forged pack.
const notThePack = "forged: the checksum holds, the proof by key does not: it is not the pack that the log names"

// forgedFile wants a verification to have named a file, with reasons.
func (a attacked) forgedFile(t *testing.T, report *repo.VerifyReport, what, file string, reasons ...string) {
	t.Helper()
	for _, d := range report.Damage {
		if d.File == file && !slices.ContainsFunc(reasons, func(reason string) bool { return !strings.Contains(d.Reason, reason) }) {
			return
		}
	}
	t.Errorf("%s: verify does not say of %s %q, but %+v", what, file, reasons, report.Damage)
}

func TestKeysMissingAndWrong(t *testing.T) {
	a := newAttacked(t)
	for what, c := range map[string]struct {
		keys repo.KeySource
		want error
	}{
		"no source": {nil, nil}, "a source without a key": {identities{}, nil}, "another key": {identities{newIdentity()}, repo.ErrWrongKey},
		"the key among others": {identities{newIdentity(), testIdentity()}, nil},
	} {
		r, err := repo.Open(t.Context(), a.store, repo.Environment{Keys: c.keys})
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
		var hinted *backup.Error
		if err != nil && (!errors.As(err, &hinted) || hinted.Hint == "") {
			t.Errorf("%s: no hint: %v", what, err)
		}
		if err == nil {
			if r.Locked() != (what != "the key among others") {
				t.Errorf("%s: locked %v", what, r.Locked())
			}
			closeRepo(t, r)
		}
	}
}

// A bit of the description that has rotted is no wrong key, also where keys are compared with it: the log says that it is another.
func TestDamagedDescriptionIsNoWrongKey(t *testing.T) {
	for what, rot := range map[string]func(d *format.Description){
		"check of the keys": func(d *format.Description) { d.KeyCheck[3] ^= 1 },
		"id":                func(d *format.Description) { d.ID[3] ^= 1 },
	} {
		a := newAttacked(t)
		mirror := a.store.Clone()
		description := describe(t, a)
		rot(&description)
		a.describe(t, description)
		a.refused(t, "", repo.ErrCorrupt, "it is not the file that the log begins with")
		if mended, err := repo.MendLog(t.Context(), a.store, repo.Environment{}, []storage.Store{mirror}); err != nil || len(mended) != 1 {
			t.Errorf("%s: %v, %v", what, mended, err)
		}
		closeRepo(t, a.open(t))
		// With the first entry gone as well nobody knows which of them is damaged.
		a.describe(t, description)
		if err := a.store.Tamper("log/000000000001", func([]byte) []byte { return nil }); err != nil {
			t.Fatal(err)
		}
		a.refused(t, "", repo.ErrWrongKey, "")
	}
}

// A key ring that somebody made for the same public key: everyone can.
func TestPlantedKeyRing(t *testing.T) {
	a := newAttacked(t)
	description := describe(t, a)
	ring := keyring.New(description.ID, description.Created)
	planted := must(keyring.Add(t.Context(), a.store, ring, testIdentity().Recipient(), keyring.Recipient{}))(t)
	r := a.open(t) // the right one is found
	if err := compare(t.Context(), r, a.points[0]); err != nil {
		t.Error(err)
	}
	if report := must(r.Verify(t.Context(), nil))(t); len(report.Damage) != 1 || report.Damage[0].File != planted.File.NotePath() {
		t.Errorf("verify: %+v", report.Damage)
	}
	for _, name := range a.store.Names("keys/") {
		if !strings.Contains(name, planted.File.ID.String()) {
			if err := a.store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.refused(t, "", repo.ErrWrongKey, "key ring is not of this repository")
	// With a description that fits it, the log's own MACs do not.
	description.KeyCheck = ring.Check()
	a.describe(t, description)
	a.refused(t, "", repo.ErrForged, "log/")
}

func describe(t *testing.T, a attacked) format.Description {
	t.Helper()
	var d format.Description
	if err := json.Unmarshal(must(storage.ReadAll(t.Context(), a.store, format.DescriptionName, 1<<20))(t), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (a attacked) describe(t *testing.T, d format.Description) {
	t.Helper()
	raw := must(json.MarshalIndent(d, "", "  "))(t)
	a.tamper(t, format.DescriptionName, func([]byte) []byte { return append(raw, '\n') })
}

// A description that says that nothing is encrypted, so that the next copy writes in clear.
func TestDowngrade(t *testing.T) {
	a := newAttacked(t)
	plain := describe(t, a)
	plain.Encrypted, plain.RequiredFeatures, plain.KeyCheck = false, 0, format.Name{}
	a.describe(t, plain)
	for _, cache := range []string{"", a.cache} {
		a.refused(t, cache, repo.ErrForged, "")
	}
	// With a log that fits it: a machine that has seen the repository knows better.
	for _, name := range slices.Concat(a.store.Names("log/"), a.store.Names("checkpoints/")) {
		if err := a.store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	raw := must(storage.ReadAll(t.Context(), a.store, format.DescriptionName, 1<<20))(t)
	a.append(t, format.NewHasher(format.HashBLAKE3, [32]byte{}), &commitlog.Payload{Repository: &commitlog.Repository{
		ID: plain.ID, Checksum: a.hasher.Sum(format.ContextRepository, raw),
	}})
	a.refused(t, a.cache, repo.ErrForged, "repository.json")
}

// append adds an entry to the log as somebody with that hasher can.
func (a attacked) append(t *testing.T, hasher *format.Hasher, payload *commitlog.Payload) {
	t.Helper()
	last, link := a.lastEntry(), format.ID{}
	if last > 0 {
		raw := must(storage.ReadAll(t.Context(), a.store, commitlog.EntryName(last), commitlog.MaxSize))(t)
		link = format.ID(raw[len(raw)-32:])
	}
	raw, _, err := commitlog.Encode(hasher, last+1, link, payload)
	if err == nil {
		err = a.store.Put(t.Context(), commitlog.EntryName(last+1), raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestForgedLogEntries(t *testing.T) {
	original := newAttacked(t)
	id := original.points[0].ID()
	claim := &commitlog.Payload{Claims: []commitlog.Claim{{Point: id, Job: "forged"}}}
	ownKeys := keyring.New(describe(t, original).ID, describe(t, original).Created)
	for what, forge := range map[string]func(a attacked){
		"a claim without a MAC": func(a attacked) { a.append(t, a.hasher, claim) },
		"a pack without a MAC": func(a attacked) {
			a.append(t, a.hasher, &commitlog.Payload{Packs: []commitlog.Pack{{ID: format.Name{1}}}})
		},
		"a point that is claimed, removed without a MAC": func(a attacked) {
			a.append(t, a.hasher, &commitlog.Payload{PointsRemoved: []backup.PointID{id}})
		},
		"an entry with the MAC of another key": func(a attacked) {
			a.append(t, format.NewEncryptedHasher(format.HashBLAKE3, [32]byte{}, ringKeys{ownKeys}), claim)
		},
		"an entry with a MAC of nothing": func(a attacked) {
			a.append(t, a.hasher, claim)
			a.reseal(t, commitlog.EntryName(a.lastEntry()), format.ContextLogEntry, func(raw []byte) {
				binary.LittleEndian.PutUint32(raw[20:], 1)
				copy(raw[len(raw)-64:], bytes.Repeat([]byte{7}, 32))
			})
		},
		"the last entry changed": func(a attacked) {
			a.reseal(t, commitlog.EntryName(a.lastEntry()), format.ContextLogEntry, func(raw []byte) {
				at := bytes.Index(raw, []byte(`"writer":"`)) + len(`"writer":"`)
				raw[at] = map[bool]byte{true: '0', false: '1'}[raw[at] != '0']
			})
		},
		"the MAC taken from the last entry": func(a attacked) {
			a.reseal(t, commitlog.EntryName(a.lastEntry()), format.ContextLogEntry, func(raw []byte) {
				clear(raw[20:24])
				clear(raw[len(raw)-64 : len(raw)-32])
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := original.clone()
			forge(a)
			a.refused(t, "", repo.ErrForged, commitlog.EntryName(a.lastEntry()))
		})
	}
}

// ringKeys are the keys of a ring.
type ringKeys struct{ *keyring.Ring }

func (k ringKeys) Generation() uint32 { return k.Current(0).Generation }

// reseal changes a file that ends with its checksum, and makes that fit.
func (a attacked) reseal(t *testing.T, name string, context format.Context, change func([]byte)) {
	t.Helper()
	a.tamper(t, name, func(raw []byte) []byte {
		change(raw)
		sum := a.hasher.Sum(context, raw[:len(raw)-32])
		copy(raw[len(raw)-32:], sum[:])
		return raw
	})
}

// Histories of somebody without the key, on a machine that has seen the right one.
func TestForgedHistory(t *testing.T) {
	for what, forge := range map[string]func(a attacked){
		"rolled back": func(a attacked) {
			if err := a.store.Delete(t.Context(), commitlog.EntryName(a.lastEntry())); err != nil {
				t.Fatal(err)
			}
		},
		"forked": func(a attacked) {
			if err := a.store.Delete(t.Context(), commitlog.EntryName(a.lastEntry())); err != nil {
				t.Fatal(err)
			}
			a.append(t, a.hasher, &commitlog.Payload{})
		},
	} {
		a := newAttacked(t)
		forge(a)
		r := must(openSmall(t.Context(), a.store, a.cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("%s: %v", what, r.Diverged())
		}
		if _, err := r.NewIngest(t.Context(), repo.IngestOptions{}); !errors.Is(err, repo.ErrDiverged) {
			t.Errorf("%s: writing: %v", what, err)
		}
		closeRepo(t, r)
	}
}

func TestForgedCheckpoint(t *testing.T) {
	a := newAttacked(t)
	last := a.lastEntry()
	entry := must(storage.ReadAll(t.Context(), a.store, commitlog.EntryName(last), commitlog.MaxSize))(t)
	head := commitlog.Head{N: last, Checksum: format.ID(entry[len(entry)-32:])}
	// It says that there is nothing, so that everything is garbage.
	raw := must(commitlog.EncodeCheckpoint(a.hasher, head, commitlog.NewState().Payload()))(t)
	if err := a.store.Put(t.Context(), commitlog.CheckpointName(last), raw); err != nil {
		t.Fatal(err)
	}
	for _, keys := range []repo.KeySource{identities{testIdentity()}, nil} { // without the key it is not believed either
		r := must(repo.Open(t.Context(), a.store, repo.Environment{Keys: keys}))(t)
		if len(r.Entries()) != 2 || !slices.ContainsFunc(r.Warnings(), func(w string) bool { return strings.Contains(w, "forged") }) {
			t.Errorf("%d points, %v", len(r.Entries()), r.Warnings())
		}
		closeRepo(t, r)
	}
}

func TestForgedFrames(t *testing.T) {
	original := newAttacked(t)
	name, table := original.dataPack(t, "")
	one, two := table.Entries[0], table.Entries[1]
	t.Run("content changed", func(t *testing.T) {
		a := original.clone()
		a.tamper(t, name, func(raw []byte) []byte {
			raw[int(one.Offset)+one.FrameSize()-20] ^= 1
			return a.mend(raw, table.Entries)
		})
		a.mustFindForgery(t, "a changed frame", name, ": 1 of its ", fmt.Sprintf("the first at %d: forged: the checksum holds, the proof by key does not: frame of %s", one.Offset, one.ID))
	})
	t.Run("content not encrypted", func(t *testing.T) {
		a := original.clone()
		a.tamper(t, name, func(raw []byte) []byte {
			frame := raw[one.Offset:]
			clear(frame[16:48]) // no key, no nonce, no salt
			frame[5] = byte(pack.CodecNone)
			binary.LittleEndian.PutUint32(frame[8:], one.Stored) // plain as long as stored
			return a.mend(raw, table.Entries)
		})
		a.mustFindForgery(t, "a frame in clear", name, ": 1 of its ", fmt.Sprintf("the first at %d: forged: the checksum holds, the proof by key does not: content differs from its id", one.Offset))
	})
	t.Run("frames exchanged", func(t *testing.T) {
		a := original.clone()
		same := slices.IndexFunc(table.Entries[1:], func(e pack.Entry) bool { return e.Stored == one.Stored }) + 1
		if same == 0 {
			t.Fatal("no two frames of one size")
		}
		a.tamper(t, name, func(raw []byte) []byte {
			first, second := raw[one.Offset:][:one.FrameSize()], raw[table.Entries[same].Offset:][:one.FrameSize()]
			kept := bytes.Clone(first)
			copy(first, second)
			copy(second, kept)
			return a.mend(raw, table.Entries)
		})
		a.mustFindForgery(t, "exchanged frames", name)
	})
	t.Run("ids exchanged", func(t *testing.T) {
		a := original.clone()
		a.tamper(t, name, func(raw []byte) []byte {
			copy(raw[one.Offset+48:], two.ID[:])
			copy(raw[two.Offset+48:], one.ID[:])
			return a.mend(raw, table.Entries)
		})
		a.mustFindForgery(t, "exchanged ids", name, ": 2 of its ", fmt.Sprintf("the first at %d: forged: ", one.Offset))
	})
	t.Run("packs exchanged", func(t *testing.T) {
		a := original.clone()
		other, _ := a.dataPack(t, name)
		exchange(t, a.store, name, other)
		r := a.open(t)
		report := must(r.Verify(t.Context(), nil))(t)
		for _, file := range []string{name, other} {
			a.forgedFile(t, report, "exchanged packs", file, "not the pack that the log names")
		}
		failed := false
		for _, p := range a.points {
			err := compare(t.Context(), r, p)
			failed = failed || errors.Is(err, backup.ErrDamaged)
			if err != nil && !errors.Is(err, backup.ErrDamaged) {
				t.Error(err)
			}
		}
		if !failed {
			t.Error("nothing is damaged")
		}
	})
	t.Run("a pack under the name of another of its size", func(t *testing.T) {
		a := original.clone()
		var id format.Name
		a.tamper(t, name, func(raw []byte) []byte {
			raw[24] ^= 1
			id = format.Name(raw[24:40])
			binary.LittleEndian.PutUint32(raw[60:], crc32.Checksum(raw[:60], crc32.MakeTable(crc32.Castagnoli)))
			return a.mend(raw, table.Entries)
		})
		a.forgedFile(t, must(a.open(t).Verify(t.Context(), nil))(t), "another pack", name, notThePack+" but "+id.String())
	})
	t.Run("rot is not called forged", func(t *testing.T) {
		a := original.clone()
		a.tamper(t, name, func(raw []byte) []byte { raw[int(one.Offset)+one.FrameSize()-20] ^= 1; return raw })
		report := must(a.open(t).Verify(t.Context(), nil))(t)
		a.forgedFile(t, report, "a flipped bit", name, "corrupt: frame checksum differs")
		for _, d := range report.Damage {
			if strings.Contains(d.Reason, "forged") {
				t.Errorf("%+v", d)
			}
		}
	})
}

// An index segment that leads ids to other frames: it is not the one that the log names, and the packs are read instead.
func TestForgedSegment(t *testing.T) {
	a := newAttacked(t)
	segments := a.store.Names("index/")
	if len(segments) == 0 {
		t.Fatal("no index segment")
	}
	for _, name := range segments {
		a.reseal(t, name, format.ContextIndex, func(raw []byte) {
			packs := int(binary.LittleEndian.Uint32(raw[20:]))
			entries := raw[64+16*packs:]
			for i := 1; i < int(binary.LittleEndian.Uint64(raw[24:])); i++ { // each id to the place of the one before
				copy(entries[48*i+32:48*i+48], entries[48*(i-1)+32:48*i])
			}
		})
	}
	r := a.open(t)
	for _, p := range a.points {
		if err := compare(t.Context(), r, p); err != nil {
			t.Error(err)
		}
	}
	if report := must(r.Verify(t.Context(), nil))(t); len(report.Damage) == 0 || len(r.Warnings()) == 0 {
		t.Errorf("verify found nothing, warnings %v", r.Warnings())
	}
}

func TestForgedPointFiles(t *testing.T) {
	original := newAttacked(t)
	files := original.store.Names("points/")
	for _, text := range []string{`"size":`, `"domain":"`} {
		a := original.clone()
		a.reseal(t, files[0], format.ContextPoint, func(raw []byte) {
			at := bytes.Index(raw, []byte(text)) + len(text)
			raw[at] = map[bool]byte{true: '7', false: '8'}[raw[at] != '7']
		})
		a.mustCallForged(t, "a changed header", files[0], "forged: ")
	}
	a := original.clone()
	a.reseal(t, files[0], format.ContextPoint, func(raw []byte) { raw[len(raw)-100] ^= 1 })
	a.mustCallForged(t, "a changed body", files[0], "forged: ")
	b := original.clone()
	exchange(t, b.store, files[0], files[1])
	r := b.open(t)
	for _, p := range b.points {
		if _, err := r.ReadPoint(t.Context(), p.ID()); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("the file of another point: %v", err)
		}
	}
}

// Nothing that a person or the source named stands anywhere in clear, in the repository or in this machine's cache.
func TestNothingInClear(t *testing.T) {
	a := newAttacked(t)
	r := must(openSmall(t.Context(), a.store, a.cache))(t)
	secret := func(native string) *sourcetest.Point {
		return &sourcetest.Point{Machine: sourcetest.Machine("hiddenmachine"), Native: native, Created: at(5), Objects: []sourcetest.Object{
			{Role: backup.RoleDisk, Name: "hiddendisk", Access: source.AccessRandom, Data: bytes.Repeat([]byte("hiddencontent "), 2000)},
			{Role: backup.RoleConfiguration, Name: "hiddenfile", Data: []byte("hiddenconfiguration")},
		}}
	}
	broken := secret("hiddenbroken")
	broken.Revalidated = errInjected // leaves an unfinished copy with the source's validator
	_, _ = copyAll(t.Context(), r, sourcetest.Open(t, broken))
	mustCopyAll(t, r, secret("hiddenpoint"))
	closeRepo(t, r)
	if len(a.store.Names("partials/")) == 0 {
		t.Error("no unfinished copy")
	}
	for _, name := range a.store.Names("") {
		if raw := must(storage.ReadAll(t.Context(), a.store, name, 1<<30))(t); bytes.Contains(raw, []byte("hidden")) || strings.Contains(name, "hidden") {
			t.Errorf("%s tells", name)
		}
	}
	for name, info := range filesBelow(t, a.cache) {
		if bytes.Contains(info.content, []byte("hidden")) || info.mode.Perm() != 0o600 {
			t.Errorf("%s in the cache: mode %s", name, info.mode)
		}
	}
}

// In a sealed domain that is asked to be plain nothing but the names is hidden.
func TestPlainDomain(t *testing.T) {
	a := newAttacked(t)
	r := must(openSmall(t.Context(), a.store, ""))(t)
	defer closeRepo(t, r)
	in := must(r.NewIngest(t.Context(), repo.IngestOptions{Sealed: true, Plain: true}))(t)
	block := bytes.Repeat([]byte("visible "), smallBlock/8)
	must(in.StoreBlock(t.Context(), in.BlockID(block), block, repo.CodecNone))(t)
	if err := in.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range a.store.Names("packs/") {
		raw := must(storage.ReadAll(t.Context(), a.store, name, 1<<30))(t)
		found = found || bytes.Contains(raw, block)
	}
	if !found {
		t.Error("the block is encrypted")
	}
	check(t, r, a.points...)
}

type fileInfo struct {
	content []byte
	mode    fs.FileMode
}

func filesBelow(t *testing.T, folder string) map[string]fileInfo {
	t.Helper()
	found := map[string]fileInfo{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		found[path] = fileInfo{content, info.Mode()}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("%d files in the cache, %v", len(found), err)
	}
	return found
}
