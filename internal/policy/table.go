package policy

import "time"

// What resources look like in YAML. This table is all that the parser, the printer and the JSON Schema know of it.

const (
	maxList  = 10_000
	maxCount = 1_000_000
)

var (
	nameKind         = parsed("a name", parseName, plainText, wordLike(namePattern))
	textKind         = parsed("text", parseText, plainText, word())
	durationKind     = parsed("a length of time such as 2h or 30d", ParseDuration, FormatDuration, schema{"type": "string", "pattern": durationPattern})
	sizeKind         = parsed("a size such as 100GiB", parseSize, formatSize, word())
	selectorKind     = parsed("a machine's name or id, a pattern, or label=…", ParseSelector, plainText, word())
	rateKind         = parsed("a rate such as 50Mbit/s", ParseRate, Rate.String, schema{"type": "string"})
	dayKind          = parsed("a weekday or a day of the month", ParseOn, On.String, word())
	hoursKind        = parsed("hours such as \"mon-fri 20:00-06:00\"", parseSpan, span.String, schema{"type": "string"})
	jobRefKind       = parsed("a job, or REPOSITORY/JOB", parseJobRef, JobRef.String, word())
	backupKind       = parsed("REPOSITORY/JOB/MACHINE", parseBackupRef, BackupRef.String, schema{"type": "string"})
	targetBackupKind = parsed("JOB/MACHINE", parseTargetBackup, BackupRef.String, schema{"type": "string"})

	selectorsKind = filled(list(selectorKind, maxList), "leave the setting out, or name machines")
	zoneKind      = parsed("a time zone such as Europe/Berlin", func(name string) (string, error) {
		_, err := ParseZone(name)
		return name, err
	}, plainText, schema{"type": "string"})
	everyKind = parsed("a length of time such as 1d or 4h", func(text string) (string, error) {
		every, err := ParseEvery(text)
		return every.String(), err
	}, plainText, schema{"type": "string", "pattern": durationPattern})
	clockKind = parsed("a time of day such as \"22:00\"", func(text string) (string, error) {
		clock, err := ParseClock(text)
		return clock.String(), err
	}, plainText, schema{"type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9]$"})
	dayTextKind = parsed("a weekday or a day of the month", func(text string) (string, error) {
		on, err := ParseOn(text)
		return on.String(), err
	}, plainText, word())
	modeKind     = via(words(Periodic, Immediate, After, Manual), func(m Mode) (string, error) { return string(m), nil }, func(m string) Mode { return Mode(m) })
	idKind       = parsed("a repository's id", parseRepositoryID, plainText, wordLike(idForm.String()))
	lookbackKind = parsed("any or interval", parseLookback, formatLookback, schema{"enum": []string{"any", "interval"}})
	backfillKind = numberOrAll(parsed("a number of points, or all", ParseBackfill, Backfill.String, schema{"anyOf": []schema{{"type": "integer", "minimum": 0}, {"const": keepAll}}}))
)

// word is the schema of text that may be a whole number without quotes.
func word() schema { return schema{"type": []string{"string", "integer"}, "minLength": 1} }

func wordLike(pattern string) schema {
	return schema{"type": []string{"string", "integer"}, "pattern": pattern}
}

const durationPattern = "^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"

// On which days, and when: for jobs and for their upkeep.
func days[S any](at func(*S) *ScheduleText) []member[S] {
	return []member[S]{
		setting("every", "how often: 30m, 4h (elapsed time); 1d, 2w (days of the calendar)", func(s *S) *string { return &at(s).Every }, everyKind),
		setting("on", "instead of every: the weekdays, or days of the month", func(s *S) *[]string { return &at(s).On }, filled(oneOrMore(dayTextKind, 38), "name a day")),
		setting("at", "when on those days", func(s *S) *string { return &at(s).At }, clockKind),
	}
}

