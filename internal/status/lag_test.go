package status_test

import (
	"strings"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
)

const mebibyte = 1 << 20

// sized is a point at a source.
func sized(machineNumber int, created time.Time, mebibytes int64) catalog.MirrorPoint {
	p := point(machineNumber, created, "")
	p.Size, p.Claims = mebibytes*mebibyte, nil
	return p
}

// copied is a session that ended an hour after its boundary and copied so much in so long.
func (s *site) copied(boundary time.Time, mebibytes int64, took time.Duration) {
	s.Helper()
	lease := s.begin("offsite", boundary)
	s.at(boundary.Add(time.Hour), func() {
		counts := catalog.Counts{"pointBytes": mebibytes * mebibyte, "copyMilliseconds": took.Milliseconds(), "sources": 1, "sourcesRead": 1}
		s.must(s.catalog.Sessions.End(s.Context(), lease, catalog.SessionDone, "", counts))
	})
}

func (s *site) lag() api.Lag {
	s.Helper()
	return *s.status().Jobs[0].Lag
}

func (s *site) wantLag(want api.Lag) {
	s.Helper()
	if got := s.lag(); got != want {
		s.Errorf("lag %+v, want %+v", got, want)
	}
}

// behind has a job with three machines: of vm0, which has a copy, the source has points of 100, 200 and 400 MiB that are newer and one
// that is not; vm1 has no copy, and points of 10, 20 and 40 MiB; of vm2 there is nothing newer.
func behind(t *testing.T, yaml string) *site {
	s := newSite(t, yaml)
	s.selects("offsite", day(8, 22), 3)
	s.mirror("vault", point(0, day(9, 10), "offsite"), point(2, day(9, 23), "offsite"))
	s.mirror("pve",
		sized(0, day(9, 10), 1), sized(0, day(9, 11), 100), sized(0, day(9, 12), 200), sized(0, day(9, 13), 400),
		sized(1, day(9, 1), 10), sized(1, day(9, 2), 20), sized(1, day(9, 3), 40), sized(2, day(9, 23), 5000))
	return s
}

// What is still to copy is what the next interval takes, not all that is newer.
func TestWhatIsStillToCopy(t *testing.T) {
	daily := strings.Replace(siteYAML, "rpo: 26h\n", "", 1)
	immediate := strings.Replace(daily, `{every: 1d, at: "22:00"}`, "{mode: immediate}", 1)
	for name, c := range map[string]struct {
		yaml              string
		points, mebibytes int64
	}{
		"every day: the newest of each":             {daily, 2, 400 + 40},
		"immediate: all, but only the newest first": {immediate, 4, 700 + 40},
		"with some history at first":                {daily + "backfill: 1\n", 3, 400 + 40 + 15},
		"with more than there is":                   {daily + "backfill: 7\n", 4, 400 + 70},
		"with all of it":                            {immediate + "backfill: all\n", 6, 700 + 70},
	} {
		t.Run(name, func(t *testing.T) {
			s := behind(t, c.yaml)
			limit := int64(24 * 3600)
			if strings.Contains(c.yaml, "immediate") {
				limit = 0
			}
			s.wantLag(api.Lag{Points: c.points, Bytes: c.mebibytes * mebibyte, Rate: api.Unknown, CatchUp: api.Unknown, Limit: limit})
		})
	}
	s := behind(t, daily)
	for _, c := range s.status().Machines {
		want := map[string][2]int64{"vm0": {3, 700 * mebibyte}, "vm1": {3, 70 * mebibyte}, "vm2": {0, 0}}[c.Machine.Name]
		if c.LagPoints != want[0] || c.LagBytes != want[1] {
			t.Errorf("%s lags by %d points, %d bytes", c.Machine.Name, c.LagPoints, c.LagBytes)
		}
	}
}

// What is not known is not said to be nothing: before the source or the target was listed, and how fast it goes before anything was
// copied.
func TestLagThatIsNotKnown(t *testing.T) {
	unknown := api.Lag{Points: api.Unknown, Bytes: api.Unknown, Rate: api.Unknown, CatchUp: api.Unknown, Limit: 24 * 3600}
	s := newSite(t, siteYAML)
	s.wantLag(unknown)
	s.selects("offsite", day(9, 12), 1)
	s.mirror("vault", point(0, day(9, 23), "offsite"))
	s.wantLag(unknown)
	s.mirror("pve", sized(0, day(9, 23), 7))
	s.wantLag(api.Lag{Rate: api.Unknown, Limit: 24 * 3600}) // nothing to copy takes no time
	s = newSite(t, siteYAML)
	s.selects("offsite", day(9, 12), 1)
	s.mirror("pve", sized(0, day(9, 23), 7))
	s.wantLag(unknown)
	s.wantAlarms("critical not-run offsite: its interval has not begun, since 03-01 22:00")
}

