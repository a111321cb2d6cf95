//go:build integration

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/vma"
)

// withChain adds the guest's chain to the sources of the job; settings are what its repository has beside.
func (s *served) withChain(g *guest, settings, documents string) string {
	documents = strings.Replace(documents, "{repositories: [src]}", "{repositories: [src, chain]}", 1)
	return fmt.Sprintf("kind: Repository\nname: chain\nlocation: %s\n%s---\n%s", g.chain, settings, documents)
}

// chainRestores restores every point that the target has of the guest and compares its disks, byte for byte by their sums, with
// what QEMU had on them at that time. It returns how many there are.
func (s *served) chainRestores(g *guest) (points int) {
	s.t.Helper()
	made := ids(s.u.points(g.chain))
	if len(made) != g.grown {
		s.t.Fatalf("the chain has %d points, not %d", len(made), g.grown)
	}
	for _, p := range s.u.points(s.vault) {
		number := slices.Index(made, p.ID) + 1
		if number == 0 {
			continue
		}
		points++
		got := disks(s.u.restored(s.vault, p))
		if want := g.disks(number, slices.Collect(maps.Keys(got))...); len(got) < 2 || !maps.Equal(got, want) {
			s.t.Errorf("point %d of the chain restored is %v, not %v", number, got, want)
		}
	}
	return points
}

// A server runs while virtnbdbackup makes an increment and vzdump an archive: these machines wait and are named, another one is
// finished meanwhile, and when the backups are done both are copied in the same session.
func TestServerWaitsForBackupsInProgress(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a session looks again after a minute")
	}
	g := startGuest(t)
	s := newServed(t, 1, 4*mib)
	disk := device(t, "drive-scsi0", 41, 2*mib)
	final := dump{vmid: 401, uuid: uuidOne, name: "busy", disks: []vma.DeviceContent{disk}}.write(t, s.source)
	running := strings.TrimSuffix(final, ".zst") + ".dat"
	now := time.Now()
	if err := os.Rename(final, running); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(running, now, now); err != nil {
		t.Fatal(err)
	}
	goOn := g.halted()
	s.serve()
	s.apply(s.withChain(g, "", s.manual()))
	session := s.begin("offsite")
	db := s.catalog()
	defer db.Close()
	waits := ""
	s.until("the session waits", func() bool {
		waits = column(t, db, `SELECT reason FROM sessions WHERE id = $1 AND state = 'waiting'`, session)
		return waits != ""
	})
	if !strings.Contains(waits, "ferry-test-vm") || !strings.Contains(waits, "401") {
		t.Errorf("it waits for %q", waits)
	}
	if stored := s.u.points(s.vault); len(stored) != 1 || stored[0].Machine.Name != "vm0" {
		t.Errorf("while two are locked: %+v", stored)
	}
	goOn()
	if err := os.Rename(running, final); err != nil {
		t.Fatal(err)
	}
	s.idle()
	var ended servedSession
	s.get(fmt.Sprint("/v1/sessions/", session), &ended)
	if ended.State != "done" || len(ended.Report.did("copy")) != 3 {
		t.Errorf("%+v", ended)
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	if n := s.chainRestores(g); n != 1 {
		t.Errorf("%d points of the chain, not its newest alone", n)
	}
	for _, p := range s.u.points(s.vault) {
		switch got := disks(s.u.restored(s.vault, p)); p.Machine.Name {
		case "vm0":
			if got["vm0"] != s.want["vm0"] {
				t.Errorf("vm0: %v", got)
			}
		case "busy":
			if got["drive-scsi0"] != sumOf(t, disk) {
				t.Errorf("busy: %v", got)
			}
		}
	}
}

// A server over a folder of vzdump and a chain that virtnbdbackup goes on with while the job runs is killed in each phase and
// started again: each session ends as it should, and every point in the target is what the machine had on its disks.
func TestServerKilledOverAGrowingChain(t *testing.T) {
	t.Parallel()
	g := startGuest(t)
	s := newServed(t, 0, 0)
	dumped := 0
	s.more = func() { // a backup of each kind
		disk := device(t, "drive-scsi0", uint64(500+dumped), 4*mib)
		name := fmt.Sprint("web", dumped)
		dump{vmid: 500 + dumped, uuid: uuidOne, name: name, disks: []vma.DeviceContent{disk}}.write(t, s.source)
		s.want[name] = sumOf(t, disk)
		dumped++
		g.must(g.grow())
	}
	documents := strings.Replace(s.full(), "{points: 2}", "{points: 50}", 1)
	s.more()
	s.serve()
	s.apply(s.withChain(g, "", documents))
	if first := s.session("offsite"); first.State != "done" {
		t.Fatalf("%+v", first)
	}
	s.apply(s.withChain(g, "bandwidth: [{limit: 2MB/s}]\n", documents)) // copies take their time, so that kills hit them
	for _, phase := range phases {
		s.remember(time.Now().Add(-48 * time.Hour))
		s.more()
		grown := make(chan error, 1)
		if phase == "pre-job script" || phase == "synchronize" {
			go func() { grown <- g.grow() }() // in the middle of the session
		} else {
			grown <- nil
		}
		session := s.kill(phase)
		g.must(<-grown)
		s.serve()
		s.idle()
		db := s.catalog()
		if state := column(t, db, `SELECT state || ' ' || reason FROM sessions WHERE id = $1`, session); state != "done " {
			t.Errorf("killed in %s, the session ended %s\n%s", phase, state, s.server.err.String())
		}
		db.Close()
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	points := s.chainRestores(g)
	t.Logf("%d of the chain's %d points and %d of vzdump were copied", points, g.grown, dumped)
	if points < 7 { // one each session
		t.Errorf("%d points of the chain were copied", points)
	}
	for name, sum := range s.want {
		out := filepath.Join(t.TempDir(), name)
		s.u.want(0, "restore", s.vault, name, "--to", out)
		if got := disks(sumTree(t, out)); got["drive-scsi0"] != sum {
			t.Errorf("restored %v, not %s of %s", got, sum, name)
		}
		os.RemoveAll(out)
	}
}
