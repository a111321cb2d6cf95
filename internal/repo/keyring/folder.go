package keyring

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// Errors of finding the ring in a repository.
var (
	// ErrNeedsKey: no key was given.
	ErrNeedsKey = format.ErrNeedsKey
	// ErrWrongKey: keys were given, and none of them opens a key file.
	ErrWrongKey = errors.New("encrypted, and no key given opens it")
	// ErrNoKeyFiles: there is no key file that a key could open. See NoKeyFilesError.
	ErrNoKeyFiles = errors.New("encrypted, and its key files are lost or damaged")
)

// NoKeyFilesError says that no key opens the repository, whatever key is given. It is an ErrNoKeyFiles.
type NoKeyFilesError struct {
	// Damaged is how many key files there are nevertheless.
	Damaged int
}

// Reason is the error in a part of a sentence.
func (e *NoKeyFilesError) Reason() string {
	switch e.Damaged {
	case 0:
		return "there is no key file that a key could open (" + Folder + " is empty or gone)"
	case 1:
		return "the only key file is damaged"
	}
	return fmt.Sprintf("all %d key files are damaged", e.Damaged)
}

func (e *NoKeyFilesError) Error() string { return "encrypted, and " + e.Reason() }

// Is makes it an ErrNoKeyFiles.
func (e *NoKeyFilesError) Is(target error) bool { return target == ErrNoKeyFiles }

// Folder is where a repository has its key files.
const Folder = "keys/"

const (
	// NoteSuffix ends the name of the note about a key file.
	NoteSuffix       = ".recipient"
	generationDigits = 6
	// maxFiles is how many key files there are of one generation, and how many with a passphrase are tried in all.
	maxFiles = 64
	// maxRead is how many key files are read in all.
	maxRead = 4 * maxFiles
)

// File names a key file.
type File struct {
	// Generation is the newest in the ring that the file holds.
	Generation uint32
	// ID is made from the file's bytes.
	ID format.Name
}

// Path of the key file in the repository.
func (f File) Path() string { return Folder + f.base() }

func (f File) base() string { return generationName(f.Generation) + "-" + f.ID.String() }

// NotePath is that of the note about the key file.
func (f File) NotePath() string { return f.Path() + NoteSuffix }

func generationName(generation uint32) string {
	return fmt.Sprintf("%0*d", generationDigits, generation)
}

// ParseFile reads the path of a key file; false for other files.
func ParseFile(name string) (File, bool) {
	digits, id, ok := strings.Cut(path.Base(name), "-")
	if !ok || len(digits) != generationDigits {
		return File{}, false
	}
	var f File
	generation, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || generation < 1 || f.ID.UnmarshalText([]byte(id)) != nil {
		return File{}, false
	}
	f.Generation = uint32(generation)
	return f, f.Path() == name
}

// FileOf names a key file with this content.
func FileOf(generation uint32, content []byte) File {
	sum := sha256.Sum256(content)
	return File{Generation: generation, ID: format.Name(sum[:16])}
}

// CheckFile proves that a key file is what was written. It needs no key. Errors wrap format.ErrCorrupt.
func CheckFile(name File, content []byte) error {
	if FileOf(name.Generation, content) != name {
		return fmt.Errorf("%w: its bytes are not those that its name was made from", format.ErrCorrupt)
	}
	return nil
}

// Files lists the key files, the newest generation first, also those that listings do not show yet. It may be that one is not
// there any more.
func Files(ctx context.Context, store storage.Store) ([]File, error) {
	files, _, err := look(ctx, store)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), slices.Compare(a.ID[:], b.ID[:]))
	})
	return files, nil
}

// Identify gives identities to try on a repository whose key files are of these kinds. It is called again, with the
// number of the try, as long as nothing opened; none ends that.
type Identify func(ctx context.Context, try int, kinds []Kind) ([]age.Identity, error)

// Load finds the ring of the repository with the id and key check. Things found on the way that somebody should look at
// are warnings. Where a key file that was listed is not there, the others are listed and read again until the same ones are
// missing twice: a rotation takes files away when it has made others. Errors wrap ErrNeedsKey, ErrWrongKey, ErrNoKeyFiles or
// ErrForged, or are the storage's or identify's.
func Load(ctx context.Context, store storage.Store, repository, check format.Name, identify Identify) (ring *Ring, warnings []string, err error) {
	var l loader
	for missing := []File(nil); ; missing = l.missing {
		l = loader{store: store, repository: repository, check: check}
		if err := l.read(ctx); err != nil {
			return nil, l.warnings, err
		}
		if len(l.missing) == 0 || slices.Equal(l.missing, missing) {
			break
		}
	}
	ring, err = l.load(ctx, identify)
	return ring, l.warnings, err
}

// loader looks for the ring.
type loader struct {
	store             storage.Store
	repository, check format.Name
	// files that are whole, by generation; generations in descending order.
	files       map[uint32][]keyFile
	generations []uint32
	// damaged is how many files are not whole, missing are those that were listed and are not there.
	damaged  int
	missing  []File
	warnings []string
	// stretched is how often a passphrase was tried, which is slow.
	stretched int
	// unread are the generations of the files that the storage did not give, and failed is why it did not give the last of them.
	unread []uint32
	failed error
}

