//go:build integration

package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"ferry/internal/vma"
)

// The machine that ran the server is lost, with its state and cache. Another one takes the jobs from the target, and its next
// interval copies nothing twice: the points, the claims by which rules remove them, and when the job first ran lie in the target.
// Then it goes on with what is new.
func TestServerRebuiltFromTheTarget(t *testing.T) {
	t.Parallel()
	s := newServed(t, 1, 2*mib)
	s.at(0)
	want := []map[string]string{{"vm0": s.want["vm0"]}}
	backUp := func(day int) {
		disk := device(t, "drive-scsi0", uint64(50+day), 2*mib)
		dump{vmid: 401, uuid: uuidOne, name: "web", day: day, disks: []vma.DeviceContent{disk}}.write(t, s.source)
		want = append(want, map[string]string{disk.Name: sumOf(t, disk)})
	}
	backUp(0)
	backUp(1)
	s.serve()
	s.apply(s.job("schedule: {mode: immediate}\nbackfill: all\nretention: {points: 20}\n"))
	s.until("all is copied", func() bool {
		return len(s.status().Machines) == 2 && s.status().Machines[0].Point != "" && s.status().Machines[1].Point != ""
	})
	s.idle()
	s.end(syscall.SIGKILL)
	before, packs := ids(s.u.points(s.vault)), sumTree(t, filepath.Join(s.vault, "packs"))
	if len(before) != len(want) {
		t.Fatalf("%d points", len(before))
	}

	s.rebuilt(s.vault)
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

	// Told when to begin, it does not find by itself what is new, before it is told to.
	s.apply(s.job("schedule: {mode: manual}\nbackfill: all\nretention: {points: 20}\n"))
	backUp(2)
	if session := s.session("offsite"); len(session.Report.did("copy")) != 1 {
		t.Errorf("what is new: %+v", session)
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	restoresAll(t, s.u, s.vault, want)
}
