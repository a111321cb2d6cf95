package cli

import (
	"fmt"
	"slices"
	"sync"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/source"
)

// copyProgress shows the points while they are copied.
type copyProgress struct {
	app   *app
	bars  *bars
	total int

	mu    sync.Mutex // guards the fields below, and lines that are printed
	begun int
	shown []shownPoint
}

// shownPoint is a point that has a bar, which stop ends.
type shownPoint struct {
	machine  backup.MachineKey
	counters *mover.Progress
	stop     func()
}

func (a *app) newCopyProgress(total int) *copyProgress {
	return &copyProgress{app: a, bars: a.newBars(), total: total}
}

func (p *copyProgress) started(point source.Point, counters *mover.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hide(func(s shownPoint) bool { // that a point is read to its end is told only when it is committed
		total := s.counters.Total.Load()
		return s.machine == point.Machine.Key || total > 0 && s.counters.Done.Load() >= total
	})
	p.begun++
	name := shortName(point.Machine)
	if p.total > 1 {
		name = fmt.Sprintf("%d/%d %s", min(p.begun, p.total), p.total, name)
	}
	p.shown = append(p.shown, shownPoint{point.Machine.Key, counters, p.bars.add(name, counters.Total.Load, counters.Done.Load)})
}

// hide ends the bars of points.
func (p *copyProgress) hide(done func(shownPoint) bool) {
	p.shown = slices.DeleteFunc(p.shown, func(s shownPoint) bool {
		if !done(s) {
			return false
		}
		s.stop()
		return true
	})
}

func (p *copyProgress) finished(s job.StepReport) {
	if p.app.json {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := shortName(s.Point.Machine) + "  " + when(s.Point.Created)
	if s.Err != nil {
		p.app.line("FAILED  %s  %s", name, job.Reason(s.Err))
		if hint := backup.Hint(s.Err); hint != "" {
			p.app.line("        %s", hint)
		}
		return
	}
	r := s.Result
	detail := fmt.Sprintf("%s, read %s, new %s, stored %s", size(r.Logical), size(r.Read), size(r.NewBytes), size(r.Stored))
	if r.Unchanged > 0 {
		detail += ", " + size(r.Unchanged) + " unchanged since " + r.Base.Short()
	}
	if r.Resumed > 0 {
		detail += ", " + size(r.Resumed) + " from before the interruption"
	}
	p.app.say("copied  %s  %s", name, detail)
}

// expect says how many points will be begun.
func (p *copyProgress) expect(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
}

// pause ends the bars of the points that were copied last; others may begin.
func (p *copyProgress) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hide(func(shownPoint) bool { return true })
}

func (p *copyProgress) end() {
	p.pause()
	p.bars.done()
}