type keyFile struct {
	File
	kind    Kind
	content []byte
}

func (l *loader) warn(f File, err error) {
	l.warnings = append(l.warnings, fmt.Sprintf("%s: %v", f.Path(), err))
}

// read reads all key files.
func (l *loader) read(ctx context.Context) error {
	names, err := Files(ctx, l.store)
	if err != nil {
		return err
	}
	l.files = map[uint32][]keyFile{}
	read := 0
	for _, name := range names {
		g := name.Generation
		if len(l.files[g]) == maxFiles {
			continue
		}
		if read == maxRead {
			break
		}
		content, err := storage.ReadAll(ctx, l.store, name.Path(), MaxFile)
		if storage.Absent(err) {
			l.missing = append(l.missing, name)
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		read++
		if passing(err) != nil {
			l.unread, l.failed = append(l.unread, g), err
		}
		if err == nil {
			err = CheckFile(name, content)
		}
		if err != nil {
			l.damaged++
			l.warn(name, err)
			continue
		}
		if len(l.files[g]) == 0 {
			l.generations = append(l.generations, g)
		}
		l.files[g] = append(l.files[g], keyFile{name, KindOf(content), content})
	}
	// Passphrases last: each try of one is slow.
	for _, files := range l.files {
		slices.SortStableFunc(files, func(a, b keyFile) int {
			return cmp.Compare(boolToInt(a.kind == KindPassphrase), boolToInt(b.kind == KindPassphrase))
		})
	}
	return nil
}

func (l *loader) kinds() []Kind {
	var kinds []Kind
	for _, g := range l.generations {
		for _, f := range l.files[g] {
			if !slices.Contains(kinds, f.kind) {
				kinds = append(kinds, f.kind)
			}
		}
	}
	return kinds
}

// load finds the ring in what was read. What the storage did not give may be what the key opens, or hold a newer one: without it
// no key is wrong, and none is missing.
func (l *loader) load(ctx context.Context, identify Identify) (*Ring, error) {
	ring, err := l.find(ctx, identify)
	switch {
	case l.failed == nil || ctx.Err() != nil:
	case errors.Is(err, ErrNeedsKey) || errors.Is(err, ErrWrongKey) || errors.Is(err, ErrNoKeyFiles):
		return nil, l.failed
	case err == nil && slices.ContainsFunc(l.unread, func(g uint32) bool { return !ring.Has(g) }):
		return nil, l.failed
	}
	return ring, err
}

// find asks for keys until one opens a file.
func (l *loader) find(ctx context.Context, identify Identify) (*Ring, error) {
	if len(l.generations) == 0 {
		return nil, &NoKeyFilesError{Damaged: l.damaged}
	}
	for try := 0; ; try++ {
		var identities []age.Identity
		if identify != nil {
			var err error
			if identities, err = identify(ctx, try, l.kinds()); err != nil {
				return nil, err
			}
		}
		switch {
		case len(identities) == 0 && try == 0:
			return nil, ErrNeedsKey
		case len(identities) == 0:
			return nil, ErrWrongKey
		}
		for i, g := range l.generations {
			if ring := l.open(ctx, g, identities); ring != nil {
				if i > 0 {
					l.warnings = append(l.warnings, fmt.Sprintf(
						"the key given opens generation %d, and there is generation %d: a rotation left this key out, or was interrupted", g, l.generations[0]))
				}
				return l.complete(ctx, ring, l.generations[i+1:], identities)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
}

// open returns the ring of the first file of a generation that opens and is right, or nil.
func (l *loader) open(ctx context.Context, generation uint32, identities []age.Identity) *Ring {
	for _, f := range l.files[generation] {
		if ctx.Err() != nil {
			return nil
		}
		if f.kind == KindPassphrase {
			if l.stretched++; l.stretched > maxFiles {
				continue
			}
		}
		ring, err := Open(f.content, identities...)
		if errors.Is(err, ErrNoMatch) {
			continue
		}
		if err == nil {
			err = ring.Fits(l.repository, l.check)
		}
		if err == nil && ring.Newest() != generation {
			err = fmt.Errorf("%w: it holds generation %d", format.ErrCorrupt, ring.Newest())
		}
		if err != nil {
			l.warn(f.File, err)
			continue
		}
		ring.from = f.File
		return ring
	}
	return nil
}

// complete adds the data keys of generations that the ring lacks: two rotations at once each made one.
func (l *loader) complete(ctx context.Context, ring *Ring, older []uint32, identities []age.Identity) (*Ring, error) {
	for _, g := range older {
		if ring.Has(g) {
			continue
		}
		if other := l.open(ctx, g, identities); other != nil {
			united, err := ring.unite(other)
			if err != nil {
				return nil, err
			}
			ring = united
		}
	}
	return ring, ctx.Err()
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
