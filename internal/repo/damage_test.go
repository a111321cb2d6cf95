package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// specimen is a small repository with every kind of file, and the cache of the machine that wrote it.
type specimen struct {
	store  *memory.Store
	cache  string
	points []*sourcetest.Point
}

func newSpecimen(t *testing.T, options repo.Options) specimen {
	t.Helper()
	text := bytes.Repeat([]byte("compresses well, unlike noise. "), 300)
	web := onePoint("web", "w1", append(content(80, 3*smallBlock), text...))
	web.Objects = append(web.Objects, sourcetest.Object{
		Role: backup.RoleArchive, Name: "root", Data: content(81, 40<<10), Access: source.AccessOnePass, Shifting: true,
	}, sourcetest.Object{Role: backup.RoleConfiguration, Name: "conf", Data: []byte("x=1")})
	next := onePoint("web", "w2", changed(web.Objects[0].Data, 82, 5*smallBlock+17))
	next.Base, next.Created = web, at(2)
	s := specimen{store: initialized(t, options), cache: newCache(t), points: []*sourcetest.Point{web, next}}
	r := must(openSmall(t.Context(), s.store, s.cache))(t)
	r.SetPackTargets(8<<10, 8<<10)
	mustCopyAll(t, r, s.points...)
	broken := onePoint("broken", "b1", content(83, 2*smallBlock))
	broken.Revalidated = errInjected // leaves an unfinished copy
	_, _ = copyAll(t.Context(), r, sourcetest.Open(t, broken))
	_ = must(r.Verify(t.Context(), nil))(t)
	closeRepo(t, r)
	for _, folder := range []string{"log/", "points/", "partials/", "packs/", "index/", "marks/last-run", "marks/verified"} {
		if len(s.store.Names(folder)) == 0 {
			t.Fatalf("the specimen has nothing in %s", folder)
		}
	}
	return s
}

// judge fails the test if bytes come back wrong without a word, or if what was done to the repository shows neither when
// it is opened, nor when it is verified, nor makes any difference. What is done to hints must make none.
func (s specimen) judge(t *testing.T, store *memory.Store, cache, what string) {
	t.Helper()
	if strings.HasPrefix(what, "marks/") {
		s.judgeMark(t, store, cache, what)
		return
	}
	r, err := openSmall(t.Context(), store, cache)
	if err != nil {
		if text := err.Error(); !strings.Contains(text, "log/") && !strings.Contains(text, "repository.json") && !strings.Contains(text, "keys/") && !errors.Is(err, repo.ErrNoRepository) {
			t.Errorf("%s: the error names no file: %v", what, err)
		}
		return
	}
	defer closeRepo(t, r)
	noticed := r.Diverged() != nil
	report, err := r.Verify(t.Context(), nil)
	if err != nil {
		t.Errorf("%s: verify gave up: %v", what, err)
		return
	}
	noticed = noticed || len(report.Damage)+len(report.Healed)+len(report.Remade) > 0
	if r.Locked() { // its key file was taken away
		if !noticed {
			t.Errorf("%s: verify found nothing, and no key opens it any more", what)
		}
		return
	}
	unreadable := false
	for _, p := range s.points {
		err := compare(t.Context(), r, p)
		var wrong *wrongBytes
		switch {
		case errors.As(err, &wrong):
			t.Errorf("%s: wrong bytes without a word: %v", what, err)
		case err != nil:
			unreadable = true
			if !noticed {
				t.Errorf("%s: verify found nothing, but: %v", what, err)
			}
		}
	}
	pointDamaged := slices.ContainsFunc(report.Damage, func(d repo.Damage) bool { return d.Point != "" })
	// The other way round is right: a frame whose own header is damaged is read by what the tree says of it.
	if len(r.Entries()) == len(s.points) && unreadable && !pointDamaged {
		t.Errorf("%s: points cannot be read, and verify does not say which: %+v", what, report.Damage)
	}
	if !noticed && len(report.Warnings) == 0 {
		t.Errorf("%s: nothing was noticed", what)
	}
}

