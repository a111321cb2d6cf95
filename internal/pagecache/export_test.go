package pagecache

import (
	"math/bits"
	"os"
)

// ResidentByMapping is Resident as of kernels that cannot tell by themselves.
func ResidentByMapping(file *os.File, offset, length int64) (pages int64, err error) {
	err = control(file, func(fd int) error {
		pages, err = resident(fd, offset, length)
		return err
	})
	return pages, err
}

// Looked is how many sections of the file the kernel was asked about.
func (b *Behind) Looked() (sections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, some := range b.looked {
		sections += bits.OnesCount64(some)
	}
	return sections
}
