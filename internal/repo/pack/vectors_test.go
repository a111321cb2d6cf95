package pack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
)

// ringOf are the keys of a ring, the newest of them the current one.
type ringOf struct{ *keyring.Ring }

func (k ringOf) Generation() uint32 { return k.Newest() }

// The encrypted frames that docs/format-vectors.json has are those that this program makes under their salts and counters.
func TestFrameVectors(t *testing.T) {
	var file struct {
		Parts   map[string]string
		Vectors []struct {
			Name, Function, Hash, Output string
			Input                        json.RawMessage
		}
	}
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "format-vectors.json"))
	if err == nil {
		err = json.Unmarshal(content, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(text string) []byte {
		if shared, is := file.Parts[text]; is {
			text = shared
		}
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	frames := 0
	for _, v := range file.Vectors {
		if v.Function != "openFrame" {
			continue
		}
		frames++
		var input []string
		if err := json.Unmarshal(v.Input, &input); err != nil {
			t.Fatal(err)
		}
		ring, err := keyring.Decode(bytesOf(input[0]))
		if err != nil {
			t.Fatal(err)
		}
		algorithm, err := format.ParseHash(v.Hash)
		if err != nil {
			t.Fatal(err)
		}
		frame, plain := bytesOf(input[1]), bytesOf(v.Output)
		s := &Sealer{generation: ring.Newest(), salt: [format.SaltSize]byte(frame[32:])}
		s.counter.Store(binary.LittleEndian.Uint64(frame[24:]))
		if s.aead, err = format.NewAEAD(ringOf{ring}, s.generation, s.salt[:], format.InfoFrame); err != nil {
			t.Fatal(err)
		}
		hasher := format.NewEncryptedHasher(algorithm, ring.IDKey, ringOf{ring})
		if made := AppendFrame(nil, hasher, s, KindBlock, CodecNone, hasher.Sum(format.ContextBlock, plain), plain); !bytes.Equal(made, frame) {
			t.Errorf("%s: made again it is %x, want %x", v.Name, made, frame)
		}
	}
	if frames == 0 {
		t.Error("there are no frames")
	}
}
