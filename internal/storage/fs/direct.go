package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"ferry/internal/direct"
)

// directLeast is the least that is written past the page cache at once, in bytes: packs come in such pieces, and
// nothing else that is read again soon.
const directLeast = 1 << 20

// write appends to the draft: large aligned pieces past the page cache, which the machine has better uses for, and
// which the sync in Commit would have to wait for.
func (w *writer) write(p []byte) (int, error) {
	past := w.directFit && len(p) >= directLeast && direct.Aligned(p, w.size)
	if past != w.direct {
		if err := w.setDirect(past); err != nil {
			w.directFit, past = false, false
		}
	}
	n, err := w.draft.file.Write(p)
	if past && errors.Is(err, unix.EINVAL) { // a device with blocks that are larger still
		w.directFit = false
		if err := w.setDirect(false); err != nil {
			return n, err
		}
		more, err := w.draft.file.Write(p[n:])
		return n + more, err
	}
	return n, err
}

// setDirect makes writes go past the page cache, or through it.
func (w *writer) setDirect(past bool) error {
	err := direct.Set(w.draft.file, past)
	if err == nil {
		w.direct = past
	}
	return err
}