var scheduleKind = via(flat(append(days(func(s *ScheduleText) *ScheduleText { return s }),
	setting("mode", "what begins an interval: periodic, immediate (whenever there is a new point), after (another job) or manual", func(s *ScheduleText) *string { return &s.Mode }, modeKind),
	setting("after", "the job that this one follows, whenever that has stored something", func(s *ScheduleText) *string { return &s.After }, nameKind),
	setting("timeZone", "where days begin and hours count, for the whole job", func(s *ScheduleText) *string { return &s.TimeZone }, zoneKind),
)...), func(text ScheduleText) (Schedule, error) {
	if text.Mode == "" && text.After == "" && text.Every == "" && len(text.On) == 0 && text.At == "" {
		return zoneOnly(text)
	}
	return ParseSchedule(text, nil)
}, Schedule.text)

var turnsKind = via(flat(days(func(s *ScheduleText) *ScheduleText { return s })...), parseTurns, Schedule.text)

// upkeepText is an upkeep as it is written.
type upkeepText struct {
	ScheduleText
	budget time.Duration
	level  string
}

func upkeepMembers(more ...member[upkeepText]) []member[upkeepText] {
	return append(append(days(func(u *upkeepText) *ScheduleText { return &u.ScheduleText }),
		setting("budget", "the longest that one turn may take; the next one goes on", func(u *upkeepText) *time.Duration { return &u.budget }, durationKind).without("no limit"),
	), more...)
}

var healthCheckKind = via(flat(upkeepMembers(
	setting("level", "what is proven: stored bytes, blocks, or points", func(u *upkeepText) *string { return &u.level }, words("stored", "blocks", "points")),
)...), func(text upkeepText) (HealthCheck, error) {
	upkeep, err := parseUpkeep(text)
	return HealthCheck{Upkeep: upkeep, Level: text.level}, err
}, func(check HealthCheck) upkeepText {
	return upkeepText{check.Schedule.text(), check.Budget, check.Level}
})

var compactKind = via(flat(upkeepMembers()...), parseUpkeep, func(u Upkeep) upkeepText { return upkeepText{u.Schedule.text(), u.Budget, ""} })

var windowKind = flat(
	setting("allow", "when sources may be read: days and hours, which may pass midnight", func(w *Window) *[]span { return &w.spans },
		filled(list(hoursKind, maxList), "such a window never opens; leave it out, and it is always open")),
)

var bandwidthKind = via(list(flat(
	setting("limit", "bits or bytes in a second: 50Mbit/s, 10MB/s", func(l *Limit) *Rate { return &l.Rate }, rateKind).must(),
	setting("when", "the hours in which it holds", func(l *Limit) *[]span { return &l.When.spans }, filled(oneOrMore(hoursKind, maxList), "leave it out, and the limit always holds")),
), maxList), func(limits []Limit) (Bandwidth, error) { return limits, nil }, func(b Bandwidth) []Limit { return b })

func tier(t Tier, of string) member[Retention] {
	return setting(t.String(), "points of "+of+" that are kept longer: the first good one in each", func(r *Retention) *Keep { return &r.Tiers[t] }, flat(
		setting("keep", "how many "+of+" that have a point", func(k *Keep) *int { return &k.Keep }, number(1, maxCount)).must(),
		setting("on", "the day on which they begin: a weekday, or a day of the month", func(k *Keep) *On { return &k.On }, dayKind),
	))
}

var retentionKind = allOr(flat(
	setting("points", "so many of the newest good points", func(r *Retention) *int { return &r.Points }, number(1, maxCount)),
	setting("days", "the day of the newest good point and so many before it, never fewer than three points", func(r *Retention) *int { return &r.Days }, number(1, maxCount)),
	tier(Weekly, "weeks"), tier(Monthly, "months"), tier(Quarterly, "quarters"), tier(Yearly, "years"),
))

