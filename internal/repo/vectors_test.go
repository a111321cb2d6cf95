package repo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
)

var update = flag.Bool("update", false, "write docs/format-vectors.json anew")

// vector is one test vector as `reader.py vectors` reads it. All bytes are hex.
type vector struct {
	Name     string `json:"name"`
	Function string `json:"function"`
	Hash     string `json:"hash,omitempty"`
	Context  string `json:"context,omitempty"`
	IDKey    string `json:"idKey,omitempty"`
	Input    any    `json:"input"`
	Output   string `json:"output"`
	// Refused is why a reader must refuse the input; then there is no output.
	Refused string `json:"refused,omitempty"`
}

// TestVectors holds the vectors of the specification against this implementation; `reader.py vectors` holds them against
// the other one. A vector that changes is a change of the format.
func TestVectors(t *testing.T) {
	all := slicesOf(plainVectors(), nameVectors(), hashVectors(t), keyVectors(t), keyListVectors(t), lockVectors(), domainVectors(t), parityVectors(t), fileVectors(t))
	content, err := json.MarshalIndent(shared(all), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, '\n')
	file := filepath.Join("..", "..", "docs", "format-vectors.json")
	if *update {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(written, content) {
		return
	}
	var there vectorFile
	if err := json.Unmarshal(written, &there); err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for _, v := range there.Vectors {
		known[v.Name] = v.Output
	}
	for _, v := range all {
		if output, ok := known[v.Name]; !ok || output != v.Output {
			t.Errorf("vector %q gives %s, %s says %q", v.Name, v.Output, file, output)
		}
	}
	t.Errorf("%s is not what this test makes; if the format is meant to change, run it with -update", file)
}

// vectorFile is docs/format-vectors.json.
type vectorFile struct {
	// Parts are bytes that several vectors have, by a name that begins with @ and stands in their place.
	Parts   map[string]string `json:"parts"`
	Vectors []vector          `json:"vectors"`
}

// sharedFrom is how many hex digits of a part are worth a name.
const sharedFrom = 128

// shared gives names to what several vectors have.
func shared(all []vector) vectorFile {
	file := vectorFile{Parts: map[string]string{}, Vectors: all}
	seen := map[string]int{}
	each := func(visit func(part *string)) {
		for i := range all {
			parts, _ := all[i].Input.([]string)
			for j := range parts {
				visit(&parts[j])
			}
			visit(&all[i].Output)
		}
	}
	each(func(part *string) { seen[*part]++ })
	each(func(part *string) {
		if len(*part) >= sharedFrom && seen[*part] > 1 {
			sum := sha256.Sum256([]byte(*part))
			name := "@" + hex.EncodeToString(sum[:6])
			file.Parts[name], *part = *part, name
		}
	})
	return file
}

func slicesOf(lists ...[]vector) (all []vector) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// ramp is content in which every byte tells its place, as in the vectors that the authors of BLAKE3 publish.
func ramp(size int) []byte {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i % 251)
	}
	return content
}

func hexes(parts ...string) []string {
	var out []string
	for _, part := range parts {
		out = append(out, hex.EncodeToString([]byte(part)))
	}
	return out
}

// plainVectors are those that are the same in every repository.
func plainVectors() []vector {
	var all []vector
	for _, message := range []string{"", "123456789", string(make([]byte, 32))} {
		sum := crc32.Checksum([]byte(message), crc32.MakeTable(crc32.Castagnoli))
		all = append(all, vector{
			Name: fmt.Sprintf("CRC-32C of %q", message), Function: "crc32c", Input: hexes(message)[0],
			Output: hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, sum)),
		})
	}
	for _, m := range machines() {
		key, parts := m.key(), hexes(m.platform, m.instance, m.uuid, m.source, m.native)
		all = append(all,
			vector{Name: "machine key: " + m.what, Function: "machineKey", Input: parts, Output: hex.EncodeToString(key.Canonical())},
			vector{Name: "point id: " + m.what, Function: "pointId", Input: append(parts, hexes(m.point)...), Output: backup.NewPointID(key, m.point).String()},
		)
	}
	return all
}

// machine is what a source says about one.
type machine struct{ what, platform, instance, uuid, source, native, point string }

