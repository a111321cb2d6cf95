package vzdump

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"ferry/internal/vma"
)

// BenchmarkStream is a whole point, from the compressed file to a sink that keeps nothing.
func BenchmarkStream(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 1))
	content := make([]byte, 128<<20)
	for i := range content {
		content[i] = byte(random.ExpFloat64() * 6)
	}
	archive := &vma.Archive{Created: created, Devices: []vma.DeviceContent{{Name: "drive-scsi0", Size: int64(len(content)), Content: bytes.NewReader(content)}}}
	raw := encodeVMA(b, archive)
	for _, extension := range extensions {
		b.Run(extension, func(b *testing.B) {
			p := onePoint(b, qemuBase+extension, compressed(b, raw, compressionOf(extension)))
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				opened, err := p.Opener.Open(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				if err := opened.Stream(context.Background(), faultySink{func() error { return nil }}); err != nil {
					b.Fatal(err)
				}
				opened.Close()
			}
		})
	}
}
