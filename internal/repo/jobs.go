package repo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// JobRecord is what a job leaves in its target, so that a machine that knows nothing but the repository can go on with it
// (docs/format.md section 16).
type JobRecord struct {
	// Job is its name.
	Job string `json:"job"`
	// Time is when it was written, by the writer's clock.
	Time time.Time `json:"time"`
	// Document is YAML: the job and the repositories that it names, with references to secrets.
	Document string `json:"document"`
	// Needed are the jobs that it copies on or comes after, and those that they need, as they were when this was written. Records that
	// they have left themselves are newer.
	Needed []NeededJob `json:"needed,omitempty"`
	// Memory is what the job's next session goes by: an object of JSON that belongs to the job.
	Memory json.RawMessage `json:"memory"`
}

// NeededJob is a job that another one cannot be without.
type NeededJob struct {
	Job string `json:"job"`
	// Document is YAML: the job and the repositories that it names.
	Document string `json:"document"`
}

const (
	jobsFolder = "jobs/"
	jobFixed   = format.PreludeSize + 4 + format.SaltSize
	jobTail    = 32
	// jobLimit is the size of the largest record, in bytes; maxJobFiles how many files are read at most.
	jobLimit    = 1 << 20
	maxJobFiles = 10_000
)

// ErrRecordTooLarge: a job's record takes more than any may have.
var ErrRecordTooLarge = errors.New("the record of a job is too large")

// WriteJob leaves a job's record in the repository, in place of the one before. Job and Memory must be set. One that
// is too large gives ErrRecordTooLarge, and the one before stays.
func (r *Repository) WriteJob(ctx context.Context, record JobRecord) error {
	if err := errors.Join(r.Writable(), r.locked); err != nil {
		return err
	}
	record.Time = r.env.now().UTC()
	var salt [format.SaltSize]byte
	if r.hasher.Generation() != 0 {
		rand.Read(salt[:]) // never fails: crypto/rand ends the program instead
	}
	raw, err := sealJob(r.hasher, salt, r.jobLabel(), record)
	if err != nil {
		return err
	}
	folder := r.jobPrefix(record.Job)
	older, _, err := r.jobFiles(ctx, folder)
	if err != nil {
		return err
	}
	random := format.RandomName()
	if err := r.store.Put(ctx, fmt.Sprintf("%s%x", folder, random[:8]), raw); err != nil {
		return err
	}
	for _, name := range older {
		_ = r.store.Delete(ctx, name) // the newest counts: an older one costs space only
	}
	return nil
}

// Jobs returns the records of all jobs, or of those of the names given, sorted by name, and what was not read: for
// each file that cannot be read why, also where its newer one is not listed yet, and that there are more files than the 10000 that are
// read, if so. The error is that of the storage.
func (r *Repository) Jobs(ctx context.Context, names ...string) (records []JobRecord, unreadable []error, err error) {
	if r.locked != nil {
		return nil, nil, r.locked
	}
	prefixes := []string{jobsFolder}
	if len(names) > 0 {
		prefixes = nil
		for _, name := range names {
			prefixes = append(prefixes, r.jobPrefix(name))
		}
	}
	read, err := r.readJobs(ctx, prefixes)
	if err == nil && len(read.replaced) > 0 { // meanwhile, or the listing is behind
		read, err = r.readJobs(ctx, prefixes)
	}
	if err != nil {
		return nil, nil, err
	}
	unreadable = read.unreadable
	for _, name := range read.replaced {
		unreadable = append(unreadable, fmt.Errorf("%s: %w: a newer record has taken its place, and listings do not show it yet: look again later", name, storage.ErrNotExist))
	}
	if read.more {
		unreadable = append(unreadable, fmt.Errorf("%s has more than %d files of jobs: the others were not read, and may have newer records", jobsFolder, maxJobFiles))
	}
	for _, record := range read.newest {
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b JobRecord) int { return strings.Compare(a.Job, b.Job) })
	return records, unreadable, nil
}

// readRecords is what the files of jobs hold.
type readRecords struct {
	newest     map[string]JobRecord
	unreadable []error
	// replaced are listed files that are gone, of jobs of which no other is listed.
	replaced []string
	// more is true if there are files beyond the bound.
	more bool
}

func (r *Repository) readJobs(ctx context.Context, prefixes []string) (readRecords, error) {
	read := readRecords{newest: map[string]JobRecord{}}
	files, more, err := r.jobFiles(ctx, prefixes...)
	if err != nil {
		return read, err
	}
	read.more = more
	there := map[string]bool{}
	for _, name := range files {
		record, err := r.readJob(ctx, name)
		before, seen := read.newest[record.Job]
		there[name[:jobPrefixSize]] = there[name[:jobPrefixSize]] || !errors.Is(err, storage.ErrNotExist)
		switch {
		case errors.Is(err, storage.ErrNotExist):
			read.replaced = append(read.replaced, name)
		case ctx.Err() != nil:
			return read, ctx.Err()
		case err != nil:
			read.unreadable = append(read.unreadable, fmt.Errorf("%s: %w", name, err))
		case !seen || record.Time.After(before.Time):
			read.newest[record.Job] = record
		}
	}
	read.replaced = slices.DeleteFunc(read.replaced, func(name string) bool { return there[name[:jobPrefixSize]] })
	return read, nil
}

// jobPrefix is what the names of a job's files begin with.
func (r *Repository) jobPrefix(job string) string {
	sum := r.hasher.Sum(format.ContextJobName, []byte(job))
	return fmt.Sprintf("%s%x-", jobsFolder, sum[:16])
}

