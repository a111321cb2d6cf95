package blake3x16

import "golang.org/x/sys/cpu"

//go:generate go run generate.go

// Available is true where the processor, and the system on it, have what Sum needs: AVX-512.
var Available = cpu.X86.HasAVX512F

// blocks compresses count blocks of 64 bytes of each of the 16 lanes, from the offset on, and leaves the chaining values.
//
//go:noescape
func blocks(s *lanes, offset, count uintptr)

// parents makes 16 chaining values of 32. Both are in tables as values has them, side by side from the given one on.
//
//go:noescape
func parents(to, children *uint32, key *Key, flags uint32)