// A job that takes longer to catch up than an interval, or than its rpo, falls behind, and that is an alarm. What it takes counts by what
// the last sessions copied together, and only while the window is open.
func TestLagAlarm(t *testing.T) {
	daily := strings.Replace(siteYAML, "rpo: 26h\n", "", 1)
	alarm := func(takes, longer, setting string) string {
		return "warning lag offsite: at the pace of its sessions it takes " + takes + " to copy what is still to copy, longer than " + longer + ", which its " + setting + " allows, since 03-09 23:00"
	}
	for name, c := range map[string]struct {
		yaml      string
		mebibytes int64
		took      time.Duration
		hours     int64
		want      []string
	}{
		"in time":  {daily, 440, 23 * time.Hour, 23, nil},
		"too late": {daily, 440, 25 * time.Hour, 25, []string{alarm("about 25h", "1d", "schedule")}},
		"too late for the rpo": {strings.Replace(siteYAML, `{every: 1d, at: "22:00"}`, "{mode: immediate}", 1), 740, 27 * time.Hour, 27, []string{
			"critical rpo offsite vm1: it has no copy, since 03-10 00:00", alarm("about 27h", "26h", "rpo"),
		}},
		"a longer rpo":    {daily + "rpo: 2d\n", 440, 25 * time.Hour, 25, []string{alarm("about 25h", "1d", "schedule")}},
		"a week's time":   {strings.Replace(daily, "every: 1d", "every: 7d", 1), 440, 25 * time.Hour, 25, nil},
		"nothing allowed": {strings.Replace(daily, `{every: 1d, at: "22:00"}`, "{mode: immediate}", 1), 740, 25 * time.Hour, 25, nil},
		// It begins at 22:00: four hours until the window closes, and four of the next night.
		"a window": {daily + "window: {allow: [\"20:00-02:00\"]}\n", 440, 8 * time.Hour, 26, []string{alarm("about 26h", "1d", "schedule")}},
		// It does not fall behind by the hours until the window opens, of which it makes no use.
		"a window that is closed": {daily + "window: {allow: [\"06:00-20:00\"]}\n", 440, 13 * time.Hour, 13, nil},
		// Twelve hours of the 16th and of the 23rd, six of the 30th.
		"one on mondays": {daily + "window: {allow: [\"mon 00:00-12:00\"]}\n", 440, 30 * time.Hour, 14*24 + 6, []string{alarm("about 14d", "1d", "schedule")}},
		"one in passing": {daily + "window: {allow: [\"mon 20:00-20:01\"]}\n", 440, 20 * time.Hour, 10 * 365 * 24, []string{alarm("more than ten years", "1d", "schedule")}},
		"without end":    {daily, 1, 10_000 * time.Hour, 10 * 365 * 24, []string{alarm("more than ten years", "1d", "schedule")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := behind(t, c.yaml)
			s.copied(day(8, 22), c.mebibytes/2, c.took/4)
			s.copied(day(9, 22), c.mebibytes-c.mebibytes/2, c.took-c.took/4)
			s.idle(day(10, 0)) // these do not look, and it is known no later for them
			s.must(s.catalog.Jobs.SetNext(t.Context(), "offsite", day(10, 22)))
			if c.mebibytes == 1 {
				s.mirror("pve", sized(0, day(9, 13), 1<<20), sized(1, day(9, 3), 1<<20))
			}
			got := s.wantAlarms(c.want...).Jobs[0].Lag
			want := c.hours * 3600
			if off := got.CatchUp - want; off < 0 || off > want/1000 { // the rate is in whole bytes
				t.Errorf("%+v, want %d seconds", got, want)
			}
		})
	}
}

// While a session copies, what is left of that counts, from now on, and its own pace if no other is known.
func TestLagOfASession(t *testing.T) {
	s := behind(t, siteYAML)
	lag := func(points, mebibytes int64) api.Lag {
		return api.Lag{Points: points, Bytes: mebibytes * mebibyte, Rate: api.Unknown, CatchUp: api.Unknown, Limit: 24 * 3600}
	}
	lease := s.begin("offsite", day(9, 22))
	s.wantLag(lag(2, 440)) // it has not looked yet
	var tasks []catalog.NewTask
	for i := range 3 {
		id := sized(i, day(9, 20), 0).ID
		tasks = append(tasks, catalog.NewTask{Machine: machine(i), Point: &id, Created: day(9, 20), Source: "pve", Target: "vault", Size: 300 * mebibyte})
	}
	_, err := s.catalog.Tasks.Enqueue(t.Context(), lease, tasks)
	s.must(err)
	s.wantLag(lag(3, 900))
	s.at(day(10, 11), func() {
		list, err := s.catalog.Tasks.Of(t.Context(), s.status().Sessions[0].ID)
		s.must(err)
		first, err := s.catalog.Tasks.Take(t.Context(), list[0].ID, "me", catalog.MaxLease)
		s.must(err)
		s.must(s.catalog.Tasks.Finish(t.Context(), first.Lease, catalog.TaskDone, "", catalog.Progress{Done: 300 * mebibyte, Total: 300 * mebibyte}))
		second, err := s.catalog.Tasks.Take(t.Context(), list[1].ID, "me", catalog.MaxLease)
		s.must(err)
		_, err = s.catalog.Tasks.Renew(t.Context(), &second.Lease, catalog.MaxLease, catalog.Progress{Done: 60 * mebibyte, Total: 310 * mebibyte})
		s.must(err)
	})
	const rate = 360 * mebibyte / 3600
	s.wantLag(api.Lag{Points: 2, Bytes: 550 * mebibyte, Rate: rate, CatchUp: 550 * mebibyte / rate, Limit: 24 * 3600})
}

