package fs

import (
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
