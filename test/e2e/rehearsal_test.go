//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rehearsal is the seeding of a target with a repository that is carried there. A machine of the vzdump samples and an image
// go that way; each has three states.
type rehearsal struct {
	t          *testing.T
	folder     string
	archives   []string
	states     string
	passphrase string
}

func newRehearsal(t *testing.T) *rehearsal {
	t.Helper()
	r := &rehearsal{t: t, folder: t.TempDir()}
	var err error
	if r.archives, err = filepath.Glob(filepath.Join(golden(t, "vzdump"), "*.vma.[zgl]*[toz]")); err != nil || len(r.archives) != 3 {
		t.Fatal(r.archives, err)
	}
	r.states = filepath.Join(t.TempDir(), "states")
	unpack(t, filepath.Join(golden(t, "ref"), "ref.tar.zst"), r.states)
	r.passphrase = r.in("passphrase")
	r.write("passphrase", "a disk on the road\n")
	return r
}

func (r *rehearsal) in(name string) string { return filepath.Join(r.folder, name) }

func (r *rehearsal) write(name, content string) string {
	r.t.Helper()
	if err := os.WriteFile(r.in(name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return r.in(name)
}

// state lets a source come to state k: one more archive, and the image as it is then.
func (r *rehearsal) state(k int, dump, images string) {
	r.t.Helper()
	copyFile(r.t, r.archives[k], filepath.Join(r.in(dump), filepath.Base(r.archives[k])))
	image := filepath.Join(r.in(images), "db.raw")
	copyFile(r.t, filepath.Join(r.states, fmt.Sprintf("disk.%d.raw", k)), image)
	if at := time.Date(2026, 11, 20+k, 1, 0, 0, 0, time.UTC); os.Chtimes(image, at, at) != nil {
		r.t.Fatal("no times")
	}
}

// carry copies a folder, as a person does with a disk.
func (r *rehearsal) carry(from, to string) {
	r.t.Helper()
	if out, err := exec.Command("cp", "-a", r.in(from), r.in(to)).CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
}

// wantStates compares every point in the target, byte for byte, with the states that it is to hold of each machine.
func (r *rehearsal) wantStates(u *user, target string, web, db []int) {
	r.t.Helper()
	sums := readSums(r.t, filepath.Join(golden(r.t, "ref"), "SHA256SUMS"))
	want := map[string]int{}
	for _, k := range web {
		want[fmt.Sprint(map[string]string{"drive-scsi0": sums[fmt.Sprintf("disk.%d.raw", k)], "drive-scsi1": sums["small.raw"]})]++
	}
	for _, k := range db {
		want[fmt.Sprint(map[string]string{"db": sums[fmt.Sprintf("disk.%d.raw", k)]})]++
	}
	got := map[string]int{}
	for _, p := range u.points(target, "--passphrase-file", r.passphrase) {
		to := filepath.Join(r.t.TempDir(), "restored")
		u.want(0, "restore", target, p.Machine.ID, "--point", p.ID, "--to", to, "--passphrase-file", r.passphrase)
		tree := disks(sumTree(r.t, to))
		got[fmt.Sprint(tree)]++
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("the target holds %v, not %v", got, want)
	}
}

const rehearsedJob = `
---
{kind: Repository, name: pve, location: dump-moved}
---
{kind: Repository, name: pictures, location: pictures}
---
kind: Job
name: offsite
source: {repositories: [pve, pictures]}
target: {repository: vault, map: [{machine: "*", backup: "manual/*"}, {machine: db, backup: manual/db}]}
retention: {points: %d}
`

// A seed on a disk, over all its steps: copied at the source, carried, a part of it lost on the way and fetched again, taken
// up, mapped, and gone on with over the line, while the source's paths change. Then a backup that was carried by hand, and the
// loss of the machine that runs the job.
func TestSeedingRehearsal(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	r.state(0, "dump", "images")

	// At the source: onto the disk.
	a := newUser(t)
	disk := r.in("disk")
	a.want(0, "copy", r.in("dump"), disk, "--create", "--encrypt", "--passphrase-file", r.passphrase)
	a.want(0, "copy", r.in("images"), disk, "--passphrase-file", r.passphrase)
	a.want(0, "repo", "reindex", disk, "--all", "--passphrase-file", r.passphrase) // so little needs none
	a.want(0, "verify", disk, "--passphrase-file", r.passphrase)

	// On the road: the folder is copied, and one of its files left out.
	r.carry("disk", "vault")
	vault := r.in("vault")
	lost := r.loseAPack(vault)
	b := newUser(t)
	if result := b.want(5, "adopt", vault, "--as", "vault", "--passphrase-file", r.passphrase); !strings.Contains(result.out, "MISSING, though the log names them: "+lost) {
		t.Errorf("what is missing is not named: %v", result)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(disk, lost), filepath.Join(vault, lost)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	// At the target: taken up, with the index made anew.
	jobs := r.write("jobs.yaml", "")
	if result := b.want(7, "job", "run", "--once", "-f", r.write("locked.yaml", "{kind: Repository, name: vault, location: vault}\n"+fmt.Sprintf(rehearsedJob, 9))); !strings.Contains(result.err, "target.map cannot be followed: the backups that it names are encrypted") {
		t.Errorf("without the key: %v", result)
	}
	adopted := b.want(0, "adopt", vault, "--as", "vault", "-f", jobs, "--passphrase-file", r.passphrase)
	if !regexp.MustCompile(`(?m)^backup manual/db +image/images/db\.raw +1 point.*\nbackup manual/web01 +proxmox/100/\S+ +1 point`).MatchString(adopted.out) || !strings.Contains(adopted.out, "the index was made anew") {
		t.Errorf("%v", adopted)
	}
	r.append("jobs.yaml", fmt.Sprintf(rehearsedJob, 9))

	// Meanwhile the source was moved: the archives to another folder, the images to one of another name, by which they are known.
	for from, to := range map[string]string{"dump": "dump-moved", "images": "pictures"} {
		if err := os.Rename(r.in(from), r.in(to)); err != nil {
			t.Fatal(err)
		}
	}
	if result := b.want(0, "job", "missing", "-f", jobs); !strings.Contains(result.out, "nothing is missing") {
		t.Errorf("%v", result)
	}
	b.want(0, "job", "resolve", "-f", jobs)

	// What is new since the seed left is all that goes over the line.
	r.state(1, "dump-moved", "pictures")
	missing := b.misses("after the seed", jobs, vault, false)
	whole := packBytes(t, disk)
	if len(missing.Points) != 2 || missing.WrittenBytes == 0 || missing.WrittenBytes > whole/2 {
		t.Errorf("%d bytes in %d points, after a seed of %d", missing.WrittenBytes, len(missing.Points), whole)
	}
	r.wantStates(b, vault, []int{0, 1}, []int{0, 1})

	// A backup that was carried by hand, before the line has brought it: read beside what is there, and claimed.
	r.state(2, "by-hand", "unused")
	b.want(0, "copy", r.in("by-hand"), vault, "--passphrase-file", r.passphrase)
	r.state(2, "dump-moved", "pictures")
	session := decode[sessionReport](t, b.want(0, "job", "run", "--once", "-f", jobs, "--json"))
	if n := len(session.copies()); n != 1 { // the image
		t.Errorf("%d copied: %+v", n, session)
	}
	r.wantStates(b, vault, []int{0, 1, 2}, []int{0, 1, 2})

	// The rules count the seed's points among the job's; those that were copied by hand stay, for the one who did that.
	r.append("few.yaml", adoptedResource(t, jobs)+fmt.Sprintf(rehearsedJob, 2))
	removed := decode[sessionReport](t, b.want(0, "job", "run", "--once", "-f", r.in("few.yaml"), "--json")).did("remove")
	if len(removed) != 2 {
		t.Errorf("removed %v", removed)
	}
	r.wantStates(b, vault, []int{0, 1, 2}, []int{0, 1, 2})

	// The machine that ran the job is lost: another goes on, from what the job has left in the target.
	c := newUser(t)
	left := c.want(0, "repo", "jobs", vault, "--passphrase-file", r.passphrase)
	next := c.command("job", "run", "--once", "-f", "-", "--json")
	next.Stdin = strings.NewReader(left.out)
	var out, errOut bytes.Buffer
	next.Stdout, next.Stderr = &out, &errOut
	if err := next.Run(); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errOut.String())
	}
	if again := decode[sessionReport](t, result{out: out.String()}); again.Result != "done" || len(again.copies()) != 0 {
		t.Errorf("%+v", again)
	}
	c.want(0, "verify", vault, "--passphrase-file", r.passphrase)
}

// loseAPack removes a pack, and the index, from a repository. It returns the pack's name in it.
func (r *rehearsal) loseAPack(repository string) string {
	r.t.Helper()
	lost := ""
	err := filepath.WalkDir(filepath.Join(repository, "packs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && lost == "" {
			lost, err = filepath.Rel(repository, path)
		}
		return err
	})
	if err == nil {
		err = os.Remove(filepath.Join(repository, lost))
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(repository, "index"))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return filepath.ToSlash(lost)
}

