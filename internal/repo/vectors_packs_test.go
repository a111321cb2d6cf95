package repo_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/repo/tree"
)

// plainFrame is a frame that is not encrypted.
func (f *files) plainFrame(kind pack.Kind, content []byte) []byte {
	id := f.hasher.Sum(format.ContextBlock, content)
	if kind == pack.KindNode {
		id = tree.NodeID(f.hasher, content)
	}
	return pack.AppendFrame(nil, f.hasher, nil, kind, pack.CodecNone, id, content)
}

// summed is a frame whose checksum fits, whatever was changed.
func (f *files) summed(frame []byte) []byte {
	sum := f.hasher.Sum(format.ContextFrame, frame[:80], frame[96:])
	copy(frame[80:96], sum[:])
	return frame
}

// packs are a data pack, one of nodes, and one of a sealed domain that is not encrypted; and a segment that finds all in them.
func (f *files) packs() {
	one, two := []byte("one block"), []byte("two block")
	first, second := sealedFrame(f.t, f.hasher, f.ring, one), sealedFrame(f.t, f.hasher, f.ring, two)
	header := pack.Header{Kind: pack.KindBlock, Hash: f.algorithm, ID: packA, Domain: f.ring.Repository, Generation: 2}
	item, raw, table := f.packOf(header, first, second)
	says := func(name, want string, item commitlog.Pack, raw []byte) {
		f.says(name, "openPack", want, f.rawRing, asJSON(f.t, item), raw)
	}
	says("encrypted pack", "one blocktwo block", item, raw)

	id := f.hasher.Sum(format.ContextBlock, one)
	leaf := slices.Concat([]byte{1, 0, 0, 0, 1}, make([]byte, 31), id[:])
	nodes, rawNodes, nodeTable := f.packOf(pack.Header{Kind: pack.KindNode, Hash: f.algorithm, ID: packB, Domain: f.ring.Repository}, f.plainFrame(pack.KindNode, leaf))
	says("pack of nodes in an encrypted repository", string(leaf), nodes, rawNodes)
	open, rawOpen, openTable := f.packOf(pack.Header{Kind: pack.KindBlock, Hash: f.algorithm, ID: packC, Domain: vectorDomain}, f.plainFrame(pack.KindBlock, two))
	says("pack of a sealed domain that is not encrypted", string(two), open, rawOpen)
	f.segments(map[format.Name][]pack.Entry{packA: table, packB: nodeTable, packC: openTable})

	refused := func(name, class string, item commitlog.Pack, raw []byte) {
		f.refused(name, "openPack", class, f.rawRing, asJSON(f.t, item), raw)
	}
	_, swapped, _ := f.packOf(header, second, first)
	refused("a pack with its frames in another order than the log's root has", "forged", item, swapped)
	refused("a pack whose frames were swapped below its table", "corrupt", item, slices.Concat(raw[:64], second, first, raw[64+len(first)+len(second):]))
	refused("a pack with a damaged byte in a frame", "corrupt", item, flipped(raw, 64+96))
	refused("a pack with a damaged byte in its table", "corrupt", item, flipped(raw, len(raw)-100))
	refused("a pack with a damaged byte in its header", "corrupt", item, flipped(raw, 57))
	refused("a pack that is cut", "corrupt", item, raw[:len(raw)-1])
	other := item
	other.ID = packC
	refused("a pack under the name of another", "forged", other, raw)
	other = item
	other.Domain = vectorDomain
	refused("a pack of another domain than the log says", "forged", other, raw)
	f.frames(first, second)
}

