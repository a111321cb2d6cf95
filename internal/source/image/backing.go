package image

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"ferry/internal/backup"
)

// maxDepth is the longest chain of files that is read.
const maxDepth = 256

// linkAll finds the backing file of every image whose header is believed. Backing files that are found may have backing
// files in turn, and the word of an overlay may make a header believable that was not.
func (s *scan) linkAll() error {
	queue := s.sorted()
	for len(queue) > 0 {
		f := queue[0]
		queue = queue[1:]
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if f.linked || f.format != formatQcow2 || !s.believed(f) {
			continue
		}
		f.linked = true
		s.unlistData(f)
		if f.header.BackingName == "" {
			continue
		}
		below, bad := s.backing(f)
		f.trouble = worse(f.trouble, bad)
		s.stand(f, below)
		if below != nil {
			queue = append(queue, below)
		}
	}
	for _, f := range s.files {
		if f.format == formatQcow2 && !f.linked && f.header.BackingName != "" {
			f.trouble = worse(f.trouble, disbelieved)
		}
	}
	return nil
}

var disbelieved = trouble{backup.StateBroken,
	"looks like qcow2 with a backing file, but only its content says so; name it .qcow2 or describe it in ferry.yaml"}

// believed is true if an image's header may name other files. The first bytes of a raw disk are its guest's: if nothing
// but they says that the file is qcow2, the guest may have written them to read, or to pass for, another machine's disk.
func (s *scan) believed(f *file) bool {
	ext := extension(f.name)
	return ext == ".qcow2" || ext == ".qcow" || f.stated || s.snapshotOverlay(f)
}

// snapshotOverlay is true for an overlay that is named as libvirt names those of external snapshots: after the file it
// stands on in the same folder, with the snapshot's name as extension (vm.qcow2, vm.monday, vm.tuesday). By its name it
// is the same machine's, so its header leads to no other. The lowest file must be named as an image.
func (s *scan) snapshotOverlay(f *file) bool {
	for range maxDepth {
		where, err := s.resolve(f.folder, f.header.BackingName)
		below := s.files[where]
		if err != nil || below == nil || below.folder != f.folder || extension(f.name) == ".img" {
			return false
		}
		ext := extension(below.name)
		if !strings.HasPrefix(f.name, below.name[:len(below.name)-len(ext)]+".") {
			return false
		}
		switch {
		case ext == ".qcow2", ext == ".qcow", ext == ".raw", ext == ".img":
			return true
		case below.format != formatQcow2:
			return false
		}
		f = below
	}
	return false
}

// unlistData takes an image's external data file out of the machines: by itself it is no disk. It is named, for a file
// that is no point any more must not just be missing.
func (s *scan) unlistData(f *file) {
	if f.header.DataName == "" {
		return
	}
	where, err := s.resolve(f.folder, f.header.DataName)
	if err != nil || s.files[where] == nil || !s.files[where].listed {
		return
	}
	s.files[where].listed = false
	s.problem(s.files[where], "it is left out: it is the external data file of "+backup.EncodeName(f.Path)+", which is not supported yet")
}

// stand makes f an overlay of below, which may be nil.
func (s *scan) stand(f, below *file) {
	f.below, f.linked = below, true
	if below == nil {
		return
	}
	below.overlays++
	if below.folder == f.folder {
		below.overlaysHere++
	}
}

// leave takes f off the file it stands on.
func (f *file) leave() {
	if f.below == nil {
		return
	}
	f.below.overlays--
	if f.below.folder == f.folder {
		f.below.overlaysHere--
	}
	f.below = nil
}

// backing returns the file that f's header names, or why there is none.
func (s *scan) backing(f *file) (*file, trouble) {
	name := f.header.BackingName
	shown := backup.EncodeName(name)
	where, err := s.resolve(f.folder, name)
	if err != nil {
		return nil, trouble{troubleOf(err).state, fmt.Sprintf("backing file %s: %s", shown, reason(err))}
	}
	wanted := wantBacking
	switch f.header.BackingFormat {
	case "":
	case "raw":
		wanted = wantRaw
	case "qcow2":
		wanted = wantQcow2
	default:
		return nil, trouble{backup.StateUnsupported, fmt.Sprintf("backing file %s has the format %s, which is not supported yet",
			shown, backup.EncodeName(f.header.BackingFormat))}
	}
	below, err := s.file(where, wanted)
	if err == nil && wanted == wantQcow2 {
		below.stated = true
	}
	switch {
	case err != nil:
		return nil, trouble{backup.StateBroken, fmt.Sprintf("backing file %s: %s", shown, reason(err))}
	case below.format == formatForeign:
	case wanted == wantBacking && below.looks != "":
		// Whoever wrote the overlay may have had either in mind, and the data depends on it.
		return below, trouble{backup.StateBroken, fmt.Sprintf("backing file %s is raw by its name and looks like %s, and the image does not state its format", shown, below.looks)}
	case wanted == wantRaw && below.format != formatRaw, wanted == wantQcow2 && below.format != formatQcow2:
		return below, trouble{backup.StateBroken, fmt.Sprintf("backing file %s is said to be %s and looks like %s", shown, f.header.BackingFormat, below.format)}
	}
	return below, trouble{}
}

// file returns the image at a path below the root, looking into it if that has not been done.
func (s *scan) file(where string, wanted want) (*file, error) {
	if f := s.files[where]; f != nil {
		return f, nil
	}
	identity, err := s.root.Identify(where)
	if errors.Is(err, backup.ErrVanished) {
		return nil, errors.New("it is missing")
	}
	if err != nil {
		return nil, err
	}
	f := s.examine(identity, wanted)
	if f == nil {
		return nil, errors.New("it is neither a qcow2 image nor said to be raw")
	}
	s.files[where] = f
	return f, nil
}

// Why a name is not followed.
var (
	errOutside  = fmt.Errorf("it lies outside the source; a ferry.yaml can say which image this one stands on: %w", backup.ErrBroken)
	errNoFile   = fmt.Errorf("it does not name a file: %w", backup.ErrUnsupported)
	errJSONName = fmt.Errorf("names in JSON are not supported: %w", backup.ErrUnsupported)
	errBadName  = fmt.Errorf("it is not a usable name: %w", backup.ErrBroken)
)

// resolve turns a backing file's name into a path below the root. Relative names are relative to the image's folder.
// Nothing is opened; symbolic links that lead outside are refused by source.Root later.
func (s *scan) resolve(folder, name string) (string, error) {
	if strings.HasPrefix(name, "json:") {
		return "", errJSONName
	}
	name = strings.TrimPrefix(name, "file:")
	// QEMU takes what stands before a colon for a protocol unless a slash comes first.
	if colon := strings.IndexByte(name, ':'); colon >= 0 && !strings.Contains(name[:colon], "/") {
		return "", errNoFile
	}
	return s.within(folder, name)
}

// within is resolve for a name that is known to be a file's.
func (s *scan) within(folder, name string) (string, error) {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return "", errBadName
	}
	if !path.IsAbs(name) {
		name = path.Join(folder, name)
		if name == ".." || strings.HasPrefix(name, "../") {
			return "", errOutside
		}
		return name, nil
	}
	roots := []string{s.root.Path()}
	if real, err := filepath.EvalSymlinks(s.root.Path()); err == nil {
		roots = append(roots, real)
	}
	for _, root := range roots {
		if below, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(filepath.ToSlash(root), "/")+"/"); ok {
			return below, nil
		}
	}
	return "", errOutside
}
