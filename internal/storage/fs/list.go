package fs

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"strings"

	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// listBatch is how many names of a folder are in memory at once.
const listBatch = 1024

// List walks the folders below prefix. Names that no object can have are skipped: they are not ours. What is neither a file nor a folder is
// listed as what it is: its name is taken, and a symbolic link may stand for a folder, and hide what was in it.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Info{}, err)
			return
		}
		name := "."
		if prefix != "" {
			name = strings.TrimSuffix(prefix, "/")
		}
		folder, err := s.folder(name)
		if errors.Is(err, unix.ENOENT) && prefix != "" {
			return
		}
		if err != nil {
			yield(storage.Info{}, s.writeError("listing", prefix, err))
			return
		}
		s.list(ctx, folder, prefix, yield)
	}
}

// list yields what lies in a folder, which it closes, and below. It is false if the listing is over: by the consumer's
// wish, or because an error was yielded.
func (s *Store) list(ctx context.Context, folder *os.File, prefix string, yield func(storage.Info, error) bool) bool {
	defer folder.Close()
	for {
		if err := ctx.Err(); err != nil {
			yield(storage.Info{}, err)
			return false
		}
		elements, err := folder.Readdirnames(listBatch)
		if err == io.EOF {
			return true
		}
		if err != nil {
			yield(storage.Info{}, s.writeError("listing", prefix, err))
			return false
		}
		for _, element := range elements {
			if !s.listOne(ctx, folder, element, prefix+element, yield) {
				return false
			}
		}
	}
}

// listOne yields one file, or what lies in a folder.
func (s *Store) listOne(ctx context.Context, above *os.File, element, name string, yield func(storage.Info, error) bool) bool {
	if storage.CheckName(name) != nil {
		return true
	}
	status, err := statAt(above, element)
	if errors.Is(err, unix.ENOENT) {
		// Deleted since its name was read.
		return true
	}
	kind := status.Mode & unix.S_IFMT
	if err == nil && kind == unix.S_IFDIR {
		var folder *os.File
		if folder, err = openFolder(above, element); err == nil {
			return s.list(ctx, folder, name+"/", yield)
		}
		if errors.Is(err, unix.ENOENT) {
			return true
		}
	}
	if err != nil {
		yield(storage.Info{}, s.writeError("listing", name, err))
		return false
	}
	info := describeFile(name, status)
	if kind != unix.S_IFREG {
		info.Size, info.NotFile = 0, true
	}
	return yield(info, nil)
}
