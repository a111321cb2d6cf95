package fs

// ReadOnceAt is ReadAt for bytes that are not wanted again soon. What was not in the system's cache before does not stay
// there: reading a whole repository pushes nothing out that others use. What was there stays.
func (r *reader) ReadOnceAt(p []byte, off int64) (int, error) {
	r.behind.Reading(off, int64(len(p)))
	return r.ReadAt(p, off)
}