func scriptKind(results ...OnFailure) kind[Script] {
	return flat(
		setting("run", "the program, by its whole path, and its arguments", func(s *Script) *[]string { return &s.Run }, filled(list(textKind, 1000), "name the program")).must(),
		setting("timeout", "after which it is ended", func(s *Script) *time.Duration { return &s.Timeout }, durationKind),
		setting("onFailure", "what its failure does to the interval", func(s *Script) *OnFailure { return &s.OnFailure }, words(results...)),
	)
}

var jobKind = group(
	setting("name", "its name, under which it claims points in the target", func(j *Job) *string { return &j.Name }, nameKind).must(),
	setting("source", "where points come from", func(j *Job) *Origins { return &j.Source }, flat(
		setting("repositories", "all machines of these repositories; the order decides between equal points", func(o *Origins) *[]string { return &o.Repositories }, list(nameKind, maxList)),
		setting("jobs", "what these jobs claim: JOB, a job of ours, in its target; or REPOSITORY/JOB", func(o *Origins) *[]JobRef { return &o.Jobs }, list(jobRefKind, maxList)),
		setting("backups", "single machines of jobs: REPOSITORY/JOB/MACHINE", func(o *Origins) *[]BackupRef { return &o.Backups }, list(backupKind, maxList)),
	)).must(),
	setting("target", "where points go", func(j *Job) *Target { return &j.Target }, flat(
		setting("repository", "the repository that is written to", func(t *Target) *string { return &t.Repository }, nameKind).must(),
		setting("map", "points that are in the target already, as the base of this job's own", func(t *Target) *[]Mapping { return &t.Map }, list(flat(
			setting("machine", "the machine of this job", func(m *Mapping) *Selector { return &m.Machine }, selectorKind).must(),
			setting("backup", "JOB/MACHINE in the target", func(m *Mapping) *BackupRef { return &m.Backup }, targetBackupKind).must(),
		), maxList)),
	)).must(),
	setting("select", "which machines", func(j *Job) *Select { return &j.Select }, group(
		setting("include", "in the order of processing: names, ids, patterns with * and ?, or label=…", func(s *Select) *[]Selector { return &s.Include }, selectorsKind),
		setting("exclude", "what is out, whatever includes it", func(s *Select) *[]Selector { return &s.Exclude }, selectorsKind).without("nothing"),
	)),
	setting("schedule", "when intervals begin", func(j *Job) *Schedule { return &j.Schedule }, scheduleKind),
	setting("lookup", "backward: the newest point that there is; forward: only one made after the interval began", func(j *Job) *Direction { return &j.Lookup.Direction }, words(Backward, Forward)),
	setting("lookback", "how old a point may be that is looked for backward: any, or not older than an interval", func(j *Job) *bool { return &j.Lookup.WithinInterval }, lookbackKind).without("any"),
	setting("backfill", "how many older points of a machine its first interval takes too, or all", func(j *Job) *Backfill { return &j.Lookup.Backfill }, backfillKind).without("0"),
	setting("staleLock", "after which time without growth a locked point counts as broken", func(j *Job) *time.Duration { return &j.Lookup.StaleLock }, durationKind),
	setting("window", "when sources may be read", func(j *Job) *Window { return &j.Window }, windowKind).without("always open"),
	setting("bandwidth", "how fast; of several limits the lowest holds", func(j *Job) *Bandwidth { return &j.Bandwidth }, bandwidthKind).without("no limit"),
	setting("retention", "what is kept: what any of the rules keeps", func(j *Job) *Retention { return &j.Retention }, retentionKind).without("all, every point is kept"),
	setting("overrides", "other retention for some machines; the first that matches counts", func(j *Job) *[]Override { return &j.Overrides }, list(group(
		setting("match", "names, ids, patterns, label=…", func(o *Override) *[]Selector { return &o.Match }, filled(oneOrMore(selectorKind, maxList), "name machines")).must(),
		setting("retention", "instead of the job's", func(o *Override) *Retention { return &o.Retention }, retentionKind).must(),
	), maxList)).without("none"),
	setting("fullFromSource", "when whole machines are read from the source again, into packs of their own", func(j *Job) *Schedule { return &j.FullFromSource }, turnsKind).without("never"),
	setting("healthCheck", "when what is stored is proven", func(j *Job) *HealthCheck { return &j.HealthCheck }, healthCheckKind).without("never"),
	setting("compact", "when the target is compacted", func(j *Job) *Upkeep { return &j.Compact }, compactKind).without("never"),
	setting("scripts", "programs before and after an interval", func(j *Job) *Scripts { return &j.Scripts }, group(
		setting("pre", "before the first transfer", func(s *Scripts) *Script { return &s.Pre }, orNothing(scriptKind(FailureAborts, FailureWarns, FailureIgnored))),
		setting("post", "at the end", func(s *Scripts) *Script { return &s.Post }, orNothing(scriptKind(FailureWarns, FailureIgnored))),
	)).without("none"),
	setting("rpo", "the age that a machine's newest copy must not exceed", func(j *Job) *time.Duration { return &j.RPO }, durationKind).without("no alarm"),
	setting("purgeAfter", "how long after a machine is known to be gone its copies are removed", func(j *Job) *time.Duration { return &j.PurgeAfter }, durationKind).without("never"),
)

