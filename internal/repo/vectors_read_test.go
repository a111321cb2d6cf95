package repo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// opener reads the files of vectors as this program reads them in a repository. Its methods take what docs/format.md,
// section 17, says of the functions that are called like them, the first of that, the key ring, apart.
type opener struct {
	t         *testing.T
	store     *memory.Store
	algorithm format.Hash
	repo      *repo.Repository
}

// open runs a vector's function on its input.
func open(t *testing.T, function, hash string, input [][]byte) (output []byte, err error) {
	t.Helper()
	o := opener{t: t, store: memory.New()}
	if hash != "" {
		o.algorithm = must(format.ParseHash(hash))(t)
	}
	plain := map[string]func([][]byte) ([]byte, error){
		"openRing": o.ring, "openKit": o.kit, "openVerified": o.verified, "openLastRun": o.lastRun, "repairPack": o.repaired, "keyFiles": o.keyFiles,
	}
	if read := plain[function]; read != nil {
		return read(input)
	}
	var ring *keyring.Ring
	if len(input[0]) > 0 {
		if ring, err = keyring.Decode(input[0]); err != nil {
			return nil, err
		}
	}
	if function == "keyCheck" {
		check := ring.Check()
		return check[:], nil
	}
	o.repo = repo.Bare(o.store, o.algorithm, ring)
	with := map[string]func([][]byte) ([]byte, error){
		"openBlock": o.frame, "openPoint": o.point, "openEntries": o.entries, "openCheckpoint": o.checkpoint, "openPack": o.pack,
		"openSegment": o.segment, "openPartial": o.partial, "openJob": o.job,
	}
	switch function {
	case "openDescription":
		return o.description(ring, input[1])
	case "openNote":
		return o.note(ring, string(input[1]), input[2])
	}
	return with[function](input[1:])
}

func (o opener) put(name string, content []byte) {
	if err := o.store.Put(o.t.Context(), name, content); err != nil {
		o.t.Fatal(err)
	}
}

// item is what the log says of a file.
func item[T any](o opener, raw []byte) (value T) {
	if err := json.Unmarshal(raw, &value); err != nil {
		o.t.Fatal(err)
	}
	return value
}

func (o opener) description(ring *keyring.Ring, raw []byte) ([]byte, error) {
	description, algorithm, err := format.ParseDescription(raw)
	if err == nil && ring != nil {
		err = ring.Fits(description.ID, description.KeyCheck)
	}
	sum := format.NewHasher(max(algorithm, format.HashBLAKE3), [32]byte{}).Sum(format.ContextRepository, raw)
	return sum[:], err
}

func (o opener) frame(input [][]byte) ([]byte, error) {
	return o.repo.DecodeFrame(input[1], format.ID(input[0]))
}

func (o opener) point(input [][]byte) ([]byte, error) {
	p, err := repo.DecodePoint(o.repo.Hasher(), input[0])
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s %s %s", p.ID, p.Machine.Name, p.Created.Format(stampLayout)), nil
}

func (o opener) entries(input [][]byte) ([]byte, error) {
	for _, raw := range input {
		if err := o.repo.ReadEntry(o.t.Context(), raw); err != nil {
			return nil, err
		}
	}
	var keyless []string
	for _, n := range o.repo.Keyless() {
		keyless = append(keyless, fmt.Sprint(n))
	}
	return fmt.Appendf(nil, "head=%s keyless=%s", o.repo.State().Head.Checksum, strings.Join(keyless, ",")), nil
}

// checkpoint must say what the entries before it say.
func (o opener) checkpoint(input [][]byte) ([]byte, error) {
	n := uint64(len(input) - 1)
	if _, err := o.entries(input[1:]); err != nil {
		return nil, err
	}
	o.put(commitlog.CheckpointName(n), input[0])
	o.put(commitlog.EntryName(n), input[n])
	state, err := o.repo.ReadCheckpoint(o.t.Context(), n)
	if err != nil {
		return nil, err
	}
	output := must(json.Marshal(state.Payload()))(o.t)
	if replayed := must(json.Marshal(o.repo.State().Payload()))(o.t); !bytes.Equal(output, replayed) {
		return nil, fmt.Errorf("the checkpoint says %s, the entries before it say %s", output, replayed)
	}
	return output, nil
}

func (o opener) pack(input [][]byte) ([]byte, error) {
	named := item[commitlog.Pack](o, input[0])
	o.put(pack.ObjectName(named.ID), input[1])
	contents, err := o.repo.ReadPack(o.t.Context(), named)
	return bytes.Join(contents, nil), err
}

func (o opener) segment(input [][]byte) ([]byte, error) {
	named := item[commitlog.Segment](o, input[0])
	o.put("index/"+named.ID.String(), input[1])
	segment, err := o.repo.ReadSegment(o.t.Context(), named)
	if err != nil {
		return nil, err
	}
	defer segment.Close()
	var lines []string
	for i := range segment.Len() {
		e, err := segment.At(i)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s %s %d %d %d", e.ID, e.Pack, e.Offset, e.Stored, e.Plain))
	}
	return []byte(strings.Join(lines, "\n")), nil
}

func (o opener) partial(input [][]byte) ([]byte, error) {
	named := item[commitlog.Partial](o, input[0])
	o.put(named.File, input[1])
	header, records, counts, err := o.repo.ReadPartial(o.t.Context(), named, input[2])
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "%s %s %s blockSize=%d plain=%t counts=%t", header.Task, header.Point, header.Domain, header.BlockSize, header.Plain, counts)
	for record := range slices.Chunk(records, 48) {
		text = fmt.Appendf(text, "\n%d %d %d %x", binary.LittleEndian.Uint32(record), binary.LittleEndian.Uint32(record[4:]), binary.LittleEndian.Uint64(record[8:]), record[16:])
	}
	return text, nil
}

