package plan

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Errors of addressing. Their texts name the candidates.
var (
	ErrNotFound  = errors.New("not found")
	ErrAmbiguous = errors.New("not unique")
	// ErrNoPointName: the text is none of the forms in which a point is named.
	ErrNoPointName = errors.New("it is neither \"latest\", nor six or more characters of an id, nor a time such as 2026-11-22 or \"2026-11-22 06:00\"")
)

// FindMachine returns the machine that text names among those of the points: by exact id, else by a name or native id
// that only one machine has.
func FindMachine(points []backup.Point, text string) (backup.Machine, error) {
	return AmongMachines(Machines(points), text)
}

// AmongMachines is as FindMachine, of machines that are known without their points.
func AmongMachines(machines []backup.Machine, text string) (backup.Machine, error) {
	var named []backup.Machine
	for _, m := range machines {
		if m.Key.String() == text {
			return m, nil
		}
		if m.Name == text || backup.EncodeName(m.Name) == text || m.Key.NativeID == text {
			named = append(named, m)
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return backup.Machine{}, fmt.Errorf("machine %s %w: %s", backup.EncodeName(text), ErrNotFound, candidates(machines))
	}
	return backup.Machine{}, fmt.Errorf("machine %s %w, give the id: %s", backup.EncodeName(text), ErrAmbiguous, candidates(named))
}

// candidatesShown is how many candidates a message lists.
const candidatesShown = 10

func candidates(machines []backup.Machine) string {
	if len(machines) == 0 {
		return "there is no machine at all"
	}
	var names []string
	for i, m := range machines {
		if i == candidatesShown {
			names = append(names, fmt.Sprintf("and %d more", len(machines)-i))
			break
		}
		name := m.Key.String()
		if m.Name != "" {
			name += " (" + backup.EncodeName(m.Name) + ")"
		}
		names = append(names, name)
	}
	if len(names) == 1 {
		return "there is " + names[0]
	}
	return "there are " + strings.Join(names, ", ")
}

// Machines returns each machine of the points once, as its newest complete point has it, or its newest if none is complete,
// in the order of first appearance.
func Machines(points []backup.Point) []backup.Machine {
	var briefer backup.Briefer
	return MachinesOf(func(yield func(*backup.Brief) bool) {
		for i := range points {
			if brief := briefer.Brief(&points[i]); !yield(&brief) {
				return
			}
		}
	})
}

// MachinesOf is Machines by the points' briefs.
func MachinesOf(points iter.Seq[*backup.Brief]) []backup.Machine {
	index := map[backup.MachineKey]int{}
	var machines []backup.Machine
	var telling []*backup.Brief
	for p := range points {
		i, seen := index[p.Machine.Key]
		if !seen {
			index[p.Machine.Key] = len(telling)
			telling = append(telling, p)
		} else if policy.MoreTelling(p, telling[i]) {
			telling[i] = p
		}
	}
	for _, p := range telling {
		machines = append(machines, *p.Machine)
	}
	return machines
}

// shortestPrefix is the least of a point id that names it.
const shortestPrefix = 6

// PointNamed returns which of some points text names: by the beginning of its id, at least six characters of it. The error wraps
// ErrNoPointID, ErrNotFound or ErrAmbiguous.
func PointNamed(all []backup.PointID, text string) (at int, err error) {
	prefix, name := strings.ToLower(text), backup.EncodeName(text)
	if len(text) < shortestPrefix || strings.Trim(prefix, "0123456789abcdef") != "" {
		return -1, fmt.Errorf("point %s: %w", name, ErrNoPointID)
	}
	at = -1
	for i, id := range all {
		switch {
		case !strings.HasPrefix(id.String(), prefix):
		case at >= 0:
			return -1, fmt.Errorf("point %s %w: several ids begin so", name, ErrAmbiguous)
		default:
			at = i
		}
	}
	if at < 0 {
		return -1, fmt.Errorf("point %s %w", name, ErrNotFound)
	}
	return at, nil
}

// FindPoint returns the machine's point that text names: "latest", a prefix of an id of at least six characters, or a
// time (RFC 3339, or local time in zone), which means the newest point at or before it.
func FindPoint(points []backup.Point, machine backup.MachineKey, text string, zone *time.Location) (backup.Point, error) {
	var own []backup.Point
	for _, p := range points {
		if p.Machine.Key == machine {
			own = append(own, p)
		}
	}
	slices.SortStableFunc(own, func(a, b backup.Point) int { return a.Created.Compare(b.Created) })
	if len(own) == 0 {
		return backup.Point{}, fmt.Errorf("machine %s has no points: %w", machine, ErrNotFound)
	}
	if text == "" || text == "latest" {
		return own[len(own)-1], nil
	}
	if at, ok := ParseTime(text, zone); ok {
		for i := len(own) - 1; i >= 0; i-- {
			if !own[i].Created.After(at) {
				return own[i], nil
			}
		}
		return backup.Point{}, fmt.Errorf("point of %s at or before %s %w: the oldest is of %s", machine, text, ErrNotFound, own[0].Created.In(zone).Format(time.DateTime))
	}
	ids := make([]backup.PointID, len(own))
	for i, p := range own {
		ids[i] = p.ID
	}
	at, err := PointNamed(ids, text)
	switch {
	case errors.Is(err, ErrNoPointID):
		return backup.Point{}, fmt.Errorf("point %s: %w", backup.EncodeName(text), ErrNoPointName)
	case err != nil:
		return backup.Point{}, fmt.Errorf("machine %s: %w", machine, err)
	}
	return own[at], nil
}

// localTimes are the forms of local time that people type.
var localTimes = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"}

// ParseTime reads RFC 3339, or local time in zone. A date alone means the end of that day, and so does a minute or a second: what
// was made at 10:04 was made before that is over.
func ParseTime(text string, zone *time.Location) (time.Time, bool) {
	return parseTime(text, zone, true)
}

// ParseUntil reads a time as ParseTime does, until which something holds: through a date, but only until a time of day comes.
func ParseUntil(text string, zone *time.Location) (time.Time, bool) {
	return parseTime(text, zone, false)
}

// parseTime reads a time; with through, that of the end of a minute or second.
func parseTime(text string, zone *time.Location, through bool) (time.Time, bool) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, true
	}
	for _, layout := range localTimes {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			switch {
			case !through:
				return at, true
			case strings.Count(layout, ":") == 2:
				return at.Add(time.Second - 1), true
			}
			return at.Add(time.Minute - 1), true
		}
	}
	if day, err := time.ParseInLocation("2006-01-02", text, zone); err == nil {
		return day.AddDate(0, 0, 1).Add(-1), true
	}
	return time.Time{}, false
}
