package ferry_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// otherKeys makes an encrypted repository in which equal content has the ids that it has in another, and that has other data keys.
func otherKeys(t *testing.T, from *repo.Repository) repo.Options {
	t.Helper()
	options := encrypted()
	if err := options.Inherit(from, false); err != nil {
		t.Fatal(err)
	}
	return options
}

// changeBlocks lets change have a look at the frame of each block in a pack, and change it.
func changeBlocks(t *testing.T, file string, change func(frame []byte)) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(raw)
	for at := 64; bytes.HasPrefix(raw[at:], []byte("FRM1")); {
		length := 96 + int(binary.LittleEndian.Uint32(raw[at+12:]))
		if raw[at+4] == 1 { // a block, no node
			change(raw[at : at+length])
		}
		at += length
	}
	if bytes.Equal(raw, before) {
		return
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// codecsIn are the codecs of a repository's blocks.
func codecsIn(t *testing.T, dir string) map[repo.ID]repo.Codec {
	t.Helper()
	codecs := map[repo.ID]repo.Codec{}
	for _, file := range packFiles(t, dir) {
		changeBlocks(t, file, func(frame []byte) { codecs[repo.ID(frame[48:80])] = repo.Codec(frame[5]) })
	}
	return codecs
}

// countCodecs counts blocks by their codecs.
func countCodecs(codecs map[repo.ID]repo.Codec) map[repo.Codec]int {
	counts := map[repo.Codec]int{}
	for _, codec := range codecs {
		counts[codec]++
	}
	return counts
}

// Where blocks are encrypted anew each keeps the codec that it has in the source, whatever a first copy or an increment would
// get from elsewhere; unless one is asked for.
func TestWhatIsEncryptedAnewKeepsItsCodec(t *testing.T) {
	first, second := squeezable()
	for _, c := range []struct {
		first, second mover.Codec
		has           []repo.Codec
	}{
		{mover.CodecZstd, mover.CodecS2, []repo.Codec{repo.CodecZstd, repo.CodecS2}},
		{mover.CodecS2, mover.CodecZstd, []repo.Codec{repo.CodecS2, repo.CodecZstd}},
		{mover.CodecNone, mover.CodecS2, []repo.Codec{repo.CodecNone, repo.CodecS2}},
	} {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		other := otherKeys(t, opened(t, a, encrypted()))
		copyWith(t, sourcetest.Open(t, first), a, c.first, repo.Options{})
		copyWith(t, sourcetest.Open(t, first, second), a, c.second, repo.Options{})
		report := copyWith(t, openWithKeys(t, a), b, mover.CodecAuto, other)
		if n := sum(report, newBlocks); report.Failed() > 0 || n == 0 || sum(report, whole) > 0 {
			t.Errorf("%s, then %s: %d of %d blocks went over as they are, %d points failed", c.first, c.second, sum(report, whole), n, report.Failed())
		}
		has, want := codecsIn(t, b), codecsIn(t, a)
		if !maps.Equal(has, want) {
			t.Errorf("%s, then %s: blocks are encoded as %v, in the source as %v", c.first, c.second, countCodecs(has), countCodecs(want))
		}
		for _, codec := range c.has {
			if countCodecs(want)[codec] == 0 {
				t.Errorf("%s, then %s: the source has %v: that shows nothing", c.first, c.second, countCodecs(want))
			}
		}
		asked := filepath.Join(dir, "asked")
		copyWith(t, openWithKeys(t, a), asked, mover.CodecZstd, other)
		if has := countCodecs(codecsIn(t, asked)); has[repo.CodecS2] > 0 || has[repo.CodecZstd] == 0 {
			t.Errorf("%s, then %s: where zstd is asked for blocks are encoded as %v", c.first, c.second, has)
		}
	}
}

// A block that is damaged where the source would read it, and comes from another place of it, is encoded as if it came from
// elsewhere: an increment as zstd.
func TestWhatIsReadFromAnotherPlaceGetsTheTasksCodec(t *testing.T) {
	first, second := squeezable()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	r := opened(t, a, encrypted())
	copyWith(t, sourcetest.Open(t, first), a, mover.CodecS2, repo.Options{})
	copyWith(t, sourcetest.Open(t, first, second), a, mover.CodecZstd, repo.Options{})
	want, old := codecsIn(t, a), map[string]bool{}
	for _, file := range packFiles(t, a) {
		old[file] = true
	}
	if report, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd}); err != nil || report.Blocks == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, file := range packFiles(t, a) {
		if !old[file] {
			changeBlocks(t, file, func(frame []byte) { frame[len(frame)-1] ^= 1 })
		}
	}
	copyWith(t, openWithKeys(t, a), b, mover.CodecAuto, otherKeys(t, r))
	if has := codecsIn(t, b); !maps.Equal(has, want) {
		t.Errorf("blocks are encoded as %v, want %v", countCodecs(has), countCodecs(want))
	}
}

// Where the ids are not the source's own, as in the encrypted copy of a plain repository, an increment is compressed as one from
// elsewhere is.
func TestIncrementsFromOtherIDsAreDense(t *testing.T) {
	first, second := squeezable()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyWith(t, sourcetest.Open(t, first), a, mover.CodecS2, repo.Options{BlockSize: block})
	copyWith(t, openWithKeys(t, a), b, mover.CodecAuto, encrypted())
	before := codecsIn(t, b)
	copyWith(t, sourcetest.Open(t, first, second), a, mover.CodecS2, repo.Options{})
	copyWith(t, openWithKeys(t, a), b, mover.CodecAuto, repo.Options{})
	added := codecsIn(t, b)
	maps.DeleteFunc(added, func(id repo.ID, _ repo.Codec) bool { _, there := before[id]; return there })
	if has := countCodecs(added); has[repo.CodecS2] > 0 || has[repo.CodecZstd] == 0 {
		t.Errorf("an increment's blocks are encoded as %v", has)
	}
}
