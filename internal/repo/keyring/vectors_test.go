package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The notes that docs/format-vectors.json has are those that this program makes under their salts.
func TestNoteVectors(t *testing.T) {
	var file struct {
		Parts   map[string]string
		Vectors []struct {
			Name, Function, Refused string
			Input                   json.RawMessage
		}
	}
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join("..", "..", "..", "docs", "format-vectors.json")))(t), &file); err != nil {
		t.Fatal(err)
	}
	notes := 0
	for _, v := range file.Vectors {
		if v.Function != "openNote" || v.Refused != "" {
			continue
		}
		notes++
		var input []string
		if err := json.Unmarshal(v.Input, &input); err != nil {
			t.Fatal(err)
		}
		var parts [][]byte
		for _, part := range input {
			if shared, is := file.Parts[part]; is {
				part = shared
			}
			parts = append(parts, must(hex.DecodeString(part))(t))
		}
		name, note := string(parts[1]), parts[2]
		ring := must(Decode(parts[0]))(t)
		keyFile, is := ParseFile(name)
		r := Recipient{File: keyFile}
		if openNote(ring, note, &r); !is || !r.Known {
			t.Fatalf("%s does not open", v.Name)
		}
		if made := must(sealNote(ring, [noteSalt]byte(note), r))(t); !bytes.Equal(made, note) {
			t.Errorf("%s: made again it is %x, want %x", v.Name, made, note)
		}
	}
	if notes == 0 {
		t.Error("there are no notes")
	}
}
