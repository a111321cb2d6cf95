package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

const secretWord = "harbour"

func record(job, document string) repo.JobRecord {
	return repo.JobRecord{Job: job, Document: document, Memory: []byte(`{"seen":1}`)}
}

// What a job leaves is read as it was written, the newest one only, and nothing that looks after the repository minds it.
func TestJobRecords(t *testing.T) {
	store := initialized(t, repo.Options{})
	clocked(store)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	for _, w := range []repo.JobRecord{record("offsite", "old"), record("weekly/ü", "other"), record("offsite", "name: "+secretWord)} {
		if err := r.WriteJob(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if names := store.Names("jobs/"); len(names) != 2 {
		t.Fatalf("files of two jobs: %v", names)
	}
	for range 2 { // the second time after everything that tidies up
		records, unreadable, err := r.Jobs(t.Context())
		if err != nil || len(unreadable) > 0 || len(records) != 2 || records[0].Job != "offsite" || records[1].Job != "weekly/ü" {
			t.Fatalf("%+v, %v, %v", records, unreadable, err)
		}
		if got := records[0]; got.Document != "name: "+secretWord || string(got.Memory) != `{"seen":1}` || time.Since(got.Time) > time.Hour {
			t.Errorf("read as %+v", got)
		}
		if only, _, err := r.Jobs(t.Context(), "weekly/ü", "none"); err != nil || len(only) != 1 || only[0].Document != "other" {
			t.Errorf("by name: %+v, %v", only, err)
		}
		policy := repo.DefaultReclaimPolicy()
		policy.Grace = 0
		for range 2 {
			must(r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: policy}))(t)
		}
		check(t, r, points...)
	}
}

