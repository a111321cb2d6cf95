package backup_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

func TestEncodeName(t *testing.T) {
	for _, c := range []struct{ name, encoded, file string }{
		{"", "", "%"},
		{"%", "%25", "%25"},
		{"drive-scsi0", "drive-scsi0", "drive-scsi0"},
		{"a b/c", "a b/c", "a b%2Fc"},
		{`..\x`, `..\x`, "%2E.%5Cx"},
		{".", ".", "%2E"},
		{"100%", "100%25", "100%25"},
		{"a\x00\n\x1f\x7f", "a%00%0A%1F%7F", "a%00%0A%1F%7F"},
		{"\u0080\u009f\u00a0", "%C2%80%C2%9F\u00a0", "%C2%80%C2%9F\u00a0"},
		{"Zürich-日本", "Zürich-日本", "Zürich-日本"},
		{"\xff\xc3(", "%FF%C3(", "%FF%C3("},
		{"\xed\xa0\x80", "%ED%A0%80", "%ED%A0%80"}, // a lone surrogate is not UTF-8
		{"\xe2\x82", "%E2%82", "%E2%82"},
		{"\ufffd", "\ufffd", "\ufffd"}, // the replacement character itself is a character like any other
	} {
		if got := backup.EncodeName(c.name); got != c.encoded {
			t.Errorf("EncodeName(%q) = %q, want %q", c.name, got, c.encoded)
		}
		if got := backup.EncodeFileName(c.name); got != c.file {
			t.Errorf("EncodeFileName(%q) = %q, want %q", c.name, got, c.file)
		}
	}
}

func TestDecodeName(t *testing.T) {
	for encoded, want := range map[string]string{"": "", "%41%ff%Ff": "A\xff\xff", "a%25b": "a%b", "%E2%82": "\xe2\x82"} {
		if got, err := backup.DecodeName(encoded); err != nil || got != want {
			t.Errorf("DecodeName(%q) = %q, %v; want %q", encoded, got, err, want)
		}
	}
	for _, bad := range []string{"a%", "%4", "%4g", "%g4", "%%", "x%2", "% 1"} {
		if got, err := backup.DecodeName(bad); err == nil {
			t.Errorf("DecodeName(%q) = %q, want an error", bad, got)
		}
	}
}

// anyName draws names that mix text, control characters and bytes that are not UTF-8.
func anyName() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var name strings.Builder
		for range rapid.IntRange(0, 6).Draw(t, "parts") {
			if rapid.Bool().Draw(t, "text") {
				name.WriteString(rapid.String().Draw(t, "string"))
			} else {
				name.Write(rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "bytes"))
			}
		}
		return name.String()
	})
}

func TestNamesAreReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := anyName().Draw(t, "name")
		checkEncoded(t, name, backup.EncodeName(name), backup.DecodeName)
		checkEncoded(t, name, backup.EncodeFileName(name), backup.DecodeFileName)
		if file := backup.EncodeFileName(name); file == "" || file[0] == '.' || strings.ContainsAny(file, `/\`) {
			t.Fatalf("EncodeFileName(%q) = %q is no safe element of a path", name, file)
		}
	})
}

// checkEncoded fails unless the encoded form decodes to the name and is safe to print.
func checkEncoded(t interface{ Fatalf(string, ...any) }, name, encoded string, decode func(string) (string, error)) {
	decoded, err := decode(encoded)
	if err != nil || decoded != name {
		t.Fatalf("%q encodes to %q, which decodes to %q, %v", name, encoded, decoded, err)
	}
	if !utf8.ValidString(encoded) || strings.ContainsFunc(encoded, unicode.IsControl) {
		t.Fatalf("%q encodes to %q, which is not safe to print", name, encoded)
	}
}

func FuzzDecodeName(f *testing.F) {
	for _, seed := range []string{"", "%", "plain", "%2E.%5Cx", "100%25", "a%4", "%C2%85", "\xff%ff", "%%%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, encoded string) {
		name, err := backup.DecodeName(encoded)
		if err != nil {
			if !strings.Contains(encoded, "%") {
				t.Fatalf("%q without any escape was refused: %v", encoded, err)
			}
			return
		}
		if len(name) > len(encoded) {
			t.Fatalf("%q decodes to the longer %q", encoded, name)
		}
		checkEncoded(t, name, backup.EncodeName(name), backup.DecodeName)
		checkEncoded(t, encoded, backup.EncodeName(encoded), backup.DecodeName)
	})
}

func TestSafeTextKeepsEncodedNamesAndTurnsNothing(t *testing.T) {
	for text, want := range map[string]string{
		"backing file not%25there.qcow2": "backing file not%25there.qcow2",
		"line\nfeed \x1b[31m\xff":        "line%0Afeed %1B[31m%FF",
		"invoice\u202egnp.exe":           "invoice%E2%80%AEgnp.exe",
		"Büro 100%":                      "Büro 100%",
	} {
		if got := backup.SafeText(text); got != want {
			t.Errorf("SafeText(%q) = %q, want %q", text, got, want)
		}
	}
}
