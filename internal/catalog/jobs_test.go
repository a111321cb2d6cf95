package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
)

func TestJobsStartWhenFirstEnabled(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		state, err := c.Jobs.State(ctx, "offsite")
		if must(t, err); state != (JobState{Job: "offsite"}) {
			t.Errorf("before: %+v", state)
		}
		must(t, c.Jobs.SetNext(ctx, "offsite", clock.now())) // not enabled: stays without
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "me", time.Minute)
		must(t, err)
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		start := clock.now()
		must(t, c.Jobs.Enable(ctx, "offsite"))
		clock.move(time.Hour)
		must(t, c.Jobs.Disable(ctx, "offsite"))
		must(t, c.Jobs.Enable(ctx, "offsite"))
		must(t, c.Jobs.SetNext(ctx, "offsite", clock.now().Add(time.Hour)))
		state, err = c.Jobs.State(ctx, "offsite")
		if must(t, err); state != (JobState{Job: "offsite", Enabled: true, Start: start, Next: clock.now().Add(time.Hour)}) {
			t.Errorf("enabled: %+v", state)
		}
	})
}

// Who enables new jobs may have looked before a person disabled one: it stays so. It starts then.
func TestNewJobDisabledMeanwhile(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		start := clock.now()
		must(t, c.Jobs.Disable(ctx, "offsite"))
		clock.move(time.Hour)
		must(t, c.Jobs.EnableNew(ctx, "offsite"))
		state, err := c.Jobs.State(ctx, "offsite")
		if must(t, err); state != (JobState{Job: "offsite", Start: start}) {
			t.Errorf("%+v", state)
		}
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "new"}, "me", time.Minute)
		must(t, err)
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		for _, name := range []string{"offsite", "new"} {
			must(t, c.Jobs.EnableNew(ctx, name))
			must(t, c.Jobs.Enable(ctx, "offsite"))
			if state, err = c.Jobs.State(ctx, name); err != nil || !state.Enabled {
				t.Errorf("%s: %+v, %v", name, state, err)
			}
		}
	})
}

func TestDueJobs(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		for i, name := range []string{"later", "sooner", "off", "manual"} {
			must(t, c.Jobs.Enable(ctx, name))
			if name != "manual" {
				must(t, c.Jobs.SetNext(ctx, name, clock.now().Add(time.Duration(3-i)*time.Minute)))
			}
		}
		must(t, c.Jobs.Disable(ctx, "off"))
		due := func() string { list, err := c.Jobs.Due(ctx); must(t, err); return jobNames(list) }
		if got := due(); got != "" {
			t.Errorf("due at once: %q", got)
		}
		clock.move(2 * time.Minute)
		if got := due(); got != "sooner" {
			t.Errorf("due after two minutes: %q", got)
		}
		clock.move(24 * time.Hour)
		if got := due(); got != "sooner later" {
			t.Errorf("due after a day: %q", got)
		}
		list, err := c.Jobs.List(ctx)
		if must(t, err); jobNames(list) != "sooner later manual off" {
			t.Errorf("listed %q", jobNames(list))
		}
		must(t, c.Jobs.Forget(ctx, "later"))
		if got := due(); got != "sooner" {
			t.Errorf("due after forgetting one: %q", got)
		}
	})
}

func jobNames(list []JobState) string {
	names := make([]string, len(list))
	for i, state := range list {
		names[i] = state.Job
	}
	return strings.Join(names, " ")
}

func TestSelectionKeepsSinceWhen(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		begin := clock.now()
		must(t, c.Jobs.Select(ctx, "offsite", []backup.Machine{machine(3), machine(1), machine(1)}))
		clock.move(time.Hour)
		must(t, c.Jobs.Select(ctx, "offsite", []backup.Machine{machine(2), machine(3)}))
		got, err := c.Jobs.Selected(ctx, "offsite")
		if must(t, err); !reflect.DeepEqual(got, []backup.Machine{machine(2), machine(3)}) {
			t.Errorf("selected %+v", got)
		}
		ages, err := c.Status.OldestCopies(ctx, "offsite", "vault", 10)
		must(t, err)
		for _, age := range ages {
			want := clock.now()
			if age.Machine.Name == "vm3" {
				want = begin
			}
			if !age.Since.Equal(want) || age.Point != nil {
				t.Errorf("%s is there since %v with %v", age.Machine.Name, age.Since, age.Point)
			}
		}
		if len(ages) != 2 {
			t.Errorf("%d ages", len(ages))
		}
		if err := c.Jobs.Select(ctx, "offsite", make([]backup.Machine, selectionLimit+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many: %v", err)
		}
		must(t, c.Jobs.Forget(ctx, "offsite"))
		if got, err := c.Jobs.Selected(ctx, "offsite"); err != nil || len(got) != 0 {
			t.Errorf("after forgetting: %v, %v", got, err)
		}
	})
}

// What a source calls its machines comes back byte for byte, whatever it is.
func TestHostileMachinesComeBack(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		var machines []backup.Machine
		for i, text := range []string{"", "a/b", "\x00\x01", "\xff\xfe", "100%", "%41", "'; DROP TABLE points; --", "ü\u202e", strings.Repeat("long", 10000)} {
			machines = append(machines, backup.Machine{
				Key:  backup.MachineKey{Platform: backup.Platform(text), Instance: text, UUID: text, SourceName: text, NativeID: fmt.Sprint(text, i)},
				Name: text, Labels: []string{text, "second"},
			})
		}
		must(t, c.Jobs.Select(t.Context(), "offsite", machines))
		got, err := c.Jobs.Selected(t.Context(), "offsite")
		if must(t, err); !reflect.DeepEqual(got, machines) {
			t.Errorf("came back as %+v", got)
		}
	})
}

