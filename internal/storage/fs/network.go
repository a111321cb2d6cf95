package fs

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// networks are the file systems that lie across a network, by the numbers of statfs(2). Most of what FUSE serves does
// (sshfs, rclone, GlusterFS); that of it which does not cannot be told from the rest.
var networks = []int64{
	unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC,
	unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC,
}

// IsRemote is true if a folder lies on a file system that is reached across a network, as far as can be told. It is false
// for one that is not there.
func IsRemote(path string) bool {
	var status unix.Statfs_t
	return unix.Statfs(path, &status) == nil && slices.Contains(networks, status.Type)
}

// parallelWrites at once pay off on a share: of packs each write of a chunk may wait for the server, of small files the sync does.
const parallelWrites = 4

// isDistant is IsRemote of an open folder, but for what FUSE serves: that may be a local disk, on which it would mix up packs.
func isDistant(root *os.File) bool {
	var status unix.Statfs_t
	err := control(root, func(fd int) error { return unix.Fstatfs(fd, &status) })
	return err == nil && status.Type != unix.FUSE_SUPER_MAGIC && slices.Contains(networks, status.Type)
}

// ParallelWrites is 1 on a local disk: what is written one after the other lies so.
func (s *Store) ParallelWrites() (written, put int) {
	if s.distant {
		return parallelWrites, parallelWrites
	}
	return 1, 1
}
