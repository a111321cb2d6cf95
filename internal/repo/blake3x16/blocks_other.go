//go:build !amd64

package blake3x16

// Available is true where the processor has what Sum needs.
const Available = false

func blocks(*lanes, uintptr, uintptr) { panic("blake3x16: not on this processor") }

func parents(_, _ *uint32, _ *Key, _ uint32) { panic("blake3x16: not on this processor") }
