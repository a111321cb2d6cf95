//go:build integration

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serverStatus is what of /v1/status tests look at.
type serverStatus struct {
	Alarms []struct {
		Level, Kind, Job, Text string
	}
	Machines []struct {
		Machine struct{ Name string }
		Point   string
	}
	Jobs []struct {
		Name, Waits string
		Running     int64
	}
	Repositories []struct{ Name, State, Reason string }
}

func (s serverStatus) has(kind, text string) bool {
	for _, alarm := range s.Alarms {
		if alarm.Kind == kind && strings.Contains(alarm.Text, text) {
			return true
		}
	}
	return false
}

// servedSession is what of a session tests look at.
type servedSession struct {
	ID                 int64
	Job, State, Reason string
	Report             struct {
		sessionReport
		Damage struct{ Points, Places int }
		Alarms []struct{ Kind, Text string }
	}
}

func (s servedSession) count(phase, count string) (n int64) {
	for _, p := range s.Report.Phases {
		if p.Name == phase {
			n += p.Counts[count]
		}
	}
	return n
}

// get asks the server for something.
func (s *served) get(path string, value any) {
	s.t.Helper()
	answer, err := s.client().Get("http://ferry" + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", answer.Status)
	}
	if err == nil {
		err = json.Unmarshal(content, value)
	}
	if err != nil {
		s.t.Fatalf("%s: %v %s", path, err, content)
	}
}

func (s *served) status() (now serverStatus) {
	s.t.Helper()
	s.get("/v1/status", &now)
	return now
}

func (s *served) apply(documents string) {
	s.t.Helper()
	var applied any
	s.post("/v1/apply", map[string]any{"documents": documents}, &applied)
}

// begin begins a session of a job, and returns its number.
func (s *served) begin(job string) int64 {
	s.t.Helper()
	var started struct{ Session int64 }
	s.post("/v1/jobs/"+job+"/run", map[string]any{}, &started)
	return started.Session
}

// session begins a session of a job and returns it when it has ended.
func (s *served) session(job string) (ended servedSession) {
	s.t.Helper()
	session := s.begin(job)
	s.idle()
	s.get(fmt.Sprint("/v1/sessions/", session), &ended)
	return ended
}

// end ends the server by a signal, and waits until it has. One that is not killed must end well.
func (s *served) end(signal syscall.Signal) {
	s.t.Helper()
	_ = s.server.cmd.Process.Signal(signal)
	if r := s.server.wait(); signal != syscall.SIGKILL && r.code != 0 {
		s.t.Errorf("told to end: %v", r)
	}
	s.server = nil
}

