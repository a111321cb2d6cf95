package vma

import (
	"bytes"
	"io"
	"testing"
)

// BenchmarkReader reads an archive that is in memory.
func BenchmarkReader(b *testing.B) {
	content := bytes.Repeat([]byte("not zero"), 8<<20)
	raw := write(b, &Archive{Devices: []DeviceContent{{Name: "d", Size: int64(len(content)), Content: bytes.NewReader(content)}}})
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(raw))
		for err == nil {
			_, err = r.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}
