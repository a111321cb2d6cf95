package job

import (
	"fmt"
	"runtime"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/plan"
)

// A server keeps what each session has seen of the sources until the next one: of a point its id, and of a machine one description.
func TestWhatWasSeenOfAPointTakesLittle(t *testing.T) {
	const machines, days = 400, 50
	r := &runner{}
	for n := range machines {
		machine := backup.Machine{Key: backup.NewMachineKey(backup.PlatformProxmox, fmt.Sprint(n), "", "pve"), Name: fmt.Sprint("web", n)}
		r.selected = append(r.selected, machine.Key)
		for day := range days {
			brief := &backup.Brief{ID: backup.NewPointID(machine.Key, fmt.Sprint(day)), Machine: &machine, State: backup.StateComplete}
			r.offers = append(r.offers, plan.Offer{Brief: brief})
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	seen := r.complete()
	if each := (heap() - before) / (machines * days); each > 100 || len(seen) != machines*days {
		t.Errorf("%d points seen, each takes %d bytes", len(seen), each)
	} else {
		t.Logf("each takes %d bytes", each)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(seen)
}
