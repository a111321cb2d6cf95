package parity

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"ferry/internal/repo/format"
)

var hasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

func noise(seed byte, size int) []byte {
	random := rand.NewChaCha8([32]byte{seed})
	data := make([]byte, size)
	random.Read(data)
	return data
}

// field is GF(2^8) with 0x11D, written again from the specification: the code's matrix by hand, without the library.
func multiply(a, b byte) byte {
	product, wide := uint16(0), uint16(a)
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			product ^= wide
		}
		if wide <<= 1; wide&0x100 != 0 {
			wide ^= 0x11d
		}
	}
	return byte(product)
}

func inverse(a byte) byte {
	for b := 1; b < 256; b++ {
		if multiply(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	panic("no inverse of zero")
}

// matrix is that of section 7.4: powers of the row's number, times the inverse of its upper rows.
func matrix(data, parity int) [][]byte {
	powers := make([][]byte, data+parity)
	for r := range powers {
		powers[r] = make([]byte, 2*data)
		power := byte(1)
		for c := range data {
			powers[r][c] = power
			power = multiply(power, byte(r))
		}
	}
	upper := make([][]byte, data)
	for r := range upper {
		upper[r] = bytes.Clone(powers[r])
		upper[r][data+r] = 1
	}
	for c := range data { // Gauss and Jordan
		pivot := c
		for upper[pivot][c] == 0 {
			pivot++
		}
		upper[c], upper[pivot] = upper[pivot], upper[c]
		scale := inverse(upper[c][c])
		for i := range upper[c] {
			upper[c][i] = multiply(upper[c][i], scale)
		}
		for r := range upper {
			if factor := upper[r][c]; r != c && factor != 0 {
				for i := range upper[r] {
					upper[r][i] ^= multiply(upper[c][i], factor)
				}
			}
		}
	}
	product := make([][]byte, data+parity)
	for r := range product {
		product[r] = make([]byte, data)
		for c := range data {
			for i := range data {
				product[r][c] ^= multiply(powers[r][i], upper[i][data+c])
			}
		}
	}
	return product
}

func TestCodeIsTheOneOfTheSpecification(t *testing.T) {
	const size = 9*4096 + 100
	layout := NewLayout(format.Name{1}, size, format.Parity{Data: 20, Parity: 6})
	if layout.Data != 10 || layout.Parity != 3 || layout.Shard != 3712 {
		t.Fatalf("layout %+v", layout)
	}
	pack := noise(1, size)
	file, err := NewCoder(hasher).Encode(bytes.NewReader(pack), layout)
	if err != nil {
		t.Fatal(err)
	}
	padded := append(bytes.Clone(pack), make([]byte, int(layout.Shard)*layout.Data-size)...)
	code := matrix(layout.Data, layout.Parity)
	for r := range layout.Data + layout.Parity {
		want := make([]byte, layout.Shard)
		for c, factor := range code[r] {
			for i := range want {
				want[i] ^= multiply(factor, padded[c*int(layout.Shard)+i])
			}
		}
		var got []byte
		if r < layout.Data {
			got = padded[r*int(layout.Shard):][:layout.Shard]
		} else {
			got = file[layout.shardsAt()+int64(r-layout.Data)*layout.Shard:][:layout.Shard]
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("shard %d differs from the specification's", r)
		}
	}
}

func TestRepair(t *testing.T) {
	for _, c := range []struct {
		size   int
		wanted format.Parity
	}{{1, format.Parity{Data: 244, Parity: 12}}, {4097, format.Parity{Data: 244, Parity: 12}}, {300_000, format.Parity{Data: 20, Parity: 4}}, {70_000, format.Parity{Data: 3, Parity: 3}}, {2 << 20, format.Parity{Data: 244, Parity: 12}}} {
		coder, pack := NewCoder(hasher), noise(2, c.size)
		layout := NewLayout(format.Name{9}, int64(c.size), c.wanted)
		file, err := coder.Encode(bytes.NewReader(pack), layout)
		if err != nil || int64(len(file)) != layout.FileSize() {
			t.Fatalf("%+v: %d bytes, %v", c, len(file), err)
		}
		for bad := range layout.Parity + 2 {
			damaged := bytes.Clone(pack)
			used := int(ceil(layout.Size, layout.Shard)) // what rounding leaves over is zeros behind the pack
			hit := min(bad, used)
			for i := range hit {
				damaged[(used-1-i)*int(layout.Shard)] ^= 0x40
			}
			opened, err := coder.Open(bytes.NewReader(file), int64(len(file)), layout.Pack, layout.Size)
			if err != nil {
				t.Fatal(err)
			}
			repaired, err := coder.Repair(bytes.NewReader(damaged), bytes.NewReader(file), opened)
			if hit > layout.Parity {
				if !errors.Is(err, ErrTooMuch) {
					t.Errorf("%+v, %d damaged: %v", c, bad, err)
				}
				continue
			}
			whole := make([]byte, c.size)
			if err == nil {
				_, err = repaired.ReadAt(whole, 0)
			}
			if err != nil || !bytes.Equal(whole, pack) || len(repaired.made) != hit {
				t.Errorf("%+v, %d damaged: %v", c, bad, err)
			}
		}
	}
}

// A pack that is cut lacks shards, and a damaged parity shard is passed over.
func TestRepairOfACutPackWithDamagedParity(t *testing.T) {
	coder, pack := NewCoder(hasher), noise(3, 200_000)
	layout := NewLayout(format.Name{9}, 200_000, format.Parity{Data: 40, Parity: 8})
	file, err := coder.Encode(bytes.NewReader(pack), layout)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := coder.Open(bytes.NewReader(file), int64(len(file)), layout.Pack, layout.Size)
	if err != nil {
		t.Fatal(err)
	}
	file[layout.shardsAt()+5] ^= 1
	if err := coder.Check(bytes.NewReader(file), opened); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a flipped bit in a parity shard: %v", err)
	}
	for cut, want := range map[int]error{200_000 - 6*int(layout.Shard): nil, 200_000 - 8*int(layout.Shard): ErrTooMuch, 0: ErrTooMuch} {
		repaired, err := coder.Repair(bytes.NewReader(pack[:cut]), bytes.NewReader(file), opened)
		if !errors.Is(err, want) {
			t.Errorf("cut to %d: %v, want %v", cut, err, want)
		}
		whole := make([]byte, len(pack))
		if err == nil {
			if _, err = repaired.ReadAt(whole, 0); err != nil || !bytes.Equal(whole, pack) {
				t.Errorf("cut to %d: %v", cut, err)
			}
		}
	}
	if _, err := coder.Repair(nil, bytes.NewReader(file), opened); !errors.Is(err, ErrTooMuch) {
		t.Errorf("gone: %v", err)
	}
}

func TestEveryFlippedBitOfTheHeadIsFound(t *testing.T) {
	coder, pack := NewCoder(hasher), noise(4, 9000)
	layout := NewLayout(format.Name{9}, 9000, format.Parity{Data: 10, Parity: 2})
	file, err := coder.Encode(bytes.NewReader(pack), layout)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range int(layout.shardsAt()) * 8 {
		file[bit/8] ^= 1 << (bit % 8)
		if _, err := coder.Open(bytes.NewReader(file), int64(len(file)), layout.Pack, layout.Size); err == nil {
			t.Errorf("bit %d was not noticed", bit)
		}
		file[bit/8] ^= 1 << (bit % 8)
	}
	for size := range 200 {
		if _, err := coder.Open(bytes.NewReader(file[:size]), int64(size), layout.Pack, layout.Size); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := coder.Open(bytes.NewReader(file), int64(len(file)), format.Name{8}, layout.Size); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("of another pack: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	coder := NewCoder(hasher)
	layout := NewLayout(format.Name{9}, 9000, format.Parity{Data: 10, Parity: 2})
	file, err := coder.Encode(bytes.NewReader(noise(4, 9000)), layout)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, raw []byte) {
		opened, err := coder.Open(bytes.NewReader(raw), int64(len(raw)), format.Name{9}, 9000)
		if err == nil {
			_ = coder.Check(bytes.NewReader(raw), opened)
			_, _ = coder.Repair(nil, bytes.NewReader(raw), opened)
		}
	})
}