func (o opener) job(input [][]byte) ([]byte, error) {
	o.put(string(input[0]), input[1])
	return o.repo.ReadJobFile(o.t.Context(), string(input[0]))
}

// note reads one beside its key file, which nobody needs to open for that.
func (o opener) note(ring *keyring.Ring, name string, raw []byte) ([]byte, error) {
	o.put(name, nil)
	o.put(name+keyring.NoteSuffix, raw)
	list, err := keyring.Recipients(o.t.Context(), o.store, ring)
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("%d recipients, %w", len(list), err)
	}
	one := list[0]
	if !one.Known {
		return nil, format.ErrForged
	}
	return fmt.Appendf(nil, "%s %s %s %s", one.ID, one.PublicKey, one.Label, one.Added.Format(stampLayout)), nil
}

// ring finds the key ring of a repository with these files.
func (o opener) ring(input [][]byte) ([]byte, error) {
	var identities []age.Identity
	for text := range strings.Lines(string(input[0])) {
		text = strings.TrimSuffix(text, "\n")
		if phrase, is := strings.CutPrefix(text, "passphrase: "); is {
			identities = append(identities, must(keyring.NewPassphrase(phrase).Identity())(o.t))
			continue
		}
		identities = append(identities, must(age.ParseIdentities(strings.NewReader(text)))(o.t)...)
	}
	for file := range slices.Chunk(input[3:], 2) {
		o.put(string(file[0]), file[1])
	}
	ring, _, err := keyring.Load(o.t.Context(), o.store, format.Name(input[1]), format.Name(input[2]), func(_ context.Context, try int, _ []keyring.Kind) ([]age.Identity, error) {
		if try > 0 {
			return nil, nil
		}
		return identities, nil
	})
	if err != nil {
		return nil, err
	}
	return ring.Encode(), nil
}

// shown is a store whose listings show those files alone whose names are not behind the last one.
type shown struct {
	storage.Store
	last string
}

func (s shown) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix) {
			if err == nil && info.Name <= s.last && !yield(info, err) {
				return
			}
		}
	}
}

func (o opener) keyFiles(input [][]byte) ([]byte, error) {
	for list := range slices.Chunk(input[1:], 2) {
		o.put(string(list[0]), list[1])
	}
	found, err := keyring.Files(o.t.Context(), shown{o.store, string(input[0])})
	var paths []string
	for _, file := range found {
		paths = append(paths, file.Path())
	}
	slices.Sort(paths)
	return []byte(strings.Join(paths, " ")), err
}

func (o opener) kit(input [][]byte) ([]byte, error) {
	var known []keyring.Passphrase
	if len(input[0]) > 0 {
		known = append(known, keyring.NewPassphrase(string(input[0])))
	}
	kit, err := keyring.DecodeKit(input[1], known...)
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "entries=%d checksum=%s exported=%s\n", kit.Entries, kit.Checksum, kit.Exported.Format(stampLayout))
	return append(text, kit.Ring.Encode()...), nil
}

func (o opener) verified(input [][]byte) ([]byte, error) {
	said, err := repo.DecodeProofs(format.NewHasher(o.algorithm, [32]byte{}), input[0])
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "level=%d began=%d worked=%d pack=%s machine=%s", said.Level, said.Begun.Unix(), said.Worked.Unix(), said.Pack, said.Machine)
	for _, id := range slices.SortedFunc(maps.Keys(said.Packs), format.Name.Compare) {
		text = fmt.Appendf(text, "\n%s %d %d", id, said.Packs[id].Stored, said.Packs[id].Blocks)
	}
	return text, nil
}

func (o opener) lastRun(input [][]byte) ([]byte, error) {
	r := repo.Bare(o.store, o.algorithm, nil)
	o.put("marks/last-run", input[0])
	r.State().Head.N = 1 << 40
	run, _ := r.LastRun(o.t.Context())
	if run == nil {
		return nil, format.ErrCorrupt
	}
	return must(json.Marshal(run))(o.t), nil
}

func (o opener) repaired(input [][]byte) ([]byte, error) {
	coder, size := parity.NewCoder(format.NewHasher(o.algorithm, [32]byte{})), int64(binary.LittleEndian.Uint64(input[1]))
	file := bytes.NewReader(input[2])
	opened, err := coder.Open(file, file.Size(), format.Name(input[0]), size)
	if err != nil {
		return nil, err
	}
	whole, err := coder.Repair(bytes.NewReader(input[3]), file, opened)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(whole, 0, whole.Size()))
}

// refusals are why vectors are refused, the first that fits.
var refusals = []struct {
	class string
	errs  []error
}{
	{"forged", []error{format.ErrForged, keyring.ErrForged}},
	{"foreign", []error{keyring.ErrForeign}},
	{"newer", []error{format.ErrNewer}},
	{"olderKey", []error{repo.ErrOlderKey}},
	{"key", []error{keyring.ErrNoGeneration, keyring.ErrWrongKey, keyring.ErrNoKeyFiles, keyring.ErrKitPassphrase, repo.ErrKitTooOld}},
	{"corrupt", []error{format.ErrCorrupt, parity.ErrTooMuch, keyring.ErrNoKit, storage.ErrNotExist}},
}

func refusal(err error) string {
	for _, r := range refusals {
		if slices.ContainsFunc(r.errs, func(class error) bool { return errors.Is(err, class) }) {
			return r.class
		}
	}
	return ""
}
