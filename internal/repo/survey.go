package repo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// Survey compares a repository's files with what its log names. No content is read.
type Survey struct {
	// Entries of the log, Named files that it names and that are there, with the bytes that they take.
	Entries int64
	Named   int
	Bytes   int64
	// Missing are files that the log names and that are not there, and entries of its own; Other are packs that have another size than it says.
	Missing, Other []string
	// LostIndex counts index segments that are not there: Reindex makes them again.
	LostIndex int
	// Unnamed are files that no log entry names: of a copy that runs or was killed, or put there by hand.
	Unnamed []storage.Info
}

// UnnamedBytes is what the unnamed files take.
func (s *Survey) UnnamedBytes() int64 {
	var sum int64
	for _, info := range s.Unnamed {
		sum += info.Size
	}
	return sum
}

// Survey lists the files, reads the log on, and compares: a file that the log does not name was not named when it was listed.
func (r *Repository) Survey(ctx context.Context) (*Survey, error) {
	listing := map[string]storage.Info{}
	for _, folder := range append([]string{"log/"}, reclaimed...) {
		for info, err := range r.store.List(ctx, folder) {
			if err != nil {
				return nil, fmt.Errorf("listing %s: %w", folder, err)
			}
			if !info.NotFile {
				listing[info.Name] = info
			}
		}
	}
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	state := r.snapshot()
	s := &Survey{Entries: int64(state.Head.N)}
	sizes := map[string]int64{}
	for id, p := range state.Packs.All() {
		sizes[pack.ObjectName(id)] = p.Size
	}
	for _, name := range lockedFiles(state, false) {
		info, listed := listing[name]
		if !listed { // listings may lag
			var err error
			if info, err = r.store.Stat(ctx, name); storage.Missing(err) {
				s.Missing = append(s.Missing, name)
				continue
			} else if err != nil {
				return nil, err
			}
		}
		s.Named++
		s.Bytes += info.Size
		if size, isPack := sizes[name]; isPack && size != info.Size {
			s.Other = append(s.Other, name)
		}
	}
	for n := uint64(1); n <= state.Head.N; n++ {
		if _, listed := listing[commitlog.EntryName(n)]; !listed {
			if _, err := r.store.Stat(ctx, commitlog.EntryName(n)); storage.Missing(err) {
				s.Missing = append(s.Missing, commitlog.EntryName(n))
			} else if err != nil {
				return nil, err
			}
		}
	}
	for id := range state.Index {
		if _, listed := listing[segmentName(id)]; !listed {
			s.LostIndex++
		}
	}
	named := namedBy(state)
	for name, info := range listing {
		if !named(name) && !strings.HasPrefix(name, "log/") {
			s.Unnamed = append(s.Unnamed, info)
		}
	}
	slices.Sort(s.Missing)
	slices.Sort(s.Other)
	slices.SortFunc(s.Unnamed, func(a, b storage.Info) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}
