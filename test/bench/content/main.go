// Command content fills a folder with what a machine's disk holds, for benchmarks: files of this machine's own system first, then
// generated ones, half text and half incompressible. The generated part is the same on every machine and every run. With
// -change it makes an image's next state instead, and prints how many bytes the changed clusters have.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const mebibyte = 1 << 20

func main() {
	out := flag.String("out", "", "the folder to fill; it must not exist")
	size := flag.Int64("mib", 0, "how much, in MiB")
	system := flag.Int64("system-mib", 0, "how much of it at most is copied from -from, in MiB")
	from := flag.String("from", "/usr/bin,/usr/sbin,/usr/lib,/usr/share", "folders to copy from, divided by commas")
	image := flag.String("change", "", "change -mib of this image instead, in clusters of 64 KiB: files written anew, and pages of a database")
	seed := flag.Uint64("seed", 1, "another number changes other places")
	flag.Parse()
	if *image != "" && *size > 0 {
		touched, err := change(*image, *size*mebibyte, *seed)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(touched)
		return
	}
	if *out == "" || *size <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	copied, err := fill(*out, strings.Split(*from, ","), *size*mebibyte, *system*mebibyte)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("content: %d MiB, of it %d MiB of this system's files\n", *size, copied/mebibyte)
}

// fill makes the folder out with size bytes, at most limit of them copied from the folders, and says how many were.
func fill(out string, folders []string, size, limit int64) (copied int64, err error) {
	if err := os.Mkdir(out, 0o755); err != nil {
		return 0, err
	}
	limit = min(limit, size)
	for _, folder := range folders {
		n, err := copyTree(filepath.Join(out, "system"), folder, limit-copied)
		copied += n
		if err != nil {
			return copied, err
		}
	}
	return copied, generate(filepath.Join(out, "generated"), size-copied)
}

// copyTree copies regular files in the order of their names until the next one would exceed limit bytes. What may not be read
// is left out.
func copyTree(out, folder string, limit int64) (copied int64, err error) {
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if copied+info.Size() > limit {
			return fs.SkipAll
		}
		n, err := copyFile(filepath.Join(out, path), path)
		copied += n
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	})
	return copied, err
}

func copyFile(to, from string) (int64, error) {
	source, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer source.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	target, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(target, source)
	return n, errors.Join(err, target.Close())
}

// generate writes files of 4 KiB to 16 MiB, size bytes in all, by turns text and noise.
func generate(out string, size int64) error {
	random := rand.New(rand.NewPCG(0xFE, 0x44E7))
	words := vocabulary(random)
	var buffer []byte
	for number := 0; size > 0; number++ {
		length := min(size, int64(4096)<<random.IntN(13))
		kind := "text"
		if number%2 == 0 {
			buffer = text(buffer[:0], random, words, int(length))
		} else {
			kind = "noise"
			buffer = noise(buffer[:0], random, int(length))
		}
		name := filepath.Join(out, fmt.Sprintf("%03d", number/256), fmt.Sprintf("%03d.%s", number%256, kind))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, buffer, 0o644); err != nil {
			return err
		}
		size -= length
	}
	return nil
}

// vocabulary makes words of 2 to 12 letters.
func vocabulary(random *rand.Rand) []string {
	words := make([]string, 20000)
	for i := range words {
		word := make([]byte, 2+random.IntN(11))
		for j := range word {
			word[j] = 'a' + byte(min(random.IntN(26), random.IntN(26)))
		}
		words[i] = string(word)
	}
	return words
}

// text appends lines of words, few of them frequent and most of them rare, as in a language; zstd halves it and more.
func text(buffer []byte, random *rand.Rand, words []string, length int) []byte {
	for len(buffer) < length {
		rank := random.Float64()
		buffer = append(buffer, words[int(rank*rank*rank*float64(len(words)))]...)
		separator := byte(' ')
		if random.IntN(12) == 0 {
			separator = '\n'
		}
		buffer = append(buffer, separator)
	}
	return buffer[:length]
}

func noise(buffer []byte, random *rand.Rand, length int) []byte {
	for len(buffer) < length {
		bits := random.Uint64()
		for range 8 {
			buffer = append(buffer, byte(bits))
			bits >>= 8
		}
	}
	return buffer[:length]
}
