package pagecache

import "os"

// ResidentByMapping is Resident as of kernels that cannot tell by themselves.
func ResidentByMapping(file *os.File, offset, length int64) (pages int64, err error) {
	err = control(file, func(fd int) error {
		pages, err = resident(fd, offset, length)
		return err
	})
	return pages, err
}
