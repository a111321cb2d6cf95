//go:build integration

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// chained describes jobs that copy on what the one before has copied: src -> a -> b -> c. Each keeps as many points as it is told.
func (s *served) chained(a, b, c string) string {
	var text strings.Builder
	for name, at := range map[string]string{"src": s.source, "a": a, "b": b, "c": c} {
		fmt.Fprintf(&text, "kind: Repository\nname: %s\nlocation: %s\n---\n", name, at)
	}
	text.WriteString("kind: Job\nname: first\nsource: {repositories: [src]}\ntarget: {repository: a}\nschedule: {mode: manual}\nretention: {points: 2}\n---\n")
	text.WriteString("kind: Job\nname: second\nsource: {jobs: [first]}\ntarget: {repository: b}\nschedule: {after: first}\nretention: {points: 3}\n---\n")
	text.WriteString("kind: Job\nname: third\nsource: {jobs: [second]}\ntarget: {repository: c}\nschedule: {after: second}\nretention: {points: 9}\n")
	return text.String()
}

// Jobs that are chained over three repositories carry each new point through all of them, once, whatever each of them keeps. A job
// that would close the ring is refused, and its way shown. One that knows nothing of the others copies no point back to a
// repository that it came through, also where that has given the point up. And what the last of them has left in its target is enough
// to rebuild all of them on another machine.
func TestJobsChainedOverThreeRepositories(t *testing.T) {
	t.Parallel()
	s := newServed(t, 0, 0)
	folder := t.TempDir()
	a, b, c := filepath.Join(folder, "a"), filepath.Join(folder, "b"), filepath.Join(folder, "c")
	for _, repository := range []string{a, b, c} {
		s.u.want(0, "repo", "init", repository)
	}
	s.machine(0, 4*mib)
	s.serve()
	s.apply(s.chained(a, b, c))
	db := s.catalog()
	defer db.Close()
	var made []string // the points of the machine, oldest first
	sums := map[string]string{}
	const rounds = 5
	for round := range rounds {
		if round > 0 { // the machine has changed
			s.machine(0, 4*mib+int64(round)*mib)
		}
		point := ids(s.u.points(s.source))[0]
		made, sums[point] = append(made, point), s.want["vm0"]
		s.begin("first")
		s.until("the last of the chain has had its session", func() bool {
			return column(t, db, `SELECT COUNT(*) FROM sessions WHERE job = 'third' AND ended_at <> 0`) == fmt.Sprint(round+1) &&
				column(t, db, `SELECT id FROM sessions WHERE ended_at = 0`) == ""
		})
		for repository, keeps := range map[string]int{a: 2, b: 3, c: 9} {
			want := made[max(0, len(made)-keeps):]
			if got := s.created(repository); !slices.Equal(got, want) {
				t.Errorf("after round %d %s has %v, not %v", round, filepath.Base(repository), got, want)
			}
		}
	}
	if copied := column(t, db, `SELECT group_concat(n, ' ') FROM (SELECT COUNT(*) AS n FROM tasks GROUP BY point)`); copied != strings.TrimSpace(strings.Repeat("3 ", rounds)) {
		t.Errorf("the points were copied %s times, not each once for each repository", copied)
	}

	ring := filepath.Join(folder, "ring.yaml")
	for _, from := range []string{"repositories: [c]", "jobs: [third]"} {
		s.write(ring, "kind: Job\nname: back\nsource: {"+from+"}\ntarget: {repository: a}\nschedule: {mode: manual}\nretention: {points: 9}\n")
		refused := s.u.want(2, "apply", "-f", ring, "--socket", s.socket)
		wantIn(t, "refused", refused.err, "a point would come back to a repository where it has been", "c → (job back) → a → (job second) → b → (job third) → c")
	}
	if jobs := column(t, db, `SELECT COUNT(*) FROM resources WHERE kind = 'Job'`); jobs != "3" {
		t.Errorf("%s jobs are known", jobs)
	}
	s.end(syscall.SIGTERM)

	// In files of their own nobody knows of a ring: the points say it.
	for target, from := range map[string]string{a: "jobs: [c/third]", b: "jobs: [c/*]"} {
		file := filepath.Join(folder, "back.yaml")
		s.write(file, fmt.Sprintf("kind: Repository\nname: c\nlocation: %s\n---\nkind: Repository\nname: to\nlocation: %s\n---\n"+
			"kind: Job\nname: back\nsource: {%s}\ntarget: {repository: to}\nbackfill: all\nschedule: {mode: manual}\nretention: {points: 9}\n", c, target, from))
		before := packBytes(t, target)
		points := s.created(target)
		explained := s.u.want(0, "job", "explain", "-f", file).out
		wantIn(t, "explained", explained, "came")
		back := decode[sessionReport](t, s.u.want(0, "job", "run", "--once", "-f", file, "--json"))
		if copied := back.did("copy"); len(copied) != 0 {
			t.Errorf("copied back to %s: %v", filepath.Base(target), copied)
		}
		if grown := packBytes(t, target) - before; grown != 0 || !slices.Equal(s.created(target), points) {
			t.Errorf("%s has grown by %d bytes, and has %v", filepath.Base(target), grown, s.created(target))
		}
	}
	s.rebuilt(c)
	s.machine(0, 20*mib)
	point := ids(s.u.points(s.source))[0]
	sums[point] = s.want["vm0"]
	again := s.catalog()
	defer again.Close()
	s.begin("first")
	s.until("the rebuilt chain has had its sessions", func() bool {
		return column(t, again, `SELECT COUNT(*) FROM sessions WHERE job = 'third' AND ended_at <> 0`) == "1"
	})
	if copied := column(t, again, `SELECT group_concat(point, ' ') FROM tasks`); copied != strings.TrimSpace(strings.Repeat(point+" ", 3)) {
		t.Errorf("rebuilt from the end of the chain, the jobs copied %s", copied)
	}
	s.end(syscall.SIGTERM)
	for _, repository := range []string{a, b, c} {
		s.u.verified(repository)
		for _, p := range s.u.points(repository) {
			if got := disks(s.u.restored(repository, p))["vm0"]; got != sums[p.ID] {
				t.Errorf("%s restored from %s is %s, not %s", p.ID, filepath.Base(repository), got, sums[p.ID])
			}
		}
	}
}

// created are the points of a repository, oldest first.
func (s *served) created(repository string) []string {
	points := s.u.points(repository)
	slices.SortFunc(points, func(x, y pointInfo) int { return x.Created.Compare(y.Created) })
	return ids(points)
}

func (s *served) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// rebuilt has a server that knows nothing, on a machine that knows nothing, go on with what the jobs of a repository have left in it.
func (s *served) rebuilt(repository string) {
	s.t.Helper()
	if err := os.RemoveAll(s.state); err != nil {
		s.t.Fatal(err)
	}
	s.u = newUser(s.t)
	s.serve()
	if now := s.status(); len(now.Jobs)+len(now.Repositories) != 0 {
		s.t.Fatalf("a new server knows %+v", now)
	}
	s.apply(s.u.want(0, "repo", "jobs", repository).out)
}