// damage flips a bit in the middle of the largest pack.
func (s *served) damage() {
	s.t.Helper()
	largest, size := "", int64(0)
	for _, name := range treeOf(s.t, filepath.Join(s.vault, "packs")) {
		path := filepath.Join(s.vault, "packs", name)
		if info, err := os.Stat(path); err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
	}
	f := flipped{path: largest, at: size / 2, mode: 0o400}
	file := f.open(s.t)
	defer file.Close()
	one := make([]byte, 1)
	_, err := file.ReadAt(one, f.at)
	if err == nil {
		one[0] ^= 1
		_, err = file.WriteAt(one, f.at)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.u.want(5, "verify", s.vault) // whoever looks sees it; what it found it notes for itself
}

// newHealed is a server that has copied one image of 12 MiB, in whose pack a bit is flipped then, and whose health check is due.
func newHealed(t *testing.T) *served {
	t.Helper()
	s := newServed(t, 1, 12*mib)
	s.at(0)
	s.serve()
	s.apply(s.manual() + "healthCheck: {every: 1m}\n")
	if first := s.session("offsite"); first.State != "done" || len(first.Report.did("copy")) != 1 {
		t.Fatalf("%+v", first)
	}
	s.damage()
	s.remember(time.Now().Add(-48 * time.Hour))
	return s
}

// at gives the image the time of a day, by which its points are told apart.
func (s *served) at(day int) {
	s.t.Helper()
	if at := sourceTime.AddDate(0, 0, day); os.Chtimes(filepath.Join(s.source, "vm0.raw"), at, at) != nil {
		s.t.Fatal("no times")
	}
}

// change makes the image newer: in its first MiB, or in all of it.
func (s *served) change(day int, whole bool) {
	s.t.Helper()
	path := filepath.Join(s.source, "vm0.raw")
	if whole {
		contentFile(s.t, path, uint64(900+day), 12*mib)
	} else {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteAt([]byte(strings.Repeat(fmt.Sprint("day ", day, "\n"), 1000)), 0)
			file.Close()
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.at(day)
}

// restores compares the target's points, oldest first, with sums.
func (s *served) restores(want ...string) {
	s.t.Helper()
	stored := s.u.points(s.vault)
	if len(stored) != len(want) {
		s.t.Fatalf("%d points, not %d: %+v", len(stored), len(want), stored)
	}
	for i, p := range stored {
		if got := disks(s.u.restored(s.vault, p))["vm0"]; got != want[i] {
			s.t.Errorf("point %d restored is %s, not %s", i, got, want[i])
		}
	}
}

// healed fails unless a session's health check found a damaged point, and nothing is damaged any more.
func (s *served) healed(session servedSession) {
	s.t.Helper()
	if session.State != "done" || session.count("health check", "damagedPlaces") == 0 || session.Report.Damage.Points != 0 {
		s.t.Errorf("not healed: %+v\n%s", session, s.server.err.String())
	}
	if now := s.status(); now.has("damage", "") {
		s.t.Errorf("healed, and an alarm: %+v", now.Alarms)
	}
	s.u.verified(s.vault)
}

// A bit is flipped in a pack under a running server, and the source still has the point: it is copied again in the same session,
// under its id, and is whole.
func TestServerHealsFromThePoint(t *testing.T) {
	t.Parallel()
	s := newHealed(t)
	before := ids(s.u.points(s.vault))
	session := s.session("offsite")
	s.healed(session)
	if session.count("health check", "healedPoints") != 1 || len(session.Report.did("copy")) != 0 {
		t.Errorf("not healed by the health check: %+v", session)
	}
	s.restores(s.want["vm0"])
	if after := ids(s.u.points(s.vault)); after[0] != before[0] {
		t.Errorf("point %s has become %s", before[0], after[0])
	}
	s.end(syscall.SIGTERM)
}

// The source has a newer point alone, with the block in it: the newer point does not rely on the damaged block, and heals it.
func TestServerHealsFromANewerPoint(t *testing.T) {
	t.Parallel()
	s := newHealed(t)
	old := s.want["vm0"]
	s.change(1, false)
	session := s.session("offsite")
	if len(session.Report.did("copy")) != 1 {
		t.Errorf("the newer point was not copied: %+v", session)
	}
	s.healed(session)
	s.restores(old, sumFile(t, filepath.Join(s.source, "vm0.raw")))
	s.end(syscall.SIGTERM)
}

// Nothing has the block any more: the point is listed as damaged with the place, in the session, the status and the listing; every
// session raises the alarm; newer points with the same content do not rely on it, and when one has brought it back it is healed.
func TestServerTellsOfDamageThatNothingHeals(t *testing.T) {
	t.Parallel()
	s := newHealed(t)
	old := s.want["vm0"]
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.Rename(filepath.Join(s.source, "vm0.raw"), kept); err != nil {
		t.Fatal(err)
	}
	s.change(1, true)
	second := sumFile(t, filepath.Join(s.source, "vm0.raw"))
	damaged := func(what string, session servedSession) {
		t.Helper()
		if session.Report.Damage.Points != 1 || session.Report.Damage.Places == 0 || len(session.Report.Alarms) == 0 {
			t.Errorf("%s: %+v", what, session)
		}
		now := s.status()
		if !now.has("damage", "points that cannot be restored whole: 1") {
			t.Errorf("%s: no alarm: %+v", what, now.Alarms)
		}
		for _, alarm := range now.Alarms {
			if alarm.Kind == "damage" && alarm.Level != "critical" {
				t.Errorf("%s: %+v", what, alarm)
			}
		}
	}
	session := s.session("offsite")
	if session.count("health check", "damagedPoints") == 0 || len(session.Report.did("copy")) != 1 {
		t.Errorf("%+v", session)
	}
	damaged("found", session)
	stored := s.u.points(s.vault)
	if len(stored) != 2 || stored[0].State != "broken" || stored[0].Reason == "" || stored[1].State != "complete" {
		t.Fatalf("%+v", stored)
	}
	s.u.want(2, "status", "--check", "--socket", s.socket)
	if got := disks(s.u.restored(s.vault, stored[1]))["vm0"]; got != second {
		t.Errorf("the newer point restored is %s, not %s", got, second)
	}
	damaged("the next session, without a health check", s.session("offsite"))

	// The old content comes back as a newer point, between two checks: the damaged block is not reused for it.
	if err := os.Rename(kept, filepath.Join(s.source, "vm0.raw")); err != nil {
		t.Fatal(err)
	}
	s.change(2, false)
	third := sumFile(t, filepath.Join(s.source, "vm0.raw"))
	session = s.session("offsite")
	if len(session.Report.did("copy")) != 1 {
		t.Errorf("%+v", session)
	}
	stored = s.u.points(s.vault)
	if got := disks(s.u.restored(s.vault, stored[len(stored)-1]))["vm0"]; got != third {
		t.Errorf("a point that has the damaged content anew restored is %s, not %s", got, third)
	}
	s.remember(time.Now().Add(-48 * time.Hour))
	session = s.session("offsite")
	if now := s.status(); now.has("damage", "") || session.State != "done" || session.Report.Damage.Points != 0 {
		t.Errorf("not healed by what came back: %+v %+v", session, now.Alarms)
	}
	s.u.verified(s.vault)
	s.restores(old, second, third)
	s.end(syscall.SIGTERM)
}
