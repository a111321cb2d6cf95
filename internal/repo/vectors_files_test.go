package repo_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
)

// files makes vectors of whole files, and reads each as this program would: what it must say, or why it is refused.
type files struct {
	t         *testing.T
	algorithm format.Hash
	// rawRing are the keys of the encrypted repository that the files are of, and hasher its.
	rawRing []byte
	ring    *keyring.Ring
	hasher  *format.Hasher
	all     []vector
}

func newFiles(t *testing.T, algorithm format.Hash) *files {
	raw, ring := vectorRing(t)
	f := &files{t: t, algorithm: algorithm, rawRing: raw, ring: ring}
	f.hasher = f.hasherOf(2)
	return f
}

// atGeneration are keys of which one is the current one.
type atGeneration struct {
	*keyring.Ring
	generation uint32
}

func (k atGeneration) Generation() uint32 { return k.generation }

// hasherOf makes MACs of a generation, and none with 0.
func (f *files) hasherOf(generation uint32) *format.Hasher {
	if generation == 0 {
		return format.NewLockedHasher(f.algorithm)
	}
	return format.NewEncryptedHasher(f.algorithm, f.ring.IDKey, atGeneration{f.ring, generation})
}

func (f *files) add(name, function string, input [][]byte) *vector {
	f.t.Helper()
	v := vector{Name: fmt.Sprintf("%s: %s", f.algorithm, name), Function: function, Hash: f.algorithm.String()}
	var parts []string
	for _, part := range input {
		parts = append(parts, hex.EncodeToString(part))
	}
	v.Input = parts
	f.all = append(f.all, v)
	return &f.all[len(f.all)-1]
}

// says adds files that say what is wanted.
func (f *files) says(name, function, want string, input ...[]byte) {
	f.t.Helper()
	v := f.add(name, function, input)
	output, err := open(f.t, function, v.Hash, input)
	if err != nil || string(output) != want {
		f.t.Errorf("%s: it says\n%q, %v, want\n%q", v.Name, output, err, want)
	}
	v.Output = hex.EncodeToString([]byte(want))
}

// refused adds files that must be refused, and why.
func (f *files) refused(name, function, class string, input ...[]byte) {
	f.t.Helper()
	v := f.add("refused: "+name, function, input)
	if output, err := open(f.t, function, v.Hash, input); refusal(err) != class {
		f.t.Errorf("%s: it says %q, %v, want it refused as %s", v.Name, output, err, class)
	}
	v.Refused = class
}

// changed is a file that ends with its checksum, which fits whatever was changed.
func (f *files) changed(raw []byte, context format.Context, change func(raw []byte)) []byte {
	raw = bytes.Clone(raw)
	change(raw)
	sum := f.hasher.Sum(context, raw[:len(raw)-32])
	copy(raw[len(raw)-32:], sum[:])
	return raw
}

// flipped has one bit that is not what was written.
func flipped(raw []byte, at int) []byte {
	raw = bytes.Clone(raw)
	raw[at] ^= 1
	return raw
}

func asJSON(t *testing.T, value any) []byte { return must(json.Marshal(value))(t) }

// fileVectors are those of all kinds of files of an encrypted repository, and of what must not be taken for one.
func fileVectors(t *testing.T) []vector {
	t.Helper()
	var all []vector
	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		f := newFiles(t, algorithm)
		f.descriptions()
		f.logs()
		f.points()
		f.packs()
		f.partials()
		f.jobs()
		f.marks()
		f.parity()
		all = append(all, f.all...)
	}
	return append(all, openingVectors(t)...)
}

