package plan

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// A server plans for a hundred thousand points at once. What it holds of each is small, and points to the one brief of it.
func TestAPointTakesLittleInAPlan(t *testing.T) {
	for what, sizes := range map[string][2]uintptr{
		"a brief": {unsafe.Sizeof(backup.Brief{}), 128}, "an offer": {unsafe.Sizeof(Offer{}), 56},
		"what the target holds": {unsafe.Sizeof(Held{}), 96}, "a step": {unsafe.Sizeof(IntervalStep{}), 152},
	} {
		if sizes[0] > sizes[1] {
			t.Errorf("%s takes %d bytes, more than %d", what, sizes[0], sizes[1])
		}
	}
	const machines, days = 40, 50
	zero := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	s := Situation{
		Mode: policy.Manual, Now: zero.AddDate(0, 0, days), Job: "offsite",
		Retention: keeping(policy.Retention{Days: 60, Tiers: [...]policy.Keep{policy.Weekly: {Keep: 4}, policy.Monthly: {Keep: 12}, policy.Yearly: {}}}),
	}
	for n := range machines {
		machine := backup.Machine{Key: backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(n), "", "pve"), Name: fmt.Sprint("web", n)}
		s.Selected = append(s.Selected, machine.Key)
		for day := range days {
			brief := &backup.Brief{
				ID: backup.NewPointID(machine.Key, fmt.Sprint(day)), Machine: &machine, Created: zero.AddDate(0, 0, day), State: backup.StateComplete,
			}
			s.Offers, s.Held = append(s.Offers, Offer{Brief: brief}), append(s.Held, Held{Brief: brief, Claimed: true})
		}
	}
	heap := func() (kept, allocated int64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc), int64(m.TotalAlloc)
	}
	keptBefore, before := heap()
	p := Interval(s)
	kept, after := heap()
	if n := len(p.Steps(ActionKeep)); n != machines*days {
		t.Fatalf("%d points are kept", n)
	}
	const points = machines * days
	if each := (kept - keptBefore) / points; each > 400 {
		t.Errorf("of each point a plan keeps %d bytes", each)
	}
	if each := (after - before) / points; each > 3500 {
		t.Errorf("for each point planning allocates %d bytes", each)
	}
	t.Logf("each point: %d bytes kept, %d allocated", (kept-keptBefore)/points, (after-before)/points)
	runtime.KeepAlive(s)
}
