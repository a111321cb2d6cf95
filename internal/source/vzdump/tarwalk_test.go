package vzdump

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/backup"
)

// walked is what a walk says of an archive that comes in pieces of a size.
func walked(archive []byte, piece int) error {
	var w tarWalk
	for len(archive) > 0 {
		n := min(piece, len(archive))
		if err := w.write(archive[:n]); err != nil {
			return err
		}
		archive = archive[n:]
	}
	return w.finish()
}

type member struct {
	header  tar.Header
	content []byte
}

func packTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		if m.header.Typeflag != tar.TypeXGlobalHeader {
			m.header.Size, m.header.Mode = int64(len(m.content)), 0o644
		}
		if err := w.WriteHeader(&m.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// wholeOnly demands that an archive is sound, also with more padding, and that it is not if it ends at any earlier block.
func wholeOnly(t *testing.T, archive []byte) {
	t.Helper()
	end := len(bytes.TrimRight(archive, "\x00"))
	end = (end+tarBlock-1)/tarBlock*tarBlock + tarEnd*tarBlock
	for _, piece := range []int{1 << 30, 10_000, 512, 7} {
		if err := walked(archive, piece); err != nil {
			t.Errorf("in pieces of %d: %v", piece, err)
		}
	}
	if err := walked(append(bytes.Clone(archive), make([]byte, 20*tarBlock)...), 1<<20); err != nil {
		t.Errorf("with more padding: %v", err)
	}
	for cut := tarBlock; cut < end; cut += tarBlock {
		if err := walked(archive[:cut], 1<<20); !errors.Is(err, backup.ErrBroken) {
			t.Fatalf("cut at %d of %d: %v", cut, len(archive), err)
		}
	}
}

// An archive of zeros that is cut off ends with zeros; that is not its end.
func TestTarIsFollowed(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	for name, archive := range map[string][]byte{
		"ustar": packTar(t, member{tar.Header{Name: "a", Format: tar.FormatUSTAR}, []byte("a")}, member{tar.Header{Name: "b", Format: tar.FormatUSTAR}, make([]byte, 512)}),
		"zeros": packTar(t, member{tar.Header{Name: "zeros"}, make([]byte, 300_000)}),
		"pax": packTar(t, member{tar.Header{Name: long, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 3000), "VENDOR.size": "77"}}, make([]byte, 70_000)},
			member{tar.Header{Name: "size=5\n", Format: tar.FormatPAX, Linkname: ""}, make([]byte, 2000)}),
		"gnu": packTar(t, member{tar.Header{Name: long, Format: tar.FormatGNU}, make([]byte, 70_000)}, member{tar.Header{Name: "next", Format: tar.FormatGNU}, nil}),
		"kinds": packTar(t, member{tar.Header{Name: "d/", Typeflag: tar.TypeDir}, nil}, member{tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "t"}, nil},
			member{tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "s"}, nil}, member{tar.Header{Name: "f", Typeflag: tar.TypeFifo}, nil}),
		"global": packTar(t, member{tar.Header{Name: "g", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, nil}, member{tar.Header{Name: "a"}, []byte("a")}),
	} {
		t.Run(name, func(t *testing.T) { wholeOnly(t, archive) })
	}
}