func (f *files) descriptions() {
	check := f.ring.Check()
	made := func(change func(*format.Description)) []byte {
		d := format.NewDescription(f.algorithm, 4096, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
		d.ID = f.ring.Repository
		d.Encrypt(check)
		change(&d)
		return asJSON(f.t, d)
	}
	says := func(name string, ring, raw []byte) {
		sum := f.hasher.Sum(format.ContextRepository, raw)
		f.says(name, "openDescription", string(sum[:]), ring, raw)
	}
	says("description", f.rawRing, made(func(*format.Description) {}))
	says("description with parity and lock, not encrypted", nil, made(func(d *format.Description) {
		d.Encrypted, d.KeyCheck, d.RequiredFeatures = false, format.Name{}, 0
		d.Parity = &format.Parity{Data: 244, Parity: 12}
		d.Locks(format.Lock{Mode: "compliance", Seconds: 2592000})
	}))
	for _, c := range []struct {
		name, class string
		change      func(*format.Description)
	}{
		{"a description that does not say that it is encrypted", "corrupt", func(d *format.Description) { d.Encrypted = false }},
		{"a description whose required bit is not set", "corrupt", func(d *format.Description) { d.RequiredFeatures = 0 }},
		{"a description without a key check", "corrupt", func(d *format.Description) { d.KeyCheck = format.Name{} }},
		{"a description with the key check of another ring", "foreign", func(d *format.Description) { d.KeyCheck[0]++ }},
		{"the description of another repository with these keys", "foreign", func(d *format.Description) { d.ID[0]++ }},
		{"a description with a required bit that is not known", "newer", func(d *format.Description) { d.RequiredFeatures |= 2 }},
		{"a description of version 2", "newer", func(d *format.Description) { d.Version = 2 }},
		{"a description with a hash that is not known", "newer", func(d *format.Description) { d.Hash = "sha-512" }},
		{"a description with another block size than there may be", "corrupt", func(d *format.Description) { d.BlockSize = 4097 }},
	} {
		f.refused(c.name, "openDescription", c.class, f.rawRing, made(c.change))
	}
}

// pointFile makes a point of a machine with a native id, in a domain.
func (f *files) pointFile(hasher *format.Hasher, native string) (raw []byte, header, body []byte) {
	machine := backup.NewMachineKey(backup.PlatformProxmox, "100", "", "dump")
	id, pseudonym := backup.NewPointID(machine, native), f.hasher.Sum(format.ContextMachine, machine.Canonical())
	header = fmt.Appendf(nil, `{"id":"%s","machine":"%s","created":"2026-11-22T01:00:00Z","domain":"%s","trees":[]}`, id, format.Name(pseudonym[:16]), f.ring.Repository)
	body = fmt.Appendf(nil, `{"machine":{"platform":"proxmox","nativeId":"100","sourceName":"dump","name":"%s"},"origin":{"nativeId":"%s"},"objects":[]}`, "web "+native, native)
	salt := [format.SaltSize]byte{}
	if hasher.Generation() != 0 {
		salt = [format.SaltSize]byte(ramp(16))
	}
	raw, err := repo.SealPoint(hasher, salt, id, header, body)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw, header, body
}

func (f *files) points() {
	one, header, _ := f.pointFile(f.hasher, "one")
	two, _, _ := f.pointFile(f.hasher, "two")
	bare, _, _ := f.pointFile(format.NewHasher(f.algorithm, f.ring.IDKey), "one")
	body := 48 + len(header)
	context := format.ContextPoint
	mac := func(raw []byte) {
		made := must(f.hasher.MAC(format.InfoPoint, 2, raw[:len(raw)-64]))(f.t)
		copy(raw[len(raw)-64:], made[:])
	}
	f.refused("a point with a damaged byte", "openPoint", "corrupt", f.rawRing, flipped(one, 60))
	f.refused("a point whose header was changed", "openPoint", "forged", f.rawRing, f.changed(one, context, func(raw []byte) {
		copy(raw[48:], bytes.Replace(header, []byte("01:00:00Z"), []byte("02:00:00Z"), 1))
	}))
	f.refused("a point with the body of another", "openPoint", "forged", f.rawRing, f.changed(one, context, func(raw []byte) {
		copy(raw[body:], two[body:len(two)-64])
		mac(raw)
	}))
	f.refused("a point under another salt", "openPoint", "forged", f.rawRing, f.changed(one, context, func(raw []byte) { raw[24]++; mac(raw) }))
	f.refused("a point that is not encrypted, in an encrypted repository", "openPoint", "forged", f.rawRing, bare)
	f.refused("an encrypted point in a repository that is not", "openPoint", "forged", nil, one)
	f.refused("a point whose required bit is not set", "openPoint", "corrupt", f.rawRing, f.changed(one, context, func(raw []byte) { raw[12] = 0; mac(raw) }))
	f.refused("a point of a generation that the ring lacks", "openPoint", "key", f.rawRing, f.changed(one, context, func(raw []byte) { raw[20] = 9 }))
	f.refused("a point of version 2", "openPoint", "newer", f.rawRing, f.changed(one, context, func(raw []byte) { raw[8] = 2 }))
}

// jobs are what a job leaves.
func (f *files) jobs() {
	record := repo.JobRecord{Job: "offsite", Time: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Document: "kind: Job\nname: offsite\n", Memory: json.RawMessage(`{"points":1}`)}
	name := func(job string) []byte {
		sum := f.hasher.Sum(format.ContextJobName, []byte(job))
		return fmt.Appendf(nil, "jobs/%x-%x", sum[:16], ramp(8))
	}
	salt := [format.SaltSize]byte(ramp(16))
	label := append([]byte("ferry v1"), f.ring.Repository[:]...)
	made := must(repo.SealJob(f.hasher, salt, label, record))(f.t)
	body := string(asJSON(f.t, record))
	f.says("job", "openJob", body, f.rawRing, name("offsite"), made)
	bare := must(repo.SealJob(format.NewHasher(f.algorithm, [32]byte{}), [format.SaltSize]byte{}, nil, record))(f.t)
	f.says("job, not encrypted", "openJob", body, nil, name("offsite"), bare)
	other := f.ring.For(format.Name(ramp(32)[16:]))
	context := format.ContextJob
	f.refused("the job of another repository with these keys", "openJob", "forged", other.Encode(), name("offsite"), made)
	f.refused("a job under the name of another", "openJob", "corrupt", f.rawRing, name("nightly"), made)
	f.refused("a job that is not encrypted, in an encrypted repository", "openJob", "forged", f.rawRing, name("offsite"), bare)
	f.refused("an encrypted job in a repository that is not", "openJob", "forged", nil, name("offsite"), made)
	f.refused("a job with a damaged byte", "openJob", "corrupt", f.rawRing, name("offsite"), flipped(made, 50))
	f.refused("a job that was changed", "openJob", "forged", f.rawRing, name("offsite"), f.changed(made, context, func(raw []byte) { raw[50]++ }))
	f.refused("a job of an earlier generation than its body", "openJob", "forged", f.rawRing, name("offsite"), f.changed(made, context, func(raw []byte) { raw[20] = 1 }))
	f.refused("a job of a generation that the ring lacks", "openJob", "key", f.rawRing, name("offsite"), f.changed(made, context, func(raw []byte) { raw[20] = 9 }))
	f.refused("a job with a salt that is not encrypted", "openJob", "corrupt", nil, name("offsite"), f.changed(bare, context, func(raw []byte) { raw[24] = 1 }))
}

// partials are parts of unfinished copies: of a domain that is encrypted, and of a sealed one that is not.
func (f *files) partials() {
	validator := []byte("dump/vzdump-qemu-100.vma.zst 17")
	kept := f.hasher.Sum(format.ContextValidator, validator)
	id := f.hasher.Sum(format.ContextBlock, []byte("ferry"))
	record := func(object, count uint32, first uint64, id format.ID) []byte {
		raw := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, object), count)
		return append(binary.LittleEndian.AppendUint64(raw, first), id[:]...)
	}
	header := repo.PartialHeader{
		Task: format.Name(ramp(80)[64:]), Point: backup.PointID(ramp(64)[32:]), Machine: format.Name(ramp(96)[80:]), Validator: kept[:], BlockSize: 4096, Domain: f.ring.Repository,
	}
	records := slices.Concat(record(0, 1, 3, id), record(0, 300, 4, format.ID{}))
	lines := fmt.Sprintf("\n0 1 3 %s\n0 300 4 %s", id, format.ID{})
	partial := func(header repo.PartialHeader) (item, raw []byte) {
		raw, sum, err := repo.EncodePartial(f.hasher, header, records)
		if err != nil {
			f.t.Fatal(err)
		}
		return asJSON(f.t, commitlog.Partial{Task: header.Task, Point: header.Point, Machine: header.Machine, File: "partials/" + header.Task.String() + "-00000000", Checksum: sum}), raw
	}
	item, raw := partial(header)
	text := fmt.Sprintf("%s %s %s blockSize=4096 plain=false counts=", header.Task, header.Point, header.Domain)
	f.says("partial", "openPartial", text+"true"+lines, f.rawRing, item, raw, validator)
	f.says("partial of a source that has changed", "openPartial", text+"false"+lines, f.rawRing, item, raw, append(validator, '0'))
	f.refused("a partial that is not the one that the log names", "openPartial", "corrupt", f.rawRing, item, f.changed(raw, format.ContextPartial, func(raw []byte) { raw[len(raw)-40]++ }), validator)
	long := f.changed(raw, format.ContextPartial, func(raw []byte) { raw[24]++ })
	named := commitlog.Partial{Task: header.Task, Point: header.Point, Machine: header.Machine, File: "partials/x", Checksum: format.ID(long[len(long)-32:])}
	f.refused("a partial with fewer records than it says", "openPartial", "corrupt", f.rawRing, asJSON(f.t, named), long, validator)
	header.Domain, header.Plain, header.Validator = format.Name(ramp(32)[16:]), true, nil
	item, raw = partial(header)
	text = fmt.Sprintf("%s %s %s blockSize=4096 plain=true counts=true", header.Task, header.Point, header.Domain)
	f.says("partial of a sealed domain that is not encrypted, without a validator", "openPartial", text+lines, f.rawRing, item, raw, nil)
}

