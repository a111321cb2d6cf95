package blake3x16

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zeebo/blake3"
)

// lengths around all borders: of blocks, chunks, sixteen chunks and subtrees.
func lengths() []int {
	var list []int
	for _, border := range []int{Least, 7 << 10, 8 << 10, 15 << 10, 16 << 10, 17 << 10, 31 << 10, 32 << 10, 33 << 10, 48 << 10, 127 << 10, 128 << 10, 129 << 10, 144 << 10, 256 << 10, 384 << 10, 400 << 10, 1 << 20, 4 << 20} {
		for _, more := range []int{-1024, -65, -64, -63, -1, 0, 1, 63, 64, 65, 96, 960, 961, 1023} {
			if n := border + more; n >= Least {
				list = append(list, n)
			}
		}
	}
	for n := Least; n < 34<<10; n += 37 {
		list = append(list, n)
	}
	return append(list, Most)
}

func content(n int) []byte {
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, n)
	_, _ = random.Read(data)
	return data
}

func TestSumIsThatOfTheLibrary(t *testing.T) {
	if !Available {
		t.Skip("a processor without AVX-512")
	}
	data := content(Most)
	raw := [32]byte(data[100:])
	keyed, err := blake3.NewKeyed(raw[:])
	if err != nil {
		t.Fatal(err)
	}
	key, context := NewKey(raw), ContextKey("ferry v1 frame")
	derived := blake3.NewDeriveKey("ferry v1 frame")
	for _, n := range lengths() {
		for _, head := range []int{0, 1, 80, 1023} {
			message := data[n%64:][:min(n, Most-64)]
			for _, one := range []struct {
				hash *blake3.Hasher
				got  [32]byte
			}{
				{keyed, Sum(&key, KeyedHash, message[:head], message[head:])},
				{derived, Sum(&context, DeriveKeyMaterial, message[:head], message[head:])},
			} {
				one.hash.Reset()
				_, _ = one.hash.Write(message)
				if want := one.hash.Sum(nil); !bytes.Equal(one.got[:], want) {
					t.Fatalf("%d bytes, %d of them head: %x, the library says %x", len(message), head, one.got, want)
				}
			}
		}
	}
}

// What is assembled is what the generator writes, not what somebody edited.
func TestAssemblyIsGenerated(t *testing.T) {
	made := filepath.Join(t.TempDir(), "blocks.s")
	if out, err := exec.CommandContext(t.Context(), "go", "run", "generate.go", made).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("blocks_amd64.s"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("blocks_amd64.s is not what generate.go writes (%v): go generate", err)
	}
}

// Sum beside the library, from the shortest message on.
func BenchmarkSum(b *testing.B) {
	if !Available {
		b.Skip("a processor without AVX-512")
	}
	var key Key
	library, err := blake3.NewKeyed(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{Least, 16 << 10, 60000, 128 << 10, 1 << 20} {
		data := content(n)
		b.Run(fmt.Sprintf("wide/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(&key, KeyedHash, nil, data)
			}
		})
		b.Run(fmt.Sprintf("library/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			var sum [32]byte
			for b.Loop() {
				library.Reset()
				_, _ = library.Write(data)
				library.Sum(sum[:0])
			}
		})
	}
}
