package policy

import (
	"slices"
	"time"
)

// What holds where a job says nothing.
const (
	defaultScriptTimeout = 10 * time.Minute
	defaultLevel         = "points"
)

// Effective is the job with what holds where it says nothing: once a day at midnight, in UTC; all machines; the newest
// point; every point kept. Applied twice it changes nothing more.
func (j Job) Effective() Job {
	if j.Schedule.Mode == "" {
		j.Schedule = Schedule{Mode: Periodic, Every: Every{Days: 1}, Zone: j.Schedule.Zone}
	}
	j.setZone(j.Schedule.zone())
	if len(j.Select.Include) == 0 {
		j.Select.Include = []Selector{"*"}
	}
	if j.Lookup.Direction == "" {
		j.Lookup.Direction = Backward
	}
	if j.Lookup.StaleLock == 0 {
		j.Lookup.StaleLock = DefaultStaleLock
	}
	if j.HealthCheck.Schedule.Mode != "" && j.HealthCheck.Level == "" {
		j.HealthCheck.Level = defaultLevel
	}
	j.Scripts.Pre = j.Scripts.Pre.effective(FailureAborts)
	j.Scripts.Post = j.Scripts.Post.effective(FailureWarns)
	return j
}

func (s Script) effective(onFailure OnFailure) Script {
	if len(s.Run) == 0 {
		return s
	}
	if s.Timeout == 0 {
		s.Timeout = defaultScriptTimeout
	}
	if s.OnFailure == "" {
		s.OnFailure = onFailure
	}
	return s
}

// setZone makes everything of a job that has days or hours go by one zone.
func (j *Job) setZone(zone *time.Location) {
	j.Schedule.Zone = zone
	for _, s := range []*Schedule{&j.FullFromSource, &j.HealthCheck.Schedule, &j.Compact.Schedule} {
		if s.Mode != "" {
			s.Zone = zone
		}
	}
	j.Window = j.Window.in(zone)
	j.Bandwidth = slices.Clone(j.Bandwidth)
	for i := range j.Bandwidth {
		j.Bandwidth[i].When = j.Bandwidth[i].When.in(zone)
	}
	j.Retention = j.Retention.in(zone)
	j.Overrides = slices.Clone(j.Overrides)
	for i := range j.Overrides {
		j.Overrides[i].Retention = j.Overrides[i].Retention.in(zone)
	}
}

// in is the window by the clock of a zone. One that is always open is so in every zone.
func (w Window) in(zone *time.Location) Window {
	if len(w.spans) > 0 {
		w.zone = zone
	}
	return w
}

func (r Retention) in(zone *time.Location) Retention {
	if !r.Empty() {
		r.Zone = zone
	}
	return r
}