// judgeMark fails the test if damage to a mark does any harm: if the repository is not what it was, if the mark says
// anything that it did not say before, or if it is not whole again after the next work that writes it.
func (s specimen) judgeMark(t *testing.T, store *memory.Store, cache, what string) {
	t.Helper()
	store = store.Clone() // which is written to
	r, err := openSmall(t.Context(), store, cache)
	if err != nil {
		t.Errorf("%s: it does not open: %v", what, err)
		return
	}
	defer closeRepo(t, r)
	before := must(openSmall(t.Context(), s.store, ""))(t)
	defer closeRepo(t, before)
	const lastRun, verified = "marks/last-run", "marks/verified"
	wanted, _ := before.LastRun(t.Context())
	run, _ := r.LastRun(t.Context())
	if wanted == nil || strings.HasPrefix(what, lastRun) && run != nil || run != nil && *run != *wanted {
		t.Errorf("%s: the last copy wrote %+v; before it was %+v", what, run, wanted)
	}
	for i, proven := range r.Proven(t.Context()) {
		whole := before.Proven(t.Context())[i]
		if whole.Never > 0 || strings.HasPrefix(what, verified) && proven.Never == 0 || proven.Never == 0 && proven != whole {
			t.Errorf("%s: proven %+v; before it was %+v", what, proven, whole)
		}
	}
	report := must(r.Verify(t.Context(), nil))(t)
	if len(report.Damage)+len(report.Healed)+len(report.Remade)+len(report.Warnings) > 0 || r.Diverged() != nil {
		t.Errorf("%s: a mark is no more than a hint: %+v, %v", what, report, r.Diverged())
	}
	for _, p := range s.points {
		if err := compare(t.Context(), r, p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if proven := r.Proven(t.Context())[1]; proven.Never > 0 {
		t.Errorf("%s: verified, and still %d packs count as never proven", what, proven.Never)
	}
	writer := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, writer)
	mustCopyAll(t, writer, onePoint("another", "a1", content(84, 2*smallBlock)))
	if run, since := writer.LastRun(t.Context()); run == nil || run.Points != 1 || since != 0 {
		t.Errorf("%s: the next copy notes %+v, %d packs since", what, run, since)
	}
}

func specimens() map[string]repo.Options {
	return map[string]repo.Options{"blake3": {}, "sha256": {SHA256: true}}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	for hash, options := range specimens() {
		t.Run(hash, func(t *testing.T) {
			s := newSpecimen(t, options)
			for _, name := range s.store.Names("") {
				size := int(must(s.store.Stat(t.Context(), name))(t).Size)
				stride := 5
				if strings.HasPrefix(name, "packs/") {
					stride = 67
				}
				if testing.Short() {
					stride *= 36
				}
				for i := 0; i < size; i += stride {
					at := i + (i/stride*7)%min(stride, size-i)
					bit := byte(1) << (i / stride % 8)
					store := s.store.Clone()
					if err := store.Tamper(name, func(b []byte) []byte { b[at] ^= bit; return b }); err != nil {
						t.Fatal(err)
					}
					s.judge(t, store, "", fmt.Sprintf("%s, byte %d of %d, bit %02x", name, at, size, bit))
				}
			}
		})
	}
}

// The edges of each file, every byte of them.
func TestEveryFlippedByteOfHeadersIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("the sampled bits stand for it")
	}
	s := newSpecimen(t, repo.Options{})
	done := map[string]bool{}
	for _, name := range s.store.Names("") {
		kind, _, _ := strings.Cut(name, "/")
		if done[kind] {
			continue
		}
		done[kind] = true
		size := int(must(s.store.Stat(t.Context(), name))(t).Size)
		for at := range size {
			if at > 170 && at < size-140 {
				continue
			}
			store := s.store.Clone()
			if err := store.Tamper(name, func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b }); err != nil {
				t.Fatal(err)
			}
			s.judge(t, store, "", fmt.Sprintf("%s, byte %d of %d", name, at, size))
		}
	}
}

