package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"ferry/internal/job"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

// healing is where what is damaged may be had from, and what was mended.
type healing struct {
	app    *app
	places []string
	// stores are those of the places that are Ferry repositories, opened of them those that could be.
	stores []storage.Store
	opened []*repo.Repository
	// sources are the other places, and the repositories that have other ids.
	sources []string
	report  mendedJSON
}

// mendedJSON says what was healed, in the output of verify.
type mendedJSON struct {
	Blocks     int64    `json:"blocks"`
	Nodes      int64    `json:"nodes"`
	Bytes      int64    `json:"bytes"`
	FromParity int64    `json:"fromParity"`
	FromOthers int64    `json:"fromOthers"`
	Points     int      `json:"points"`
	Files      []string `json:"files"`
}

// newHealing opens the places that are repositories.
func (a *app) newHealing(ctx context.Context, places []string) (*healing, error) {
	h := &healing{app: a, places: places, report: mendedJSON{Files: []string{}}}
	for _, place := range places {
		if !s3.IsLocation(place) && !isRepository(place) {
			if err := mustBeFolder(place, "name the folder of a repository, or of backups"); err != nil {
				h.close()
				return nil, err
			}
			h.sources = append(h.sources, place)
			continue
		}
		store, err := a.openStore(place)
		if err != nil {
			h.close()
			return nil, err
		}
		h.stores = append(h.stores, store)
		// Without a cache: a mirror has the id of the repository itself, and its head is not the one to remember.
		environment := a.environment()
		environment.CacheDir = ""
		opened, err := repo.Open(ctx, store, environment)
		if err != nil {
			a.warnings([]string{fmt.Sprintf("%s: %v", place, err)})
			continue
		}
		h.opened = append(h.opened, opened)
	}
	return h, ctx.Err()
}

func (h *healing) close() {
	for _, opened := range h.opened {
		opened.Close()
	}
	for _, store := range h.stores {
		store.Close()
	}
}

// open opens the repository; one whose log or description is damaged gets them from a mirror first.
func (h *healing) open(ctx context.Context, path string) (*repo.Repository, error) {
	repository, err := h.app.openRepository(ctx, path)
	if err == nil || len(h.stores) == 0 || !errors.Is(err, repo.ErrCorrupt) && !errors.Is(err, repo.ErrNoRepository) {
		return repository, err
	}
	if mendErr := h.mendLog(ctx, path); mendErr != nil {
		return nil, errors.Join(err, mendErr)
	}
	return h.app.openRepository(ctx, path)
}

func (h *healing) mendLog(ctx context.Context, path string) error {
	store, err := h.app.openStore(path)
	if err != nil {
		return err
	}
	defer store.Close()
	mended, err := repo.MendLog(ctx, store, h.app.environment(), h.stores)
	h.report.Files = append(h.report.Files, mended...)
	return err
}

// run heals what a verification found, and verifies again what that makes of it: only what is new is read.
func (h *healing) run(ctx context.Context, path string, repository *repo.Repository, found *repo.VerifyReport) (*repo.VerifyReport, error) {
	for _, d := range found.Damage {
		if strings.HasPrefix(d.File, "log/") && len(h.stores) > 0 {
			if err := h.mendLog(ctx, path); err != nil {
				h.app.warnings([]string{err.Error()})
			}
			break
		}
	}
	mended, after, err := job.Mend(ctx, repository, found, h.opened, h.sourcesFor(ctx, repository), job.Options{TempDir: h.app.tempDir})
	h.report.Blocks, h.report.Nodes, h.report.Bytes = mended.Blocks, mended.Nodes, mended.Bytes
	h.report.FromParity, h.report.FromOthers, h.report.Points = mended.FromParity, mended.FromDonors, mended.Points
	h.report.Files = append(h.report.Files, mended.Remade...)
	for _, failure := range mended.Failures {
		h.app.warnings([]string{failure.Error()})
	}
	return after, err
}

// sourcesFor opens, one by one, the places that points are copied again from: backups, and repositories whose ids are others.
func (h *healing) sourcesFor(ctx context.Context, repository *repo.Repository) iter.Seq2[*registry.Source, error] {
	places := h.sources
	for _, opened := range h.opened {
		if !repository.Kin(opened) {
			places = append(places, opened.Location())
		}
	}
	return func(yield func(*registry.Source, error) bool) {
		for _, place := range places {
			opened, err := h.app.openSource(ctx, place, "")
			more := yield(opened, err)
			if opened != nil {
				opened.Close()
			}
			if !more {
				return
			}
		}
	}
}

// printHealed says what was mended.
func (a *app) printHealed(m mendedJSON) {
	for _, name := range m.Files {
		a.say("mended  file %s", name)
	}
	a.say("healed %s blocks and %s nodes, %s; %s from parity, %s from other repositories; %s written again",
		count(int(m.Blocks)), count(int(m.Nodes)), size(m.Bytes), count(int(m.FromParity)), count(int(m.FromOthers)), counted(m.Points, "point"))
}
