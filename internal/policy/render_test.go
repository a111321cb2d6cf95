package policy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever can be read is read back the same from what is printed of it.

func genName() *rapid.Generator[string] {
	return rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,8}`)
}

// genText are texts that YAML has other readings for, and some that it has none.
func genText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"yes", "no", "on", "null", "~", "0x10", "1e3", "12", "007", "1_000", "true", "2026-11-25", "22:00", "- a", "a: b", "# c", "'", `"`, "*", "&a", "!b", "é", "a\tb", "a\nb", "%41", " x ", "{}", "[", "label", "\\", "|", ">-"}),
		rapid.StringMatching(`[ -~]{1,12}`),
	)
}

func genSelector() *rapid.Generator[Selector] {
	return rapid.Custom(func(t *rapid.T) Selector {
		text := genText().Draw(t, "selector")
		if rapid.Bool().Draw(t, "label") {
			text = labelPrefix + text
		}
		selector, err := ParseSelector(text)
		if err != nil {
			return "x"
		}
		return selector
	})
}

func genMany[T any](of *rapid.Generator[T], least int) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		list := rapid.SliceOfN(of, least, 3).Draw(t, "list")
		if len(list) == 0 {
			return nil
		}
		return list
	})
}

func genDuration() *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(1, int64(longest/time.Second)), func(s int64) time.Duration { return time.Duration(s) * time.Second })
}

func genOn() *rapid.Generator[On] {
	return rapid.OneOf(
		rapid.Map(rapid.IntRange(0, 6), func(n int) On { return OnWeekday(time.Weekday(n)) }),
		rapid.Map(rapid.IntRange(1, 31), OnDay),
	)
}

func genTurns(zone *time.Location) *rapid.Generator[Schedule] {
	return rapid.Custom(func(t *rapid.T) Schedule {
		s := Schedule{Mode: Periodic, Zone: zone}
		switch rapid.IntRange(0, 2).Draw(t, "form") {
		case 0:
			s.Every.Elapsed = time.Duration(rapid.Int64Range(1, 5000).Draw(t, "minutes")) * time.Minute
			return s
		case 1:
			s.Every.Days = rapid.IntRange(1, 400).Draw(t, "days")
		case 2:
			s.On = rapid.SliceOfN(genOn(), 1, 4).Draw(t, "on")
		}
		s.At = Clock(rapid.IntRange(0, minutesPerDay-1).Draw(t, "at"))
		return s
	})
}

func genWindow(zone *time.Location) *rapid.Generator[Window] {
	return rapid.Custom(func(t *rapid.T) Window {
		w := Window{zone: zone}
		for range rapid.IntRange(1, 3).Draw(t, "spans") {
			s := span{start: rapid.IntRange(0, minutesPerDay-1).Draw(t, "start"), end: rapid.IntRange(0, minutesPerDay).Draw(t, "end")}
			for i := range s.days {
				s.days[i] = rapid.Bool().Draw(t, "day")
			}
			s.days[rapid.IntRange(0, 6).Draw(t, "surely")] = true
			if s.start == s.end {
				s.end++
			}
			w.spans = append(w.spans, s)
		}
		return w
	})
}

func genBandwidth(zone *time.Location) *rapid.Generator[Bandwidth] {
	return rapid.Custom(func(t *rapid.T) Bandwidth {
		var b Bandwidth
		for range rapid.IntRange(0, 3).Draw(t, "limits") {
			l := Limit{Rate: Rate(rapid.Int64Range(slowest, fastest).Draw(t, "rate"))}
			if rapid.Bool().Draw(t, "always") {
				l.When = genWindow(zone).Draw(t, "when")
			}
			b = append(b, l)
		}
		return b
	})
}

func genRetention(zone *time.Location) *rapid.Generator[Retention] {
	return rapid.Custom(func(t *rapid.T) Retention {
		number := rapid.IntRange(0, 3)
		r := Retention{Points: number.Draw(t, "points"), Days: number.Draw(t, "days")}
		for i := range r.Tiers {
			if r.Tiers[i].Keep = number.Draw(t, "keep"); r.Tiers[i].Keep == 0 || rapid.Bool().Draw(t, "plain") {
				continue
			}
			on := genOn().Draw(t, "on")
			if Tier(i) == Weekly {
				on = OnWeekday(time.Monday)
			}
			r.Tiers[i].On = on
		}
		return r.in(zone)
	})
}

func genScript(results ...OnFailure) *rapid.Generator[Script] {
	return rapid.Custom(func(t *rapid.T) Script {
		if rapid.Bool().Draw(t, "none") {
			return Script{}
		}
		s := Script{Run: append([]string{"/bin/x"}, rapid.SliceOfN(genText(), 0, 2).Draw(t, "arguments")...)}
		if rapid.Bool().Draw(t, "given") {
			s.Timeout, s.OnFailure = genDuration().Draw(t, "timeout"), rapid.SampledFrom(results).Draw(t, "result")
		}
		return s
	})
}

