package server

import (
	"strings"
	"testing"

	"ferry/internal/api"
	"ferry/internal/source/sourcetest"
)

// A machine that a job names, and that is called otherwise since, is told of by status and metrics: as a warning at once, and as a copy
// that is too old when it is. That ends when the job includes it again.
func TestRenamedMachineIsTold(t *testing.T) {
	inWeek(t, func(w *week) {
		f := &fixture{Server: w.Server, t: w.t}
		documents := func(include string) string {
			return `{kind: Repository, name: pve, location: /srv/pve}
---
{kind: Repository, name: vault, location: /srv/vault}
---
kind: Job
name: offsite
source: {repositories: [pve]}
target: {repository: vault}
select: {include: [` + include + `]}
schedule: {every: 1d, at: "22:00"}
rpo: 26h
`
		}
		backs := func(day int, name string) {
			w.at(day, 20)
			w.backs("pve", "101", 1)
			w.mu.Lock()
			newest := w.points["pve"][len(w.points["pve"])-1]
			newest.Machine = sourcetest.Machine("101")
			newest.Machine.Name = name
			w.mu.Unlock()
		}
		tells := func(day, hour int, alarms string, tooOld float64) {
			w.t.Helper()
			w.at(day, hour)
			_, values := w.scraped()
			got := values[`ferry_alarms{kind="session",level="warning"}`]
			var status api.Status
			f.read(f.expect(200, "GET", api.PathStatus, ""), &status)
			text := ""
			for _, alarm := range status.Alarms {
				if alarm.Kind == "session" {
					text += alarm.Text
				}
			}
			if !strings.HasPrefix(text, alarms) || (text == "") != (alarms == "") || (got == 1) != (alarms != "") || status.MachinesTotal != 1 || float64(status.TooOld) != tooOld {
				w.t.Errorf("day %d: alarms %v, %d machines, %d too old, %g in the metrics", day, status.Alarms, status.MachinesTotal, status.TooOld, got)
			}
			old := 0.0
			for series, value := range values {
				if strings.HasPrefix(series, "ferry_machine_copy_too_old{") {
					old += value
				}
			}
			if old != tooOld {
				w.t.Errorf("day %d: too old in the metrics: %g", day, old)
			}
		}
		f.applied(documents("web01"))
		backs(1, "web01")
		tells(1, 23, "", 0)
		backs(2, "web-01")
		tells(2, 21, "", 0)
		tells(2, 23, "machine web01 (image/fake/101) is now called web-01", 1) // of 20:00 of the day before
		f.applied(documents("web-01"))
		backs(3, "web-01")
		tells(3, 23, "", 0)
	})
}