func (m machine) key() backup.MachineKey {
	key := backup.NewMachineKey(backup.Platform(m.platform), m.native, m.uuid, m.source)
	key.Instance = m.instance
	return key
}

func machines() []machine {
	const uuid = "3f1d6a52-0c1b-4f0e-9a57-2b8f3d9c1e00"
	return []machine{
		{"nothing stated", "", "", "", "", "", ""},
		{"no UUID, so the source's name counts", "proxmox", "", "", "dump", "100", "vzdump-qemu-100-2026_11_22-01_00_00"},
		{"another source, another machine", "proxmox", "", "", "dump2", "100", "vzdump-qemu-100-2026_11_22-01_00_00"},
		{"a UUID, so the source's name does not count", "libvirt", "", uuid, "", "web01", "1"},
		{"the same from another source, its UUID in upper case", "libvirt", "", "3F1D6A52-0C1B-4F0E-9A57-2B8F3D9C1E00", "other", "web01", "1"},
		{"an instance", "proxmox", "berlin", uuid, "", "100", "2026-11-22T01:00:00Z"},
		{"bytes that are not UTF-8, as they are", "image", "", "", "Bücher\xff", "a/b\x00%", "native \xff\n"},
	}
}

func nameVectors() []vector {
	var all []vector
	for _, name := range []string{
		"", "drive-scsi0", "a b/c\\d", "100%", "%41", "Zürich 日本", "line\nend\x00\x1f\x7f", "\u0080\u009f\u00a0", "\xff\xc3(", "\xe2\x82", "\xed\xa0\x80", "\U0001F600\ufffd",
	} {
		encoded := backup.EncodeName(name)
		all = append(all,
			vector{Name: fmt.Sprintf("name %q encoded", name), Function: "nameEncode", Input: hexes(name)[0], Output: hexes(encoded)[0]},
			vector{Name: fmt.Sprintf("name %q decoded", encoded), Function: "nameDecode", Input: hexes(encoded)[0], Output: hexes(name)[0]},
		)
	}
	for _, encoded := range []string{"%c3%bc", "%41%2f"} { // readers accept lower-case escapes, and needless ones
		decoded, err := backup.DecodeName(encoded)
		if err != nil {
			panic(err)
		}
		all = append(all, vector{Name: fmt.Sprintf("name %q decoded", encoded), Function: "nameDecode", Input: hexes(encoded)[0], Output: hexes(decoded)[0]})
	}
	return all
}

// hashed makes vectors of one repository.
type hashed struct {
	hasher *format.Hasher
	idKey  string
	label  string
	all    []vector
}

func (h *hashed) add(name, function, context string, input any, output []byte) {
	v := vector{Name: h.label + ": " + name, Function: function, Hash: h.hasher.Algorithm().String(), Context: context, Input: input, Output: hex.EncodeToString(output)}
	if function != "U" {
		v.IDKey = h.idKey
	}
	if raw, ok := input.([]byte); ok {
		v.Input = hex.EncodeToString(raw)
	}
	h.all = append(h.all, v)
}

func hashVectors(t *testing.T) []vector {
	var all []vector
	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		for _, idKey := range [][32]byte{{}, [32]byte(ramp(32))} {
			h := &hashed{hasher: format.NewHasher(algorithm, idKey), idKey: hex.EncodeToString(idKey[:]), label: algorithm.String()}
			keyed := idKey != [32]byte{}
			if keyed {
				h.label += " with an id key"
			}
			h.contexts(keyed)
			h.trees(t)
			if !keyed {
				h.files(t)
			}
			all = append(all, h.all...)
		}
	}
	return all
}

func (h *hashed) contexts(keyedOnly bool) {
	for context := format.ContextBlock; context <= format.ContextJobName; context++ {
		function := "U"
		if context <= format.ContextValidator {
			function = "K"
		} else if keyedOnly {
			continue
		}
		for _, message := range [][]byte{nil, []byte("ferry")} {
			sum := h.hasher.Sum(context, message)
			h.add(fmt.Sprintf("%q of %q", context, message), function, context.String(), message, sum[:])
		}
	}
	for _, size := range []int{64, 65, 1024, 1025, 2049} {
		id := h.hasher.Sum(format.ContextBlock, ramp(size))
		h.add(fmt.Sprintf("block of %d bytes", size), "blockId", "", ramp(size), id[:])
	}
	for _, m := range machines() {
		key := m.key().Canonical()
		pseudonym := h.hasher.Sum(format.ContextMachine, key)
		h.add("pseudonym: "+m.what, "pseudonym", "", key, pseudonym[:16])
	}
}