// A job that is switched off falls behind without an alarm: that it is switched off is told.
func TestLagOfAJobThatIsSwitchedOff(t *testing.T) {
	s := behind(t, strings.Replace(siteYAML, "rpo: 26h\n", "", 1))
	s.copied(day(9, 22), 440, 25*time.Hour)
	if n := len(s.status().Alarms); n != 1 {
		t.Errorf("%d alarms while it is on", n)
	}
	s.must(s.catalog.Jobs.Disable(t.Context(), "offsite"))
	s.wantAlarms()
}

// A job that selects nothing of its sources has nothing to copy.
func TestLagOfAJobWithoutMachines(t *testing.T) {
	s := newSite(t, siteYAML)
	s.mirror("vault", point(0, day(9, 23), "offsite"))
	s.copied(day(9, 22), 0, 0)
	s.wantLag(api.Lag{Rate: api.Unknown, Limit: 24 * 3600})
}

// Sessions that had nothing to copy do not make the pace unknown, however many they are.
func TestPaceOutlastsSessionsWithoutCopies(t *testing.T) {
	s := behind(t, siteYAML)
	s.copied(day(8, 0), 440, 440*time.Second)
	for i := range 3 * 10 {
		s.copied(day(8, 1+i), 0, 0)
	}
	if got := s.lag().Rate; got != mebibyte {
		t.Errorf("%d bytes a second", got)
	}
}

// The time of a first session's pace is that in which a copy was under way, and the window open.
func TestPaceOfASessionLeavesOutWhenItWaits(t *testing.T) {
	windowed := siteYAML + "window: {allow: [\"20:00-11:30\"]}\n"
	for name, c := range map[string]struct {
		yaml   string
		second time.Time // when the next copy begins, which is under way at noon
		want   int64
	}{
		"all the time":             {siteYAML, day(10, 11), 2 * 3600},
		"nothing for half an hour": {siteYAML, day(10, 11).Add(30 * time.Minute), 3600 + 1800},
		"a window that has closed": {windowed, day(10, 11), 3600 + 1800},
	} {
		t.Run(name, func(t *testing.T) {
			s := behind(t, c.yaml)
			lease := s.begin("offsite", day(9, 22))
			var tasks []catalog.NewTask
			for i := range 3 {
				id := sized(i, day(9, 20), 0).ID
				tasks = append(tasks, catalog.NewTask{Machine: machine(i), Point: &id, Created: day(9, 20), Source: "pve", Target: "vault", Size: 300 * mebibyte})
			}
			_, err := s.catalog.Tasks.Enqueue(t.Context(), lease, tasks)
			s.must(err)
			list, err := s.catalog.Tasks.Of(t.Context(), s.status().Sessions[0].ID)
			s.must(err)
			var first, second *catalog.Taken
			s.at(day(10, 10), func() {
				first, err = s.catalog.Tasks.Take(t.Context(), list[0].ID, "me", catalog.MaxLease)
				s.must(err)
			})
			s.at(day(10, 11), func() {
				s.must(s.catalog.Tasks.Finish(t.Context(), first.Lease, catalog.TaskDone, "", catalog.Progress{Done: 300 * mebibyte, Total: 300 * mebibyte}))
			})
			s.at(c.second, func() {
				second, err = s.catalog.Tasks.Take(t.Context(), list[1].ID, "me", catalog.MaxLease)
				s.must(err)
				_, err = s.catalog.Tasks.Renew(t.Context(), &second.Lease, catalog.MaxLease, catalog.Progress{Done: 60 * mebibyte, Total: 310 * mebibyte})
				s.must(err)
			})
			if got := s.lag().Rate; got != 360*mebibyte/c.want {
				t.Errorf("%d bytes a second, want %d", got, 360*mebibyte/c.want)
			}
		})
	}
}