func TestFilesLostCutAndExchanged(t *testing.T) {
	kinds := specimens()
	if testing.Short() {
		delete(kinds, "sha256") // the other hash stands for it
	}
	for hash, options := range kinds {
		t.Run(hash, func(t *testing.T) {
			s := newSpecimen(t, options)
			names := s.store.Names("")
			for _, name := range names {
				store := s.store.Clone()
				if err := store.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				// Without the memory of the head, a log without its last entry is just an older log.
				s.judge(t, store, s.cache, name+" deleted")
				for what, tamper := range map[string]func([]byte) []byte{
					"empty":    func([]byte) []byte { return nil },
					"halved":   func(b []byte) []byte { return b[:len(b)/2] },
					"cut":      func(b []byte) []byte { return b[:len(b)-1] },
					"longer":   func(b []byte) []byte { return append(b, 0) },
					"doubled":  func(b []byte) []byte { return append(b, b...) },
					"headless": func(b []byte) []byte { return b[1:] },
				} {
					store := s.store.Clone()
					if err := store.Tamper(name, tamper); err != nil {
						t.Fatal(err)
					}
					for _, cache := range []string{"", s.cache} {
						s.judge(t, store, cache, name+" "+what)
					}
				}
			}
			for i, one := range names {
				for _, other := range names[i+1:] {
					if kind, _, _ := strings.Cut(one, "/"); !strings.HasPrefix(other, kind) {
						continue
					}
					store := s.store.Clone()
					exchange(t, store, one, other)
					s.judge(t, store, "", one+" exchanged with "+path.Base(other))
				}
			}
		})
	}
}

func exchange(t *testing.T, store *memory.Store, one, other string) {
	t.Helper()
	var kept []byte
	err := store.Tamper(one, func(b []byte) []byte { kept = b; return b })
	err = errors.Join(err, store.Tamper(other, func(b []byte) []byte { b, kept = kept, b; return b }))
	if err = errors.Join(err, store.Tamper(one, func([]byte) []byte { return kept })); err != nil {
		t.Fatal(err)
	}
}

// A repository with the files of another in place of its own.
func TestFilesOfAnotherRepository(t *testing.T) {
	s, foreign := newSpecimen(t, repo.Options{}), newSpecimen(t, repo.Options{})
	for _, folder := range []string{"repository.json", "log/", "points/"} {
		own, others := s.store.Names(folder), foreign.store.Names(folder)
		for i := range min(len(own), len(others)) {
			store := s.store.Clone()
			var content []byte
			err := foreign.store.Tamper(others[i], func(b []byte) []byte { content = b; return b })
			if err = errors.Join(err, store.Tamper(own[i], func([]byte) []byte { return content })); err != nil {
				t.Fatal(err)
			}
			s.judge(t, store, "", own[i]+" of another repository")
		}
	}
}

func TestDamagedCheckpoints(t *testing.T) {
	s := newSpecimen(t, repo.Options{})
	r := must(openSmall(t.Context(), s.store, s.cache))(t)
	for r.Usage().Entries < 2*128+3 {
		if err := r.AppendEntry(t.Context(), &commitlog.Payload{}); err != nil {
			t.Fatal(err)
		}
	}
	closeRepo(t, r)
	checkpoints := s.store.Names("checkpoints/")
	if len(checkpoints) != 2 {
		t.Fatalf("checkpoints: %v", checkpoints)
	}
	for _, name := range checkpoints {
		size := int(must(s.store.Stat(t.Context(), name))(t).Size)
		stride := size/60 + 1
		if testing.Short() {
			stride *= 6
		}
		for at := 0; at < size; at += stride {
			store := s.store.Clone()
			if err := store.Tamper(name, func(b []byte) []byte { b[at] ^= 4; return b }); err != nil {
				t.Fatal(err)
			}
			s.judge(t, store, "", fmt.Sprintf("%s, byte %d", name, at))
		}
		store := s.store.Clone()
		exchange(t, store, checkpoints[0], checkpoints[1])
		s.judge(t, store, "", "checkpoints exchanged")
	}
	// Entries before and after a checkpoint are as damaged as any: the checkpoint hides only that from opening.
	for _, n := range []uint64{1, 2, 100, 128, 129, 256, 257, 259} {
		for _, cache := range []string{"", s.cache} {
			store := s.store.Clone()
			if err := store.Tamper(commitlog.EntryName(n), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
				t.Fatal(err)
			}
			s.judge(t, store, cache, fmt.Sprintf("entry %d flipped", n))
			store = s.store.Clone()
			if err := store.Delete(t.Context(), commitlog.EntryName(n)); err != nil {
				t.Fatal(err)
			}
			if n < 259 || cache != "" {
				s.judge(t, store, cache, fmt.Sprintf("entry %d deleted", n))
			}
		}
	}
}