// A listing that shows the record before and not the one that took its place does not make a job one without a record: it is looked at
// once more, and what it hides is told.
func TestJobRecordThatIsNotListedYet(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for _, w := range []repo.JobRecord{record("offsite", "old"), record("weekly", "other")} {
		if err := r.WriteJob(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	store.SetListingLag(-1)
	if err := r.WriteJob(t.Context(), record("offsite", "new")); err != nil {
		t.Fatal(err)
	}
	records, unreadable, err := r.Jobs(t.Context())
	if err != nil || len(records) != 1 || records[0].Job != "weekly" || len(unreadable) != 1 || !errors.Is(unreadable[0], storage.ErrNotExist) {
		t.Errorf("not listed yet: %+v, %v, %v", records, unreadable, err)
	}
	if _, unreadable, err := r.Jobs(t.Context(), "weekly"); err != nil || len(unreadable) > 0 {
		t.Errorf("another job's: %v, %v", unreadable, err)
	}
	settled := false
	store.SetFault(memory.InTurn(func(op memory.Op, _ string) error {
		if op == memory.OpOpen && !settled { // between the listing and the reading
			settled = true
			store.Settle()
		}
		return nil
	}))
	records, unreadable, err = r.Jobs(t.Context(), "offsite")
	if err != nil || len(unreadable) > 0 || len(records) != 1 || records[0].Document != "new" {
		t.Errorf("replaced while it was read: %+v, %v, %v", records, unreadable, err)
	}
}

// Each byte that changes is found; in an encrypted repository nothing of it can be read without the key, put in another
// repository, or made by somebody else.
func TestJobRecordIsProven(t *testing.T) {
	store, other := initialized(t, repo.Options{}), initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	if err := r.WriteJob(t.Context(), record("offsite", "name: "+secretWord)); err != nil {
		t.Fatal(err)
	}
	name := store.Names("jobs/")[0]
	raw := must(storage.ReadAll(t.Context(), store, name, 1<<20))(t)
	if encryptAll == bytes.Contains(raw, []byte(secretWord)) {
		t.Errorf("encrypted: %v; the file:\n%s", encryptAll, raw)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x10
		if err := store.Overwrite(t.Context(), name, bad); err != nil {
			t.Fatal(err)
		}
		records, unreadable, err := r.Jobs(t.Context())
		if err != nil || len(records) != 0 || len(unreadable) != 1 || !errors.Is(unreadable[0], repo.ErrCorrupt) && !errors.Is(unreadable[0], repo.ErrNewer) {
			t.Fatalf("byte %d: %v, %v, %v", i, records, unreadable, err)
		}
	}
	if err := other.Put(t.Context(), name, raw); err != nil {
		t.Fatal(err)
	}
	o := must(openSmall(t.Context(), other, ""))(t)
	defer closeRepo(t, o)
	if records, unreadable, err := o.Jobs(t.Context()); err != nil || encryptAll && (len(records) != 0 || !errors.Is(unreadable[0], repo.ErrForged)) {
		t.Errorf("of another repository: %+v, %v, %v", records, unreadable, err)
	}
	// A record in clear, with a checksum that holds.
	clear := initialized(t, repo.Options{})
	if !encryptAll {
		return
	}
	plain := bytes.Clone(raw[:len(raw)-32])
	plain[12] = 0
	copy(plain[format.PreludeSize:], make([]byte, 4+format.SaltSize))
	sum := format.NewHasher(format.HashBLAKE3, [32]byte{}).Sum(format.ContextJob, plain)
	if err := clear.Put(t.Context(), name, append(plain, sum[:]...)); err != nil {
		t.Fatal(err)
	}
	c := must(openSmall(t.Context(), clear, ""))(t)
	defer closeRepo(t, c)
	if records, unreadable, err := c.Jobs(t.Context()); err != nil || len(records) != 0 || !errors.Is(unreadable[0], repo.ErrForged) {
		t.Errorf("in clear: %+v, %v, %v", records, unreadable, err)
	}
}

// The folder is listed once, however many names are asked for; that not all files were read is told, and only where it is so.
func TestManyJobFiles(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for _, name := range []string{"a", "b"} {
		if err := r.WriteJob(t.Context(), record(name, name)); err != nil {
			t.Fatal(err)
		}
	}
	const bound = 10_000
	fill := func(from, to int) {
		for n := from; n < to; n++ {
			if err := store.Put(t.Context(), fmt.Sprintf("jobs/%032x-%016x", 1, n), []byte("no record")); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(0, bound-2)
	if records, unreadable, err := r.Jobs(t.Context()); err != nil || len(records) != 2 || len(unreadable) != bound-2 {
		t.Errorf("as many as are read: %d records, %d that are not, %v", len(records), len(unreadable), err)
	}
	fill(bound-2, bound)
	records, unreadable, err := r.Jobs(t.Context())
	if err != nil || len(records)+len(unreadable) != bound+1 || !strings.Contains(unreadable[len(unreadable)-1].Error(), "more than 10000 files") {
		t.Errorf("two more than are read: %d records, %d that are not, %v", len(records), len(unreadable), err)
	}
	store.ResetCounts()
	records, unreadable, err = r.Jobs(t.Context(), "b", "none", "a")
	if err != nil || len(records) != 2 || len(unreadable) > 0 || store.Calls(memory.OpList) != 1 {
		t.Errorf("by name: %+v, %v, %v, listed %d times", records, unreadable, err, store.Calls(memory.OpList))
	}
}

func TestJobRecordTooLarge(t *testing.T) {
	r := must(openSmall(t.Context(), initialized(t, repo.Options{}), ""))(t)
	defer closeRepo(t, r)
	if err := r.WriteJob(t.Context(), record("offsite", strings.Repeat("x", 1<<20))); !errors.Is(err, repo.ErrRecordTooLarge) {
		t.Errorf("a record of more than a mebibyte: %v", err)
	}
}

// A second job claims what the first has copied; then the point stays when one of them gives it up.
func TestClaim(t *testing.T) {
	r := must(openSmall(t.Context(), initialized(t, repo.Options{}), ""))(t)
	defer closeRepo(t, r)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	entries := r.Usage().Entries
	id := points[0].ID()
	n, err := r.Claim(t.Context(), []repo.Claim{{Point: id, Job: "offsite", Flags: []string{"none"}}, {Point: backup.PointID{1}, Job: "offsite"}})
	if err != nil || n != 1 || r.Usage().Entries != entries+1 || len(r.Claims(id)) != 2 {
		t.Fatalf("%d, %v, claims %+v", n, err, r.Claims(id))
	}
	if n, err := r.Claim(t.Context(), []repo.Claim{{Point: backup.PointID{1}, Job: "offsite"}}); n != 0 || err != nil || r.Usage().Entries != entries+1 {
		t.Errorf("nothing to claim: %d, %v", n, err)
	}
	done := must(r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: id, Tombstone: true, Reason: "named"}}, nil))(t)
	if done[0].Removed || !r.Has(id) {
		t.Errorf("claimed by another job: %+v", done)
	}
	if _, gone := r.Tombstone(id); gone {
		t.Error("a point that is there has a tombstone")
	}
	must(r.Forget(t.Context(), "offsite", []repo.Forgetting{{Point: id, Tombstone: true, Reason: "named"}}, nil))(t)
	if stone, gone := r.Tombstone(id); !gone || stone.Reason != "named" || stone.Job != "offsite" || !stone.Created.Equal(points[0].Created) || r.Has(id) {
		t.Errorf("tombstone %+v, %v", stone, gone)
	}
}

// What jobs have left is verified: each bit that flips is told, with the job and what becomes of it, with the key and without. It
// is harmless to points. The job's next session writes it again, a mirror heals it, and so does a good record of the same job.
func TestVerifyReadsJobRecords(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	point := onePoint("web", "w1", content(1, 5*smallBlock))
	mustCopyAll(t, r, point)
	must(r.Claim(t.Context(), []repo.Claim{{Point: point.ID(), Job: "off/site"}}))(t)
	for _, job := range []string{"off/site", "unknown"} {
		if err := r.WriteJob(t.Context(), record(job, "a document")); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Put(t.Context(), "jobs/notes.txt", []byte("readers ignore other names")); err != nil {
		t.Fatal(err)
	}
	mirror := store.Clone()
	keyless := must(repo.Open(t.Context(), store, repo.Environment{}))(t)
	defer closeRepo(t, keyless)
	of := func(job string) string {
		t.Helper()
		for _, name := range store.Names("jobs/") {
			if raw := must(storage.ReadAll(t.Context(), store, name, 1<<20))(t); len(raw) > 60 {
				if records, _, err := r.Jobs(t.Context(), job); err != nil || len(records) != 1 {
					t.Fatal(records, err)
				}
				kept := bytes.Clone(raw)
				tamper(t, store, name, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
				_, unread, err := r.Jobs(t.Context(), job)
				tamper(t, store, name, func([]byte) []byte { return kept })
				if err != nil {
					t.Fatal(err)
				}
				if len(unread) == 1 {
					return name
				}
			}
		}
		t.Fatalf("no file of job %s", job)
		return ""
	}
	known, unknown := of("off/site"), of("unknown")
	spoil := func(name string, at int) {
		tamper(t, store, name, func(b []byte) []byte { b[at%len(b)] ^= 0x10; return b })
	}
	clean := func(what string) {
		t.Helper()
		for _, r := range []*repo.Repository{r, keyless} {
			if report := must(r.Verify(t.Context(), nil))(t); len(report.Damage) > 0 {
				t.Errorf("%s: %+v", what, report.Damage)
			}
		}
	}
	clean("nothing is damaged")
	size := int(must(store.Stat(t.Context(), known))(t).Size)
	for at := 0; at < size; at += 5 {
		spoil(known, at)
		for _, r := range []*repo.Repository{r, keyless} {
			report := must(r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelStored, NotSince: time.Hour}))(t)
			if len(report.Damage) != 1 || report.Damage[0].File != known || report.DamagedPoints != 0 {
				t.Fatalf("byte %d: %+v", at, report.Damage)
			}
			whose := "with job " + backup.EncodeName("off/site") + ":"
			if r.Locked() {
				whose = "with a job:"
			}
			if reason := report.Damage[0].Reason; !strings.Contains(reason, whose) || !strings.Contains(reason, "next session writes it again") || !strings.Contains(reason, "no point needs it") {
				t.Errorf("byte %d: %s", at, reason)
			}
		}
		spoil(known, at)
	}
	// One job's record under the name of another.
	exchange(t, store, known, unknown)
	if report := must(r.Verify(t.Context(), nil))(t); len(report.Damage) != 2 {
		t.Errorf("exchanged: %+v", report.Damage)
	}
	exchange(t, store, known, unknown)
	// The next session of the job.
	spoil(known, 50)
	if err := r.WriteJob(t.Context(), record("off/site", "newer")); err != nil {
		t.Fatal(err)
	}
	clean("after the next session")
	// Healing: without a mirror nothing is taken away; with one the very file comes back.
	spoil(unknown, 60)
	report := must(r.Verify(t.Context(), nil))(t)
	if len(report.Damage) != 1 || !strings.Contains(report.Damage[0].Reason, "with a job:") || !strings.Contains(report.Damage[0].Reason, "delete the file") {
		t.Fatalf("%+v", report.Damage)
	}
	if healed := must(r.Heal(t.Context(), report, nil))(t); len(healed.Remade) > 0 || len(must(r.Verify(t.Context(), nil))(t).Damage) != 1 {
		t.Errorf("healed from nothing: %+v", healed)
	}
	donor := must(openSmall(t.Context(), mirror, ""))(t)
	defer closeRepo(t, donor)
	if healed := must(r.Heal(t.Context(), report, []*repo.Repository{donor}))(t); len(healed.Remade) != 1 || healed.Remade[0] != unknown {
		t.Errorf("healed from a mirror: %+v", healed)
	}
	clean("after healing")
	if records, unreadable, err := r.Jobs(t.Context()); err != nil || len(unreadable) > 0 || len(records) != 2 || records[1].Document != "a document" {
		t.Errorf("%+v, %v, %v", records, unreadable, err)
	}
	// A leftover beside a good record of the same job goes.
	leftover := unknown[:len(unknown)-16] + "0123456789abcdef"
	if err := store.Put(t.Context(), leftover, []byte("cut")); err != nil {
		t.Fatal(err)
	}
	report = must(r.Verify(t.Context(), nil))(t)
	if healed := must(r.Heal(t.Context(), report, nil))(t); len(healed.Remade) != 1 || healed.Remade[0] != leftover {
		t.Errorf("a leftover: %+v", healed)
	}
	clean("without the leftover")
	// Not one that a newer program wrote, which knows what this one does not.
	newer := bytes.Clone(must(storage.ReadAll(t.Context(), store, unknown, 1<<20))(t))
	newer[8]++ // the format's version
	if err := store.Put(t.Context(), leftover, newer); err != nil {
		t.Fatal(err)
	}
	report = must(r.Verify(t.Context(), nil))(t)
	if healed := must(r.Heal(t.Context(), report, nil))(t); len(report.Damage) != 1 || len(healed.Remade) != 0 {
		t.Errorf("a newer program's: %+v, %+v", report.Damage, healed)
	}
	if _, err := store.Stat(t.Context(), leftover); err != nil {
		t.Error(err)
	}
}

// On a distant storage the records are read several at once.
func TestVerifyReadsJobRecordsAtOnce(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	for i := range 12 {
		if err := r.WriteJob(t.Context(), record(fmt.Sprint("job", i), "a document")); err != nil {
			t.Fatal(err)
		}
	}
	closeRepo(t, r)
	r = must(openSmall(t.Context(), farStore{store}, ""))(t)
	defer closeRepo(t, r)
	together := make(chan struct{})
	var reading atomic.Int32
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && strings.HasPrefix(name, "jobs/") {
			if reading.Add(1) == 4 {
				close(together)
			}
			<-together // one after the other, it would never be closed
		}
		return nil
	})
	report := must(r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelStored}))(t)
	if len(report.Damage) > 0 || reading.Load() != 12 {
		t.Errorf("%d were read, %+v", reading.Load(), report.Damage)
	}
}