// Streaming says the same, with the offset.
func TestCutTarIsBroken(t *testing.T) {
	archive := packTar(t, member{tar.Header{Name: "zeros"}, make([]byte, 1<<20)}, member{tar.Header{Name: "last"}, []byte("last")})
	for at, content := range map[int64][]byte{512 << 10: archive[:512<<10], int64(len(archive)): append(bytes.Clone(archive), archive...)} {
		err := tryPoint(t, onePoint(t, lxcBase+".tar", content))
		if place := new(backup.Error); !errors.Is(err, backup.ErrBroken) || !errors.As(err, &place) || place.Offset != at {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

// From 8 GiB on a size does not fit its field: GNU writes it in binary, POSIX in an extended header.
func TestTarOfHugeMembers(t *testing.T) {
	const size = 9<<30 + 5
	zeros := make([]byte, 1<<20)
	for _, format := range []tar.Format{tar.FormatGNU, tar.FormatPAX} {
		var headers bytes.Buffer
		if err := tar.NewWriter(&headers).WriteHeader(&tar.Header{Name: "huge", Size: size, Format: format}); err != nil {
			t.Fatal(err)
		}
		whole := int64(size+tarBlock-1) &^ (tarBlock - 1)
		for _, missing := range []int64{0, tarBlock} {
			var w tarWalk
			left := whole + tarEnd*tarBlock - missing
			err := w.write(headers.Bytes())
			for ; left > 0 && err == nil; left -= min(left, int64(len(zeros))) {
				err = w.write(zeros[:min(left, int64(len(zeros)))])
			}
			if err == nil {
				err = w.finish()
			}
			if (err != nil) != (missing > 0) {
				t.Errorf("%v, %d bytes missing: %v", format, missing, err)
			}
		}
	}
}

func TestTarThatIsNone(t *testing.T) {
	good := packTar(t, member{tar.Header{Name: "a"}, []byte("a")}, member{tar.Header{Name: "b"}, []byte("b")})
	first, second := good[:2*tarBlock], good[2*tarBlock:4*tarBlock]
	zero := make([]byte, tarBlock)
	resized := func(size string) []byte {
		header := bytes.Clone(first[:tarBlock])
		copy(header[tarSize:], size)
		sum := 8 * int(' ')
		for i, b := range header {
			if i < tarChecksum || i >= tarChecksum+8 {
				sum += int(b)
			}
		}
		copy(header[tarChecksum:], fmt.Sprintf("%06o\x00 ", sum))
		return header
	}
	damaged := bytes.Clone(good)
	damaged[2*tarBlock+5] ^= 1
	for name, archive := range map[string][]byte{
		"a member behind a block of zeros": bytes.Join([][]byte{first, zero, second, zero, zero}, nil),
		"something behind the end":         append(bytes.Clone(good), []byte("x")...),
		"a block behind the end":           append(bytes.Clone(good), second...),
		"a damaged header":                 damaged,
		"a negative size":                  append(resized("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), zero...),
		"a size of 2^63 - 1":               append(resized("\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), zero...),
		"a size that is no number":         append(resized("0000000009 \x00"), zero...),
		"half a block of zeros":            good[:len(good)-100],
	} {
		for _, piece := range []int{1 << 20, 100} {
			if err := walked(archive, piece); !errors.Is(err, backup.ErrBroken) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// What the real tar writes, as vzdump calls it and in its other formats, for files with holes.
func TestTarProgram(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is not installed")
	}
	folder := t.TempDir()
	for name, holes := range map[string]int{"few": 3, "many": 60, "ends in a hole": 30} {
		f, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		for k := range holes {
			if _, err := f.WriteAt([]byte("data"), int64(k)*128<<10); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(name, "ends") {
			if err := f.Truncate(16 << 20); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	put(t, folder, strings.Repeat("n", 200), make([]byte, 10_000))
	put(t, folder, "etc/vzdump/pct.conf", []byte("hostname: ct101\n"))
	for _, options := range [][]string{
		{"--format=posix"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"},
		{"--format=gnu"}, {"--format=oldgnu"}, {"--acls", "--xattrs", "--numeric-owner"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			command := exec.Command("tar", append(options, "--sparse", "-cpf", "-", "-C", folder, ".")...)
			command.Stderr = os.Stderr
			archive, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			if len(archive) > 4<<20 {
				t.Logf("%d bytes: the file system has no holes", len(archive))
			}
			wholeOnly(t, archive)
			if read, _ := readPoint(t, onePoint(t, lxcBase+".tar", archive)); !bytes.Equal(read.data[0], archive) {
				t.Error("the archive is not what tar wrote")
			}
		})
	}
}

// However the bytes come, the answer is the same; what is sound is not if it is cut off before its end.
func FuzzTarWalk(f *testing.F) {
	f.Add(testTar(f, "hostname: x\n")[:4096], 7, 1024)
	f.Add(packTar(f, member{tar.Header{Name: strings.Repeat("n", 300), Format: tar.FormatPAX}, make([]byte, 3000)}), 512, 2048)
	f.Add(packTar(f, member{tar.Header{Name: strings.Repeat("n", 300), Format: tar.FormatGNU}, []byte("x")}), 100, 512)
	f.Add([]byte("30 size=12\n"), 1, 1)
	f.Fuzz(func(t *testing.T, archive []byte, piece, cut int) {
		if len(archive) > 1<<20 || piece <= 0 {
			return
		}
		err := walked(archive, len(archive)+1)
		if again := walked(archive, piece); (err == nil) != (again == nil) {
			t.Fatalf("%v, in pieces of %d %v", err, piece, again)
		}
		if err != nil && !errors.Is(err, backup.ErrBroken) {
			t.Fatal(err)
		}
		end := len(bytes.TrimRight(archive, "\x00"))
		if err == nil && cut >= 0 && cut < end && walked(archive[:cut], piece) == nil {
			t.Fatalf("cut at %d of %d it is whole", cut, len(archive))
		}
		// The records of an extended header, in any pieces.
		var whole, pieces paxRecords
		whole.write(archive)
		for rest := archive; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			pieces.write(rest[:min(piece, len(rest))])
		}
		if whole != pieces {
			t.Fatalf("%+v, in pieces of %d %+v", whole, piece, pieces)
		}
	})
}

// BenchmarkTarWalk is an archive of small files.
func BenchmarkTarWalk(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	var members []member
	for k := range 2000 {
		members = append(members, member{tar.Header{Name: fmt.Sprint("file", k), Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}, make([]byte, random.IntN(8000))})
	}
	archive := packTar(b, members...)
	b.SetBytes(int64(len(archive)))
	b.ReportAllocs()
	for b.Loop() {
		var w tarWalk
		if _, err := io.Copy(writerFunc(w.write), bytes.NewReader(archive)); err != nil {
			b.Fatal(err)
		}
	}
}

type writerFunc func([]byte) error

func (f writerFunc) Write(p []byte) (int, error) { return len(p), f(p) }
