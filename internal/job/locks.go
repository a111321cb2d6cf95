package job

import (
	"maps"
	"sync"
	"time"

	"ferry/internal/source"
)

// Locks are the locked points of a job's sources, as a process has seen them. A point grows that is not as it was at the look before, and
// for how long one has not is counted by this process's clock from the first look that found it as it is. The times of its files are the
// source's, whose clock may be hours behind or ahead: they only tell that something has changed. The zero value has seen none.
type Locks struct {
	mu   sync.Mutex
	seen map[string]sighting // by source and point
}

// sighting is what the files of a locked point were, and since when they were seen so.
type sighting struct {
	Size int64 `json:"size"`
	// Written is when the last of them was written, in ns of the source's clock.
	Written int64     `json:"written"`
	Since   time.Time `json:"since"`
}

// see returns since when a locked point was seen as it is: since now if it has changed, or if the clock was set back.
func (l *Locks) see(key string, p *source.Point, now time.Time) time.Time {
	is := sighting{Written: lastWritten(p).UnixNano(), Since: now.UTC()}
	for _, file := range p.Files {
		is.Size += file.Size
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, known := l.seen[key]; known && was.Size == is.Size && was.Written == is.Written && !was.Since.After(now) {
		return was.Since
	}
	if l.seen == nil {
		l.seen = map[string]sighting{}
	}
	l.seen[key] = is
	return is.Since
}

// only forgets all points but those.
func (l *Locks) only(there map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(key string, _ sighting) bool { return !there[key] })
}

// recall adds what earlier processes have seen. What was seen as it is now counts since they saw it.
func (l *Locks) recall(before map[string]sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, was := range before {
		is, known := l.seen[key]
		if known && (was.Size != is.Size || was.Written != is.Written || !was.Since.Before(is.Since)) {
			continue
		}
		if l.seen == nil {
			l.seen = map[string]sighting{}
		}
		l.seen[key] = was
	}
}

// all are the points that have been seen.
func (l *Locks) all() map[string]sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.seen)
}

// lastWritten is when the last of a point's files was written, by the source's clock.
func lastWritten(p *source.Point) time.Time {
	var last time.Time
	for _, file := range p.Files {
		if file.ModTime.After(last) {
			last = file.ModTime
		}
	}
	return last
}