// genJob makes jobs that contradict themselves in nothing that reading alone would find.
func genJob() *rapid.Generator[Job] {
	return rapid.Custom(func(t *rapid.T) Job {
		var zone *time.Location
		if name := rapid.SampledFrom([]string{"", "UTC", "Europe/Berlin", "Asia/Kathmandu"}).Draw(t, "zone"); name != "" {
			zone, _ = ParseZone(name) // they exist
		}
		maybe := func(what string) bool { return rapid.Bool().Draw(t, what) }
		j := Job{Name: genName().Draw(t, "name"), Schedule: Schedule{Zone: zone}, Bandwidth: genBandwidth(zone).Draw(t, "bandwidth"), Retention: genRetention(zone).Draw(t, "retention")}
		j.Source.Repositories = rapid.SliceOfNDistinct(genName(), 1, 3, rapid.ID).Draw(t, "repositories")
		ref := rapid.Custom(func(t *rapid.T) BackupRef {
			return BackupRef{Repository: genName().Draw(t, "repository"), Job: genName().Draw(t, "job"), Machine: genSelector().Draw(t, "machine")}
		})
		j.Source.Backups = genMany(ref, 0).Draw(t, "backups")
		j.Source.Jobs = genMany(rapid.Custom(func(t *rapid.T) JobRef {
			return JobRef{Repository: rapid.SampledFrom([]string{"", "r"}).Draw(t, "repository"), Job: genName().Draw(t, "job")}
		}), 0).Draw(t, "jobs")
		j.Target.Repository = genName().Draw(t, "target")
		j.Target.Map = genMany(rapid.Custom(func(t *rapid.T) Mapping {
			backup := ref.Draw(t, "backup")
			backup.Repository = ""
			return Mapping{Machine: genSelector().Draw(t, "machine"), Backup: backup}
		}), 0).Draw(t, "map")
		j.Select.Include, j.Select.Exclude = genMany(genSelector(), 0).Draw(t, "include"), genMany(genSelector(), 0).Draw(t, "exclude")
		switch rapid.IntRange(0, 4).Draw(t, "mode") {
		case 1:
			j.Schedule.Mode = Immediate
		case 2:
			j.Schedule.Mode = Manual
		case 3:
			j.Schedule.Mode, j.Schedule.After = After, genName().Draw(t, "after")
		case 4:
			j.Schedule = genTurns(zone).Draw(t, "schedule")
		}
		if maybe("lookup") {
			j.Lookup = Lookup{
				Direction: rapid.SampledFrom([]Direction{Backward, Forward}).Draw(t, "direction"), WithinInterval: maybe("within"),
				Backfill: Backfill(rapid.IntRange(-1, 3).Draw(t, "backfill")), StaleLock: genDuration().Draw(t, "stale"),
			}
		}
		if maybe("window") {
			j.Window = genWindow(zone).Draw(t, "window")
		}
		j.Overrides = genMany(rapid.Custom(func(t *rapid.T) Override {
			return Override{Match: genMany(genSelector(), 1).Draw(t, "match"), Retention: genRetention(zone).Draw(t, "retention")}
		}), 0).Draw(t, "overrides")
		if maybe("full") {
			j.FullFromSource = genTurns(zone).Draw(t, "full")
		}
		if maybe("check") {
			j.HealthCheck = HealthCheck{Upkeep{Schedule: genTurns(zone).Draw(t, "check")}, rapid.SampledFrom([]string{"", "stored", "blocks", "points"}).Draw(t, "level")}
		}
		if maybe("compact") {
			j.Compact = Upkeep{genTurns(zone).Draw(t, "compact"), genDuration().Draw(t, "budget")}
		}
		j.Scripts = Scripts{genScript(FailureAborts, FailureWarns, FailureIgnored).Draw(t, "pre"), genScript(FailureWarns, FailureIgnored).Draw(t, "post")}
		if maybe("ages") {
			j.RPO, j.PurgeAfter = genDuration().Draw(t, "rpo"), genDuration().Draw(t, "purge")
		}
		return j
	})
}

// readJob reads one job without looking at whether its settings fit each other.
func readJob(t *rapid.T, content []byte) Job {
	r := &reader{}
	var all Resources
	for _, root := range r.documents(content) {
		r.document(root, &all)
	}
	if len(r.problems) > 0 || len(all.Jobs) != 1 {
		t.Fatalf("%d jobs, %v\n%s", len(all.Jobs), r.problems, content)
	}
	return all.Jobs[0]
}

func TestJobsReadBackAsTheyArePrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := genJob().Draw(t, "job")
		if got := readJob(t, job.YAML()); !reflect.DeepEqual(got, job) {
			t.Fatalf("%s\nreads back as\n%s", job.YAML(), got.YAML())
		}
		effective := job.Effective()
		if got := readJob(t, job.Explained()); !reflect.DeepEqual(got, effective) {
			t.Fatalf("%s\nreads back as\n%s\nof\n%s", job.Explained(), got.YAML(), effective.YAML())
		}
		if again := effective.Effective(); !reflect.DeepEqual(again, effective) {
			t.Fatalf("%s\nis not settled:\n%s", effective.YAML(), again.YAML())
		}
		if strings.Contains(string(effective.Explained()), "# default") {
			t.Fatalf("what is written out is no default:\n%s", effective.Explained())
		}
	})
}