var repositoryKind = group(
	setting("name", "its name, by which jobs know it", func(r *Repository) *string { return &r.Name }, nameKind).must(),
	setting("location", "a folder, from this file if relative, or s3://BUCKET/PREFIX", func(r *Repository) *string { return &r.Location }, textKind).must(),
	setting("id", "the id of the Ferry repository that must be there", func(r *Repository) *string { return &r.ID }, idKind).without("any"),
	setting("instance", "keeps the machines of cloned sites apart", func(r *Repository) *string { return &r.Instance }, textKind),
	setting("sourceName", "stands for the folder's name in the ids of machines without a UUID", func(r *Repository) *string { return &r.SourceName }, textKind).without("the folder's name"),
	setting("labels", "labels by rule; a rule holds if all that it states does", func(r *Repository) *[]LabelRule { return &r.Labels }, list(flat(
		setting("label", "the label", func(l *LabelRule) *string { return &l.Label }, textKind).must(),
		setting("name", "a pattern of names", func(l *LabelRule) *string { return &l.Name }, textKind),
		setting("source", "a pattern of names of sources", func(l *LabelRule) *string { return &l.Source }, textKind),
		setting("folder", "a pattern of folders in the source; . is its root", func(l *LabelRule) *string { return &l.Folder }, textKind),
		setting("size", "of its disks and archives together", func(l *LabelRule) *SizeRange { return &l.Size }, flat(
			setting("atLeast", "as large, or larger", func(s *SizeRange) *int64 { return &s.AtLeast }, sizeKind),
			setting("below", "smaller", func(s *SizeRange) *int64 { return &s.Below }, sizeKind),
		)),
	), maxList)).without("none but those that the source states"),
	setting("passphrase", "where the passphrase is that opens the repository", func(r *Repository) *SecretRef { return &r.Passphrase }, secretKind(fromFile, fromEnvironment, fromCommand)),
	setting("identity", "where the age keys are that open the repository", func(r *Repository) *SecretRef { return &r.Identity }, secretKind(fromFile)),
	setting("credentials", "where an AWS credentials file is that opens the bucket", func(r *Repository) *SecretRef { return &r.Credentials }, secretKind(fromFile, fromEnvironment, fromCommand)),
	setting("bandwidth", "how fast, for all jobs together", func(r *Repository) *Bandwidth { return &r.Bandwidth }, bandwidthKind).without("no limit"),
	setting("slots", "how many machines are worked on in it at once", func(r *Repository) *int { return &r.Slots }, number(1, 1000)),
)
