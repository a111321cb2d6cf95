package backup

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// EncodeName makes a name given by a source safe to print and to keep in JSON, reversibly: bytes of valid UTF-8 that
// are neither '%' nor a control character stay, every other byte becomes %XX (docs/format.md section 1).
func EncodeName(name string) string {
	return encode(name, func(rune) bool { return false })
}

// SafeText makes a message safe to print: bytes that are not valid UTF-8, control characters, and characters that turn
// the direction of what follows are written as %XX. Unlike EncodeName it leaves '%' alone: names in the message may be
// encoded already.
func SafeText(text string) string {
	return encodeIf(text, func(r rune) bool { return isControl(r) || turnsDirection(r) })
}

// turnsDirection is true for the marks and controls of bidirectional text, with which a name can look like another.
func turnsDirection(r rune) bool {
	return r == 0x061c || (r >= 0x200e && r <= 0x200f) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

func isControl(r rune) bool { return r < 0x20 || (r >= 0x7f && r <= 0x9f) }

// EncodeFileName is EncodeName for use as one element of a path: separators are encoded too, and so are names that
// mean something to a file system (the empty name, ".", ".." and a leading dot).
func EncodeFileName(name string) string {
	encoded := encode(name, func(r rune) bool { return r == '/' || r == '\\' })
	switch {
	case encoded == "":
		return "%"
	case encoded[0] == '.':
		return "%2E" + encoded[1:]
	}
	return encoded
}

// encodeWord is EncodeName for one part of an id that people type: also '/' and spaces are encoded.
func encodeWord(name string) string {
	return encode(name, func(r rune) bool { return r == '/' || r == ' ' })
}

// DecodeFileName reverses EncodeFileName.
func DecodeFileName(encoded string) (string, error) {
	if encoded == "%" {
		return "", nil
	}
	return DecodeName(encoded)
}

// DecodeName reverses EncodeName.
func DecodeName(encoded string) (string, error) {
	if !strings.Contains(encoded, "%") {
		return encoded, nil
	}
	var out strings.Builder
	for i := 0; i < len(encoded); i++ {
		if encoded[i] != '%' {
			out.WriteByte(encoded[i])
			continue
		}
		if i+2 >= len(encoded) {
			return "", fmt.Errorf("name %q ends inside a %%XX", encoded)
		}
		high, low := hexDigit(encoded[i+1]), hexDigit(encoded[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("name %q has a %% without two hex digits", encoded)
		}
		out.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return out.String(), nil
}

func encode(name string, unsafe func(rune) bool) string {
	return encodeIf(name, func(r rune) bool { return r == '%' || isControl(r) || unsafe(r) })
}

// encodeIf encodes the runes for which unsafe is true, and bytes that are not of valid UTF-8.
func encodeIf(name string, unsafe func(rune) bool) string {
	var out strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if (r == utf8.RuneError && size == 1) || unsafe(r) {
			for _, b := range []byte(name[i : i+size]) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
		} else {
			out.WriteString(name[i : i+size])
		}
		i += size
	}
	return out.String()
}

func hexDigit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	}
	return -1
}