func TestRepositoriesReadBackAsTheyArePrinted(t *testing.T) {
	optional := rapid.OneOf(rapid.Just(""), genText())
	secret := rapid.Custom(func(t *rapid.T) SecretRef {
		switch rapid.IntRange(0, 3).Draw(t, "secret") {
		case 1:
			return SecretRef{File: genText().Draw(t, "file")}
		case 2:
			return SecretRef{Environment: "A_1"}
		case 3:
			return SecretRef{Command: genText().Draw(t, "command")}
		}
		return SecretRef{}
	})
	rapid.Check(t, func(t *rapid.T) {
		repository := Repository{
			Name: genName().Draw(t, "name"), Location: genText().Draw(t, "location"), Instance: optional.Draw(t, "instance"), SourceName: optional.Draw(t, "sourceName"),
			ID:         rapid.SampledFrom([]string{"", strings.Repeat("0", 32), strings.Repeat("1", 32), strings.Repeat("e", 32)}).Draw(t, "id"),
			Passphrase: secret.Draw(t, "passphrase"), Credentials: secret.Draw(t, "credentials"),
			Bandwidth: genBandwidth(nil).Draw(t, "bandwidth"), Slots: rapid.IntRange(0, 3).Draw(t, "slots"),
		}
		repository.Labels = genMany(rapid.Custom(func(t *rapid.T) LabelRule {
			size := rapid.Int64Range(0, 1<<60)
			return LabelRule{
				Label: genText().Draw(t, "label"), Name: optional.Draw(t, "name"), Source: optional.Draw(t, "source"), Folder: optional.Draw(t, "folder"),
				Size: SizeRange{size.Draw(t, "atLeast"), size.Draw(t, "below")},
			}
		}), 0).Draw(t, "labels")
		for _, content := range [][]byte{repository.YAML(), repository.Explained()} {
			r := &reader{}
			var all Resources
			for _, root := range r.documents(content) {
				r.document(root, &all)
			}
			if len(r.problems) > 0 || !reflect.DeepEqual(all.Repositories, []Repository{repository}) {
				t.Fatalf("%s\nreads back as %+v, %v", content, all.Repositories, r.problems)
			}
		}
	})
}

// TestEffective: what holds where a job says nothing.
func TestEffective(t *testing.T) {
	job := Job{Name: "j", Source: Origins{Repositories: []string{"a"}}, Target: Target{Repository: "b"}}
	want := `kind: Job
name: j
source: {repositories: [a]}
target: {repository: b}
select: # default
  include: ['*']
schedule: {every: 1d, at: "00:00", timeZone: UTC} # default
lookup: backward # default
# lookback: any
# backfill: 0
staleLock: 2h # default
# window: always open
# bandwidth: no limit
# retention: all, every point is kept
# overrides: none
# fullFromSource: never
# healthCheck: never
# compact: never
# scripts: none
# rpo: no alarm
# purgeAfter: never
`
	if got := string(job.Explained()); got != want {
		t.Errorf("got\n%s", got)
	}
	// The zone of the schedule is that of all that has hours and days.
	berlin := zone(t, "Europe/Berlin")
	job = parse(t, string(sample(t))).Jobs[1].Effective()
	for what, is := range map[string]*time.Location{
		"window": job.Window.zone, "bandwidth": job.Bandwidth[0].When.zone, "retention": job.Retention.Zone, "override": job.Overrides[0].Retention.Zone,
		"full": job.FullFromSource.Zone, "check": job.HealthCheck.Schedule.Zone, "compact": job.Compact.Schedule.Zone,
	} {
		if is.String() != berlin.String() {
			t.Errorf("%s goes by %s", what, is)
		}
	}
	// A schedule that says only where is that of every day there.
	only := parse(t, "kind: Repository\nname: r\nlocation: r\n---\nkind: Repository\nname: s\nlocation: s\n---\nkind: Job\nname: j\nsource: {repositories: [r]}\ntarget: {repository: s}\nschedule: {timeZone: Europe/Berlin}\n")
	if s := only.Jobs[0].Effective().Schedule; s.Mode != Periodic || s.Every.Days != 1 || s.Zone.String() != "Europe/Berlin" {
		t.Errorf("%+v", s)
	}
	// A day of the calendar is not the same as 24 hours.
	for text, want := range map[string]Every{"1d": {Days: 1}, "24h": {Elapsed: 24 * time.Hour}, "1w": {Days: 7}, "48h30m": {Elapsed: 48*time.Hour + 30*time.Minute}} {
		every, err := ParseEvery(text)
		if again, _ := ParseEvery(every.String()); err != nil || every != want || again != want {
			t.Errorf("%s is %+v, and %+v when it is read back", text, every, again)
		}
	}
	if job.Scripts.Post.Timeout != 10*time.Minute || job.Scripts.Pre.Timeout != 5*time.Minute {
		t.Errorf("scripts: %+v", job.Scripts)
	}
}
