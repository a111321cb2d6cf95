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

// linkAll finds the backing file of every image. Backing files that are found may have backing files in turn.
func (s *scan) linkAll() error {
	queue := s.sorted()
	for len(queue) > 0 {
		f := queue[0]
		queue = queue[1:]
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if f.linked {
			continue
		}
		f.linked = true
		s.unlistData(f)
		if f.format != formatQcow2 || f.header.BackingName == "" {
			continue
		}
		before := len(s.files)
		below, bad := s.backing(f)
		f.trouble = worse(f.trouble, bad)
		s.stand(f, below)
		if len(s.files) > before {
			queue = append(queue, below)
		}
	}
	return nil
}

// unlistData takes an image's external data file out of the machines: by itself it is no disk.
func (s *scan) unlistData(f *file) {
	if f.header.DataName == "" {
		return
	}
	if where, err := s.resolve(f.folder, f.header.DataName); err == nil && s.files[where] != nil {
		s.files[where].listed = false
	}
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
	switch {
	case err != nil:
		return nil, trouble{backup.StateBroken, fmt.Sprintf("backing file %s: %s", shown, reason(err))}
	case below.format == formatForeign:
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