// frames are what must not be taken for the block that is looked for.
func (f *files) frames(first, second []byte) {
	id, refused := first[48:80], func(name, class string, frame []byte) {
		f.refused(name, "openBlock", class, f.rawRing, first[48:80], frame)
	}
	f.says("encrypted frame of a block that is looked for", "openBlock", "one block", f.rawRing, id, first)
	change := func(change func(frame []byte)) []byte {
		frame := bytes.Clone(first)
		change(frame)
		return f.summed(frame)
	}
	refused("the frame of another block", "forged", second)
	refused("a frame with the content of another", "forged", change(func(frame []byte) { copy(frame[96:], second[96:]) }))
	refused("the frame of another block under this one's id", "forged", f.summed(slices.Concat(second[:48], id, second[80:])))
	refused("a frame with a damaged byte", "corrupt", flipped(first, 96))
	refused("a frame whose content was changed", "forged", change(func(frame []byte) { frame[96]++ }))
	refused("a frame under another nonce", "forged", change(func(frame []byte) { frame[24]++ }))
	refused("a frame under another salt", "forged", change(func(frame []byte) { frame[32]++ }))
	refused("a frame under another generation", "forged", change(func(frame []byte) { frame[16] = 1 }))
	refused("a frame under another codec", "forged", change(func(frame []byte) { frame[5] = 2 }))
	refused("a frame with reserved bytes", "corrupt", change(func(frame []byte) { frame[20] = 1 }))
	refused("a frame with a length that no block has", "corrupt", change(func(frame []byte) { binary.LittleEndian.PutUint32(frame[8:], 4<<20+1) }))
	plain := f.plainFrame(pack.KindBlock, []byte("one block"))
	f.says("frame that is not encrypted", "openBlock", "one block", f.rawRing, id, plain)
	plain = bytes.Clone(plain)
	plain[96]++
	refused("a frame that is not encrypted, of other content than its id's", "forged", f.summed(plain))
}

func (f *files) segments(tables map[format.Name][]pack.Entry) {
	var entries []index.Entry
	for id, table := range tables {
		for _, e := range table {
			entries = append(entries, index.Entry{ID: e.ID, Place: index.Place{Pack: id, Offset: e.Offset, Stored: e.Stored, Plain: e.Plain}})
		}
	}
	slices.SortFunc(entries, func(a, b index.Entry) int { return bytes.Compare(a.ID[:], b.ID[:])*2 + a.Pack.Compare(b.Pack) })
	var lines []string
	for _, e := range entries {
		lines = append(lines, fmt.Sprintf("%s %s %d %d %d", e.ID, e.Pack, e.Offset, e.Stored, e.Plain))
	}
	item, raw := f.segmentOf(entries, packA, packB, packC)
	f.says("segment", "openSegment", strings.Join(lines, "\n"), f.rawRing, asJSON(f.t, item), raw)
	context := format.ContextIndex
	f.refused("a segment with a damaged byte", "openSegment", "corrupt", f.rawRing, asJSON(f.t, item), flipped(raw, 150))
	f.refused("a segment that is not the one that the log names", "openSegment", "corrupt", f.rawRing, asJSON(f.t, item), f.changed(raw, context, func(raw []byte) { raw[150]++ }))
	disordered := f.changed(raw, context, func(raw []byte) { copy(raw[64:], slices.Concat(packB[:], packA[:])) })
	named := item
	named.Checksum = format.ID(disordered[len(disordered)-32:])
	f.refused("a segment whose packs are out of order", "openSegment", "corrupt", f.rawRing, asJSON(f.t, named), disordered)
	named = item
	named.Packs = []format.Name{packA, packB}
	f.refused("a segment of other packs than the log says", "openSegment", "corrupt", f.rawRing, asJSON(f.t, named), raw)
}

// parity makes damaged packs whole. The shards are those of the encrypted bytes: it needs no key.
func (f *files) parity() {
	content, id := ramp(180), packA
	layout := parity.Layout{Pack: id, Size: int64(len(content)), Shard: 64, Data: 3, Parity: 2}
	file := must(parity.NewCoder(f.hasher).Encode(bytes.NewReader(content), layout))(f.t)
	size := binary.LittleEndian.AppendUint64(nil, uint64(len(content)))
	says := func(name string, file, damaged []byte) {
		f.says(name, "repairPack", string(content), id[:], size, file, damaged)
	}
	refused := func(name string, file, damaged []byte) {
		f.refused(name, "repairPack", "corrupt", id[:], size, file, damaged)
	}
	says("parity makes a shard again", file, flipped(content, 100))
	says("parity makes the end of a pack that is cut again", file, content[:100])
	shard := int(layout.Shard)
	lost := slices.Concat(make([]byte, 2*shard), content[2*shard:])
	says("parity makes two shards again", file, lost)
	refused("more shards are lost than can be made again", file, make([]byte, 60))
	refused("a parity file that is damaged itself, and too much of the pack", flipped(file, len(file)-1), lost)
	refused("a parity file with a damaged head", flipped(file, 70), content)
	refused("a parity file that is cut", file[:len(file)-1], content)
	f.refused("the parity file of another pack", "repairPack", "corrupt", packB[:], size, file, content)
}