// marks are hints that have a checksum.
func (f *files) marks() {
	at := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	said := repo.Proofs{
		Level: repo.LevelBlocks, Begun: at, Worked: at.Add(time.Minute), Pack: format.Name(ramp(16)), Machine: format.Name(ramp(32)[16:]),
		Packs: map[format.Name]repo.Proof{format.Name(ramp(16)): {Stored: 1, Blocks: 2}, format.Name(ramp(48)[32:]): {Stored: 1 << 31}},
	}
	raw := repo.EncodeProofs(f.hasher, said)
	f.says("state of verification", "openVerified", fmt.Sprintf("level=2 began=%d worked=%d pack=%s machine=%s\n%s 1 2\n%s %d 0", at.Unix(), at.Unix()+60, said.Pack, said.Machine,
		format.Name(ramp(16)), format.Name(ramp(48)[32:]), 1<<31), raw)
	verified := format.ContextVerified
	f.refused("a state of verification with a damaged byte", "openVerified", "corrupt", flipped(raw, 99))
	f.refused("a state of verification that is cut", "openVerified", "corrupt", f.changed(raw[:len(raw)-24], verified, func([]byte) {}))
	f.refused("a state of verification of a level that is not there", "openVerified", "corrupt", f.changed(raw, verified, func(raw []byte) { raw[20] = 4 }))
	f.refused("a state of verification with reserved bytes", "openVerified", "corrupt", f.changed(raw, verified, func(raw []byte) { raw[21] = 1 }))
	run := asJSON(f.t, repo.LastRun{Began: at, Ended: at.Add(time.Hour), Entry: 17, Points: 2, New: 3 << 20, Stored: 1 << 20, Nodes: 4096, Packs: 2})
	sum := f.hasher.Sum(format.ContextLastRun, run)
	f.says("last run", "openLastRun", string(run), append(bytes.Clone(run), sum[:]...))
	f.refused("a last run with a damaged byte", "openLastRun", "corrupt", flipped(append(bytes.Clone(run), sum[:]...), 20))
}

// segmentOf is an index segment of packs, and what the log says of it.
func (f *files) segmentOf(entries []index.Entry, packs ...format.Name) (item commitlog.Segment, raw []byte) {
	raw = index.Build(f.hasher, entries)
	return commitlog.Segment{ID: format.Name(ramp(64)[48:]), Size: int64(len(raw)), Checksum: format.ID(raw[len(raw)-32:]), Packs: packs}, raw
}

// packOf is a pack of frames, and what the log says of it.
func (f *files) packOf(header pack.Header, frames ...[]byte) (item commitlog.Pack, raw []byte, table []pack.Entry) {
	var out bytes.Buffer
	w := must(pack.NewWriter(&out, f.hasher, header))(f.t)
	for _, frame := range frames {
		table = append(table, must(w.Append(frame))(f.t))
	}
	root, size, err := w.Finish()
	if err != nil {
		f.t.Fatal(err)
	}
	return commitlog.Pack{ID: header.ID, Kind: header.Kind.String(), Domain: header.Domain, Size: size, Frames: len(frames), Root: root}, out.Bytes(), table
}
