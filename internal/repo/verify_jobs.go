package repo

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// verifyJobs reads what jobs have left, as deep as the key allows: no point needs it, and a machine that has lost everything but
// the repository does.
func (v *verifier) verifyJobs(ctx context.Context) error {
	r := v.repo
	files, more, err := r.jobFiles(ctx, jobsFolder)
	if err != nil {
		return err
	}
	if more {
		r.warn("%s has more than %d files of jobs: the others were not verified", jobsFolder, maxJobFiles)
	}
	jobs, errs := make([]string, len(files)), make([]error, len(files))
	var group errgroup.Group
	group.SetLimit(storage.ParallelReads(r.store))
	for i, file := range files {
		group.Go(func() error {
			record, err := r.readJob(ctx, file)
			jobs[i], errs[i] = record.Job, err
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	bad := map[string]error{}
	names := map[string]bool{}
	for i, file := range files {
		switch err := errs[i]; {
		case errors.Is(err, storage.ErrNotExist): // a newer one took its place just now
		case errors.Is(err, ErrNeedsKey): // of a generation of the key that is not here: its checksum holds
		case err != nil && !unreadable(err) && !errors.Is(err, storage.ErrTooLarge):
			return err
		case err != nil:
			bad[file] = err
		default:
			names[jobs[i]] = true
		}
	}
	if len(bad) == 0 {
		return nil
	}
	r.mu.Lock()
	for job := range r.state.Claims.Jobs() {
		names[job] = true
	}
	r.mu.Unlock()
	known := map[string]string{} // jobs by what the names of their files begin with
	if r.locked == nil {
		for name := range names {
			known[r.jobPrefix(name)] = name
		}
	}
	for _, file := range files {
		if err := bad[file]; err != nil {
			whose, then := "a job", "the job's next session writes it again"
			if name, found := known[file[:jobPrefixSize]]; found {
				whose = "job " + backup.EncodeName(name)
			} else if r.locked == nil {
				then += "; if the job is no more, delete the file"
			}
			v.damage(Damage{File: file, Reason: fmt.Sprintf(
				"%v; no point needs it, but without it a machine that has lost everything else cannot go on with %s: %s", err, whose, then,
			)})
		}
	}
	return nil
}

// jobs puts back records of jobs that are damaged from mirrors of the repository. One that no mirror has is removed only if
// another one of the job is good, and never if it says that a newer program wrote it; the job's next session writes one in its place.
func (h *healer) jobs(ctx context.Context, found *VerifyReport) error {
	r := h.repo
	for _, d := range found.Damage {
		if !isJobFile(d.File) {
			continue
		}
		good, err := h.mirroredJob(ctx, d.File)
		if err != nil {
			return err
		}
		if good == nil {
			needless, err := r.needlessJob(ctx, d.File)
			if err != nil {
				return err
			}
			if !needless {
				continue
			}
		}
		if err := r.store.Delete(ctx, d.File); err != nil {
			return err
		}
		if good != nil {
			if err := r.store.Put(ctx, d.File, good); err != nil {
				return err
			}
		}
		h.report.Remade = append(h.report.Remade, d.File)
	}
	return nil
}

// mirroredJob is what a mirror has of a record's file, proven; nil if none has it.
func (h *healer) mirroredJob(ctx context.Context, name string) ([]byte, error) {
	for _, donor := range h.donors {
		raw, _, err := h.repo.readJobOf(ctx, donor.store, name)
		if err == nil || ctx.Err() != nil {
			return raw, ctx.Err()
		}
	}
	return nil, nil
}

// needlessJob is true for a damaged record if another one of the job is good. One that a newer program may have written is none.
func (r *Repository) needlessJob(ctx context.Context, name string) (bool, error) {
	if _, err := r.readJob(ctx, name); errors.Is(err, ErrNewer) || ctx.Err() != nil {
		return false, ctx.Err()
	}
	good, err := r.jobsBeside(ctx, name)
	return good > 0, err
}

// jobsBeside counts the good records of the job that a file's name says.
func (r *Repository) jobsBeside(ctx context.Context, name string) (int, error) {
	files, _, err := r.jobFiles(ctx, name[:jobPrefixSize])
	if err != nil {
		return 0, err
	}
	good := 0
	for _, file := range files {
		if _, err := r.readJob(ctx, file); err == nil {
			good++
		} else if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return good, nil
}