// trees of three small objects: their nodes, and their root records.
func (h *hashed) trees(t *testing.T) {
	keep := &keeper{h: h, nodes: map[format.ID][]byte{}}
	change := func(block int64) tree.Change {
		return tree.Change{Block: block, ID: h.hasher.Sum(format.ContextBlock, []byte{byte(block)})}
	}
	for _, size := range []int64{0, 4096*300 + 1} {
		root, err := tree.BuildFixed(t.Context(), keep, nil, size, 4096, func(yield func(tree.Change, error) bool) {
			if size > 0 {
				_ = yield(change(1), nil) && yield(change(255), nil) && yield(change(300), nil)
			}
		})
		h.root(t, fmt.Sprintf("root of a disk of %d bytes", size), root, err)
	}
	stream := tree.NewStreamBuilder(keep)
	for i := range 20 {
		id := format.ID{31: 2}
		if i == 17 {
			id = format.ID{} // zeros: they end the node, as there are 16 entries before
		}
		if err := stream.Add(t.Context(), id, int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := stream.Finish(t.Context())
	h.root(t, "root of a stream", root, err)
}

func (h *hashed) root(t *testing.T, name string, root tree.Root, err error) {
	if err != nil {
		t.Fatal(err)
	}
	id := root.ID(h.hasher)
	h.add(name, "rootId", "", root.Bytes(), id[:])
}

// files are whole files as this program writes them; each checksum covers all before it.
func (h *hashed) files(t *testing.T) {
	hasher, content := h.hasher, []byte("ferry")
	id := hasher.Sum(format.ContextBlock, content)
	frame := pack.AppendFrame(nil, hasher, nil, pack.KindBlock, pack.CodecNone, id, content)
	h.add("whole frame of a block, not compressed", "frame", "", content, frame)
	var out bytes.Buffer
	name, domain := format.Name(ramp(16)), format.Name(ramp(32)[16:])
	w, err := pack.NewWriter(&out, hasher, pack.Header{Kind: pack.KindBlock, Hash: hasher.Algorithm(), ID: name, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	entry, err := w.Append(frame)
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	raw := out.Bytes()
	h.add("root of a pack: header, then table", "U", format.ContextPack.String(), append(bytes.Clone(raw[:64]), raw[len(raw)-128:len(raw)-64]...), root[:])
	h.file("index segment", format.ContextIndex, index.Build(hasher, []index.Entry{{ID: id, Place: index.Place{
		Pack: name, Offset: entry.Offset, Stored: entry.Stored, Plain: entry.Plain,
	}}}))
	payload := &commitlog.Payload{Time: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Writer: name.String(), Packs: []commitlog.Pack{{
		ID: name, Kind: pack.KindBlock.String(), Domain: domain, Size: int64(len(raw)), Frames: 1, Root: root,
	}}}
	log, head, err := commitlog.Encode(hasher, 2, format.ID(ramp(32)), payload)
	if err != nil {
		t.Fatal(err)
	}
	h.file("log entry", format.ContextLogEntry, log)
	checkpoint, err := commitlog.EncodeCheckpoint(hasher, head, payload)
	if err != nil {
		t.Fatal(err)
	}
	h.file("checkpoint", format.ContextCheckpoint, checkpoint)
}

func (h *hashed) file(name string, context format.Context, raw []byte) {
	h.add("checksum of a whole "+name, "U", context.String(), raw[:len(raw)-32], raw[len(raw)-32:])
}

// keeper adds a vector for every node that a tree stores.
type keeper struct {
	h     *hashed
	nodes map[format.ID][]byte
}

func (k *keeper) Load(_ context.Context, id format.ID) ([]byte, error) { return k.nodes[id], nil }

func (k *keeper) Store(_ context.Context, node []byte) (format.ID, error) {
	id := tree.NodeID(k.h.hasher, node)
	k.nodes[id] = node
	k.h.add(fmt.Sprintf("node %d: type %d, level %d", len(k.nodes), node[0], node[1]), "nodeId", "", node, id[:])
	return id, nil
}