func TestMachinesGoMissingOnlyByACompleteListing(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		begin := clock.now()
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1), machine(2)}))
		must(t, c.Machines.Saw(ctx, "pbs", []backup.Machine{machine(2)}))
		clock.move(time.Hour)
		gone := clock.now()
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1)}))
		clock.move(time.Hour)
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1)}))
		got, err := c.Machines.Sightings(ctx, "pve")
		must(t, err)
		found := map[string]Sighting{}
		for _, s := range got {
			found[s.Machine.Name] = s
		}
		if s := found["vm1"]; !s.First.Equal(begin) || !s.Last.Equal(clock.now()) || !s.Missing.IsZero() {
			t.Errorf("vm1 %+v", s)
		}
		if s := found["vm2"]; !s.First.Equal(begin) || !s.Last.Equal(begin) || !s.Missing.Equal(gone) {
			t.Errorf("vm2 %+v: it is missing since it first was", s)
		}
		other, err := c.Machines.Sightings(ctx, "pbs")
		if must(t, err); len(other) != 1 || !other[0].Missing.IsZero() || other[0].Machine.Name != "vm2" {
			t.Errorf("in the other source: %+v", other)
		}
		last, err := c.Machines.LastSeen(ctx)
		if must(t, err); len(last) != 2 || !last["pve"].Equal(clock.now()) || !last["pbs"].Equal(begin) {
			t.Errorf("last seen %v", last)
		}
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1), machine(2)}))
		got, err = c.Machines.Sightings(ctx, "pve")
		must(t, err)
		for _, s := range got {
			if !s.Missing.IsZero() || !s.First.Equal(begin) {
				t.Errorf("back again: %+v", s)
			}
		}
	})
}

func TestMachinesAreNamedByWhatIsNewest(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		renamed := machine(1)
		renamed.Name, renamed.Labels = "web", []string{"tag"}
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{renamed}))
		must(t, replaceWith(c, "vault", head(1), testPoint(1, 1, clock.now().Add(-time.Hour)), testPoint(2, 1, clock.now().Add(24*time.Hour))))
		known, err := c.Machines.Get(ctx, machine(1).Key)
		if must(t, err); known.Name != "web" || len(known.Labels) != 1 {
			t.Errorf("named %+v by an older point", known)
		}
		clock.move(time.Minute)
		later := machine(2)
		later.Name = "db"
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{later}))
		if known, err := c.Machines.Get(ctx, later.Key); err != nil || known.Name != "db" {
			t.Errorf("named %+v, %v: a point dated into the future had the last word", known, err)
		}
		if _, err := c.Machines.Get(ctx, machine(3).Key); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown machine: %v", err)
		}
	})
}

// Whether a machine has gone is what was said last, here or where a target knows it from.
func TestRetiredIsWhatWasSaidLast(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		must(t, c.Machines.Saw(ctx, "pve", []backup.Machine{machine(1), machine(2)}))
		first := clock.now()
		for range 2 {
			held, err := c.Machines.Retire(ctx, machine(1).Key, true)
			if must(t, err); !held.Since.Equal(first) {
				t.Errorf("retired since %v", held)
			}
			clock.move(time.Minute)
		}
		earlier := backup.Retirement{Decided: first.Add(-time.Hour)}
		must(t, c.Machines.NoteRetired(ctx, machine(1), earlier))
		if known, err := c.Machines.Get(ctx, machine(1).Key); err != nil || !known.Retired.Since.Equal(first) {
			t.Errorf("%+v, %v: what was said before had the last word", known.Retired, err)
		}
		clock.move(-24 * time.Hour)
		back, err := c.Machines.Retire(ctx, machine(1).Key, false)
		if must(t, err); !back.Since.IsZero() || !back.Decided.After(first) {
			t.Errorf("back: %+v", back)
		}
		elsewhere := backup.Retirement{Since: first, Decided: first.Add(time.Hour)}
		must(t, c.Machines.NoteRetired(ctx, machine(3), elsewhere)) // a machine of which only the target knew
		retired, err := c.Machines.Retired(ctx)
		if must(t, err); len(retired) != 2 || retired[machine(1).Key] != back || retired[machine(3).Key] != elsewhere {
			t.Errorf("%+v", retired)
		}
		all, err := c.Machines.All(ctx)
		if must(t, err); len(all) != 3 {
			t.Errorf("%d machines", len(all))
		}
		if _, err := c.Machines.Retire(ctx, machine(4).Key, true); !errors.Is(err, ErrNotFound) {
			t.Errorf("retiring an unknown machine: %v", err)
		}
	})
}

func TestFiguresOverTime(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		var want []Figure
		for day := range 5 {
			f := Figure{At: clock.now().AddDate(0, 0, day), Points: int64(day), StoredBytes: 1 << 50, FreeBytes: Unknown}
			must(t, c.Figures.Record(ctx, "vault", f))
			want = append(want, f)
		}
		want[4].Points = 77
		must(t, c.Figures.Record(ctx, "vault", want[4]))
		got, err := c.Figures.Since(ctx, "vault", want[2].At)
		if must(t, err); !reflect.DeepEqual(got, want[2:]) {
			t.Errorf("got %+v", got)
		}
	})
}