func (r *rehearsal) append(name, content string) {
	r.t.Helper()
	before, err := os.ReadFile(r.in(name))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	r.write(name, string(before)+content)
}

// adoptedResource is the resource that adopt has written into a file, before the rest.
func adoptedResource(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(content), "\n---\n")
	return first
}

// Where a server runs, a repository that was carried there is given to it; a job that maps it goes on with it.
func TestAdoptGivesTheRepositoryToTheServer(t *testing.T) {
	t.Parallel()
	s := newServed(t, 2, 1<<20)
	seed := filepath.Join(t.TempDir(), "seed")
	s.u.copied(s.source, seed, "--create", "--encrypt", "--passphrase-file", s.passphrase())
	s.serve()
	adopt := []string{"adopt", seed, "--socket", s.socket, "--passphrase-file", s.passphrase(), "--as"}
	if result := s.u.want(0, append(adopt, "seed")...); !strings.Contains(result.out, "added repository seed to the server") || strings.Contains(result.out, "kind:") {
		t.Errorf("%v", result)
	}
	if result := s.u.want(2, append(adopt, "other")...); !strings.Contains(result.err, "the server has repository seed already") {
		t.Errorf("%v", result)
	}
	elsewhere := filepath.Join(t.TempDir(), "not-allowed")
	copyFile(t, s.passphrase(), elsewhere)
	other := filepath.Join(t.TempDir(), "other")
	s.u.copied(s.source, other, "--create", "--encrypt", "--passphrase-file", elsewhere)
	if result := s.u.want(2, "adopt", other, "--socket", s.socket, "--passphrase-file", elsewhere, "--as", "other"); !strings.Contains(result.err, "in no allowed folder") {
		t.Errorf("%v", result)
	}

	s.apply(fmt.Sprintf(`kind: Repository
name: src
location: %s
---
kind: Job
name: mapped
source: {repositories: [src]}
schedule: {mode: manual}
target: {repository: seed, map: [{machine: "*", backup: "manual/*"}]}
`, s.source))
	s.session("mapped")
	if held := s.u.want(0, "repo", "rescan", seed, "--passphrase-file", s.passphrase()).out; strings.Count(held, "backup mapped/vm") != 2 {
		t.Errorf("the job does not hold the seed's points:\n%s", held)
	}
	s.end(syscall.SIGINT)
	if n := len(s.u.points(seed, "--passphrase-file", s.passphrase())); n != 2 {
		t.Errorf("%d points", n)
	}
}

// passphrase is a file in a place that the server may read.
func (s *served) passphrase() string {
	s.t.Helper()
	name := filepath.Join(s.scripts, "passphrase")
	if err := os.WriteFile(name, []byte("good\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}
