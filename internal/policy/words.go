package policy

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ferry/internal/backup"
)

// How single values are written.

// hintedError is an error that says what would be right.
func hintedError(text, hint string) error {
	return &backup.Error{Offset: backup.NoOffset, Err: errors.New(text), Hint: hint}
}

// namePattern is the form of names of resources: they are parts of references, file names and addresses.
const namePattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

var (
	nameForm = regexp.MustCompile(namePattern)
	idForm   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)
)

func parseName(text string) (string, error) {
	if !nameForm.MatchString(text) {
		return "", fmt.Errorf("%q is no name: letters, digits, '.', '_' and '-', at most 63, a letter or digit first", text)
	}
	return text, nil
}

// longestText bounds texts, in bytes.
const longestText = 4096

func parseText(text string) (string, error) {
	switch {
	case text == "":
		return "", errors.New("it is empty")
	case len(text) > longestText:
		return "", fmt.Errorf("it is longer than %d bytes", longestText)
	}
	return text, nil
}

func plainText[T ~string](text T) string { return string(text) }

func parseRepositoryID(text string) (string, error) {
	if !idForm.MatchString(text) {
		return "", hintedError(fmt.Sprintf("%q is not the id of a repository: 32 hex digits", text), "ferry repo info prints it")
	}
	return text, nil
}

func parseLookback(text string) (bool, error) {
	switch text {
	case "any":
		return false, nil
	case "interval":
		return true, nil
	}
	return false, fmt.Errorf("%q is neither any nor interval", text)
}

func formatLookback(within bool) string {
	if within {
		return "interval"
	}
	return "any"
}

// sizeUnits from the largest.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"PiB", 1 << 50}, {"PB", 1e15}, {"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// parseSize reads a number of bytes, with or without a unit.
func parseSize(text string) (int64, error) {
	bad := fmt.Errorf("%q is not a size such as 100GiB or 2TB", text)
	parts := sizeForm.FindStringSubmatch(text)
	if parts == nil {
		return 0, bad
	}
	if parts[2] == "" {
		parts[2] = "B"
	}
	for _, unit := range sizeUnits {
		if !strings.EqualFold(unit.name, parts[2]) {
			continue
		}
		number, err := strconv.ParseFloat(parts[1], 64)
		size := math.Round(number * float64(unit.bytes))
		if err != nil || size < 1 || size > 1<<60 {
			return 0, fmt.Errorf("%q is not from 1 byte to 1024 PiB", text)
		}
		if whole, err := strconv.ParseInt(parts[1], 10, 64); err == nil {
			return whole * unit.bytes, nil // without rounding
		}
		return int64(size), nil
	}
	return 0, bad
}

// formatSize is what parseSize reads: in the largest unit of which it is a whole number.
func formatSize(size int64) string {
	for _, unit := range sizeUnits {
		if size%unit.bytes == 0 {
			return strconv.FormatInt(size/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(size, 10)
}

// parseJobRef reads JOB or REPOSITORY/JOB.
func parseJobRef(text string) (JobRef, error) {
	repository, job, found := strings.Cut(text, "/")
	if !found {
		_, err := parseName(text)
		return JobRef{Job: text}, err
	}
	if _, err := parseName(repository); err != nil {
		return JobRef{}, err
	}
	if job == "" {
		return JobRef{}, fmt.Errorf("%q names no job behind the repository", text)
	}
	_, err := parseText(job)
	return JobRef{Repository: repository, Job: job}, err
}

// String is what is written: JOB or REPOSITORY/JOB.
func (r JobRef) String() string {
	if r.Repository == "" {
		return r.Job
	}
	return r.Repository + "/" + r.Job
}

// parseBackupRef reads REPOSITORY/JOB/MACHINE.
func parseBackupRef(text string) (BackupRef, error) {
	repository, rest, found := strings.Cut(text, "/")
	if _, err := parseName(repository); err != nil {
		return BackupRef{}, err
	}
	ref, err := parseTargetBackup(rest)
	if !found || err != nil {
		return BackupRef{}, fmt.Errorf("%q is not REPOSITORY/JOB/MACHINE, such as vault/nightly/web01; * is any job", text)
	}
	ref.Repository = repository
	return ref, nil
}

// parseTargetBackup reads JOB/MACHINE. A machine's id may have slashes, a job's name that is named here may not.
func parseTargetBackup(text string) (BackupRef, error) {
	job, machine, found := strings.Cut(text, "/")
	if !found || job == "" {
		return BackupRef{}, fmt.Errorf("%q is not JOB/MACHINE, such as nightly/web01; * is any job", text)
	}
	selector, err := ParseSelector(machine)
	return BackupRef{Job: job, Machine: selector}, err
}

// String is what is written: REPOSITORY/JOB/MACHINE, or JOB/MACHINE for one in a target.
func (r BackupRef) String() string {
	text := r.Job + "/" + string(r.Machine)
	if r.Repository != "" {
		text = r.Repository + "/" + text
	}
	return text
}

// String is what is read: days, then hours; every day is not written.
func (s span) String() string {
	hours := fmt.Sprintf("%02d:%02d-%02d:%02d", s.start/60, s.start%60, s.end/60, s.end%60)
	every := true
	var runs []string
	for i := 1; i <= 7; i++ { // from Monday
		first := i
		for i <= 7 && s.days[i%7] {
			i++
		}
		switch length := i - first; {
		case length == 1:
			runs = append(runs, shortDay(first))
		case length == 2:
			runs = append(runs, shortDay(first), shortDay(first+1))
		case length > 2:
			runs = append(runs, shortDay(first)+"-"+shortDay(i-1))
		}
		every = every && i-first == 7
	}
	if every {
		return hours
	}
	return strings.Join(runs, ",") + " " + hours
}

func shortDay(n int) string { return strings.ToLower(time.Weekday(n % 7).String())[:3] }

// text is the schedule as it is written; of one that says nothing only the zone.
func (s Schedule) text() ScheduleText {
	text := ScheduleText{Every: s.Every.String(), After: s.After}
	if s.Mode == Immediate || s.Mode == Manual {
		text.Mode = string(s.Mode)
	}
	for _, on := range s.On {
		text.On = append(text.On, on.String())
	}
	if s.Every.Days > 0 || len(s.On) > 0 {
		text.At = s.At.String()
	}
	if s.Zone != nil {
		text.TimeZone = s.Zone.String()
	}
	return text
}

// zoneOnly is the schedule of a job that says nothing of when, but of where.
func zoneOnly(text ScheduleText) (Schedule, error) {
	if text.TimeZone == "" {
		return Schedule{}, nil
	}
	zone, err := ParseZone(text.TimeZone)
	return Schedule{Zone: zone}, err
}

// parseTurns reads the schedule of a part of a job; nothing is never.
func parseTurns(text ScheduleText) (Schedule, error) {
	if text.Every == "" && len(text.On) == 0 && text.At == "" {
		return Schedule{}, nil
	}
	return ParseSchedule(text, nil)
}

func parseUpkeep(text upkeepText) (Upkeep, error) {
	schedule, err := parseTurns(text.ScheduleText)
	if err == nil && schedule.Mode == "" && (text.budget > 0 || text.level != "") {
		err = &FieldError{"", hintedError("it does not say when", "every: 30d, or on: [sunday]")}
	}
	return Upkeep{Schedule: schedule, Budget: text.budget}, err
}
