//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The machine that ran the server is lost, with its state and cache. Another one takes the jobs from the target, and its next
// interval copies nothing twice: the points, the claims by which rules remove them, and when the job first ran lie in the target.
// Then it goes on with what is new.
func TestServerRebuiltFromTheTarget(t *testing.T) {
	t.Parallel()
	s := newServed(t, 0, 0)
	archives, err := filepath.Glob(filepath.Join(golden(t, "vzdump"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	newest := slices.Max(archives)
	day, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(newest), "vzdump-qemu-100-"), ".")
	var late []string
	for _, archive := range archives {
		if strings.Contains(archive, day) {
			late = append(late, archive)
		} else {
			copyFile(t, archive, filepath.Join(s.source, filepath.Base(archive)))
		}
	}
	documents := fmt.Sprintf("{kind: Repository, name: pve, location: %q}\n---\n{kind: Repository, name: chains, location: %q}\n---\n{kind: Repository, name: vault, location: %q}\n---\n"+
		"{kind: Job, name: offsite, source: {repositories: [pve, chains]}, target: {repository: vault}, schedule: {mode: immediate}, backfill: all, retention: {points: 20}}\n",
		s.source, golden(t, "virtnbdbackup"), s.vault)
	s.serve()
	s.apply(documents)
	vzdump, chains := vzdumpDisks(t), virtnbdbackupDisks(t)
	s.until("all is copied", func() bool {
		return len(s.status().Machines) == 2 && s.status().Machines[0].Point != "" && s.status().Machines[1].Point != ""
	})
	s.idle()
	s.end(syscall.SIGKILL)
	before, packs := ids(s.u.points(s.vault)), sumTree(t, filepath.Join(s.vault, "packs"))
	if len(before) != len(vzdump)-1+len(chains) {
		t.Fatalf("%d points", len(before))
	}

	if err := os.RemoveAll(s.state); err != nil {
		t.Fatal(err)
	}
	s.u = newUser(t)
	s.serve()
	if now := s.status(); len(now.Jobs)+len(now.Repositories) != 0 {
		t.Fatalf("a new server knows %+v", now)
	}
	left := s.u.want(0, "repo", "jobs", s.vault).out
	apply := s.u.command("apply", "-f", "-", "--socket", s.socket)
	apply.Stdin = strings.NewReader(left)
	var said bytes.Buffer
	apply.Stdout, apply.Stderr = &said, &said
	if err := apply.Run(); err != nil {
		t.Fatalf("%v: %s\n%s", err, said.String(), left)
	}
	db := s.catalog()
	s.until("the next interval has ended", func() bool { return column(t, db, `SELECT id FROM sessions WHERE ended_at <> 0`) != "" })
	var again servedSession
	s.get("/v1/sessions/"+column(t, db, `SELECT MIN(id) FROM sessions`), &again)
	db.Close()
	if again.State != "done" || len(again.Report.did("copy"))+len(again.Report.did("remove")) != 0 || again.count("synchronize", "readBytes") != 0 {
		t.Errorf("%+v", again)
	}
	if after := ids(s.u.points(s.vault)); !slices.Equal(after, before) {
		t.Errorf("the points have become %v, were %v", after, before)
	}
	if !maps.Equal(packs, sumTree(t, filepath.Join(s.vault, "packs"))) {
		t.Error("the packs were changed")
	}
	now := s.status()
	for _, machine := range now.Machines {
		if machine.Point == "" {
			t.Errorf("the status knows no copy of %s", machine.Machine.Name)
		}
	}
	if len(now.Machines) != 2 || len(now.Alarms) != 0 {
		t.Errorf("%+v", now)
	}

	for _, archive := range late {
		copyFile(t, archive, filepath.Join(s.source, filepath.Base(archive)))
	}
	if session := s.session("offsite"); len(session.Report.did("copy")) != 1 {
		t.Errorf("what is new: %+v", session)
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	restoresAll(t, s.u, s.vault, slices.Concat(vzdump, chains))
}