// jobFiles lists the files whose names begin with one of the prefixes; more is true if there are others beyond the bound.
func (r *Repository) jobFiles(ctx context.Context, prefixes ...string) (names []string, more bool, err error) {
	for info, err := range r.store.List(ctx, jobsFolder) {
		if err != nil {
			return nil, false, err
		}
		if !isJobFile(info.Name) || !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(info.Name, prefix) }) {
			continue
		}
		if len(names) == maxJobFiles {
			return names, true, nil
		}
		names = append(names, info.Name)
	}
	return names, false, nil
}

// jobNameSize is how long the name of a job's file is, and jobPrefixSize how much of it says which job.
const (
	jobPrefixSize = len(jobsFolder) + 32 + 1
	jobNameSize   = jobPrefixSize + 16
)

// isJobFile is false for other names than section 16 of the format has.
func isJobFile(name string) bool {
	return len(name) == jobNameSize && strings.HasPrefix(name, jobsFolder) && name[jobPrefixSize-1] == '-'
}

func (r *Repository) readJob(ctx context.Context, name string) (JobRecord, error) {
	var record JobRecord
	err := r.withLaterKeys(ctx, func() (err error) { _, record, err = r.readJobOf(ctx, r.store, name); return err })
	return record, err
}

// readJobOf reads a record of this repository from its store, or from that of a mirror. Without the key it is proven as far as it
// can be, and the record is empty.
func (r *Repository) readJobOf(ctx context.Context, store storage.Store, name string) (raw []byte, record JobRecord, err error) {
	raw, err = storage.ReadAll(ctx, store, name, jobFixed+jobLimit+jobTail+64)
	if err != nil {
		return nil, record, err
	}
	if r.locked != nil {
		_, err = checkJob(r.hasher, raw)
		return raw, record, err
	}
	record, err = openJob(r.hasher, r.jobLabel(), raw)
	if err == nil && !strings.HasPrefix(name, r.jobPrefix(record.Job)) {
		err = fmt.Errorf("%w: it is the record of another job than its name says", ErrCorrupt)
	}
	return raw, record, err
}

// jobLabel is the associated data of what is encrypted: the record of one repository is none of another.
func (r *Repository) jobLabel() []byte {
	return append([]byte(bodyLabel), r.description.ID[:]...)
}

// sealJob makes the file of a record. With keys it is encrypted under the salt, which must be fresh; else the salt is zeros.
func sealJob(hasher *format.Hasher, salt [format.SaltSize]byte, label []byte, record JobRecord) ([]byte, error) {
	body, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	if len(body) > jobLimit {
		return nil, fmt.Errorf("%w: that of job %s takes %d bytes", ErrRecordTooLarge, record.Job, len(body))
	}
	raw := format.AppendPrelude(make([]byte, 0, jobFixed+len(body)+jobTail), format.MagicJob)
	generation := hasher.Generation()
	if generation != 0 {
		format.MarkEncrypted(raw)
		aead, err := format.NewAEAD(hasher.Keys(), generation, salt[:], format.InfoJob)
		if err != nil {
			return nil, err
		}
		body = aead.Seal(nil, make([]byte, aead.NonceSize()), body, label)
	}
	raw = binary.LittleEndian.AppendUint32(raw, generation)
	raw = append(append(raw, salt[:]...), body...)
	sum := hasher.Sum(format.ContextJob, raw)
	return append(raw, sum[:]...), nil
}

func openJob(hasher *format.Hasher, label, raw []byte) (record JobRecord, err error) {
	body, err := checkJob(hasher, raw)
	if err != nil {
		return record, err
	}
	if generation := binary.LittleEndian.Uint32(raw[format.PreludeSize:]); generation != 0 {
		aead, err := format.NewAEAD(hasher.Keys(), generation, raw[format.PreludeSize+4:jobFixed], format.InfoJob)
		if err != nil {
			return record, err
		}
		if body, err = aead.Open(nil, make([]byte, aead.NonceSize()), body, label); err != nil {
			return record, fmt.Errorf("%w: record of a job", ErrForged)
		}
	}
	if !utf8.Valid(body) {
		return record, fmt.Errorf("%w: it is not UTF-8", ErrCorrupt)
	}
	if err := json.Unmarshal(body, &record); err != nil {
		return record, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return record, nil
}

// checkJob proves as much of a record as needs no key, and returns its body, which may be encrypted.
func checkJob(hasher *format.Hasher, raw []byte) (body []byte, err error) {
	if err := format.CheckPrelude(raw, format.MagicJob); err != nil {
		return nil, err
	}
	if len(raw) < jobFixed+jobTail {
		return nil, fmt.Errorf("%w: shorter than any record of a job", ErrCorrupt)
	}
	content := raw[:len(raw)-jobTail]
	if hasher.Sum(format.ContextJob, content) != format.ID(raw[len(content):]) {
		return nil, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	encrypted := binary.LittleEndian.Uint32(raw[format.PreludeSize:]) != 0
	if format.IsEncrypted(raw) != encrypted || hasher.Encrypted() != encrypted {
		return nil, fmt.Errorf("%w: it is encrypted where the repository is not, or the other way round", ErrForged)
	}
	if salt := [format.SaltSize]byte(raw[format.PreludeSize+4:]); !encrypted && salt != [format.SaltSize]byte{} {
		return nil, fmt.Errorf("%w: a salt without encryption", ErrCorrupt)
	}
	return content[jobFixed:], nil
}
