// Package backup is the ground floor: the vocabulary that every other package speaks.
//
// A machine has restore points. A point has objects: disks, configuration and what else a backup holds. A disk is
// read in extents and stored in blocks. Read this package first; it does no I/O and imports nothing of ours.
//
// The words, once:
//
//   - [Machine]: one VM or container, identified by a [MachineKey] that no path takes part in.
//   - [Point]: the state of one machine at one time. Its [PointID] is the same in every repository that holds a copy.
//   - [Object]: a disk, an archive, firmware, configuration or a log of a point.
//   - [Extent]: a byte range of a disk and what a source knows of it.
//   - [Origin], [Hop], [Base]: where a point came from, and what proves that something is unchanged since.
//   - [Error]: a failure with machine, point, object and offset, and a hint for the person who reads it.
package backup
