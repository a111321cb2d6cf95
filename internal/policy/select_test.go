package policy

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

func TestGlobIsItsRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?")), 0, 8, -1).Draw(t, "pattern")
		name := rapid.StringOfN(rapid.SampledFrom([]rune("abc")), 0, 10, -1).Draw(t, "name")
		expression := strings.NewReplacer("*", ".*", "?", ".").Replace(pattern)
		if want := regexp.MustCompile("^" + expression + "$").MatchString(name); Glob(pattern, name) != want {
			t.Fatalf("%q matches %q: %v", pattern, name, !want)
		}
	})
	if Glob(strings.Repeat("*a", 40)+"b", strings.Repeat("a", 100_000)) {
		t.Error("matched what it does not")
	}
}

// day is the n-th of November.
func day(n int) time.Time { return time.Date(2026, 11, n, 3, 0, 0, 0, time.UTC) }

// offered makes an offer: a complete point of a machine on a day, from a source.
func offered(machine, source string, created time.Time, labels ...string) Offer {
	key := backup.NewMachineKey(backup.PlatformProxmox, "1"+machine, "aa-"+machine, "")
	point := backup.Point{
		ID: backup.NewPointID(key, created.String()), Machine: backup.Machine{Key: key, Name: machine, Labels: labels}, Created: created, State: backup.StateComplete,
	}
	return Offer{Point: point.Brief(), Source: source}
}

// told is a selection in a few words: machines in order, "-" before those that are out; "?" before those not found.
func told(s Selection) string {
	var words []string
	for _, m := range s.Machines {
		word := m.Machine.Name
		if !m.In {
			word = "-" + word
		}
		words = append(words, word)
	}
	for _, n := range s.NotFound {
		words = append(words, "?"+string(n.Selector))
	}
	return strings.Join(append(words, s.Idle...), " ")
}

func TestSelection(t *testing.T) {
	offers := []Offer{
		offered("web1", "pve", day(1), "web", "prod"), offered("web2", "pve", day(1), "web"), offered("db", "pve", day(1), "prod"),
		offered("test-web", "pve", day(1), "web"), offered("Mail", "pve", day(1)),
	}
	for _, c := range []struct {
		include, exclude, want string
	}{
		{"", "", "web1 web2 db test-web Mail"},
		{"*", "test-*", "web1 web2 db Mail -test-web"},
		// The order of include is that of processing; a machine has the place of the first that matches.
		{"db,*", "", "db web1 web2 test-web Mail"},
		{"label=prod,web*", "", "web1 db web2 -test-web -Mail"},
		{"web2,web*", "", "web2 web1 -db -test-web -Mail"},
		// What is excluded is out, whatever includes it.
		{"label=web", "label=prod", "web2 test-web -web1 -db -Mail"},
		{"web1,db", "label=prod", "-web1 -web2 -db -test-web -Mail"},
		// Ids, whole or as patterns, and native ids.
		{"proxmox/1db/aa-db", "", "db -web1 -web2 -test-web -Mail"},
		{"proxmox/1web*", "proxmox/1web2/*", "web1 -web2 -db -test-web -Mail"},
		{"1db", "", "db -web1 -web2 -test-web -Mail"},
		{"proxmox/1db", "", "-web1 -web2 -db -test-web -Mail ?proxmox/1db"}, // an id is whole
		// Upper and lower case differ.
		{"mail", "", "-web1 -web2 -db -test-web -Mail ?mail"},
		{"label=Web", "", "-web1 -web2 -db -test-web -Mail include label=Web"},
		// A pattern or an exclusion that matches nothing is no mistake; a machine that is named and not there is told.
		{"db,app*", "nothing", "db -web1 -web2 -test-web -Mail include app* exclude nothing"},
		{"db,ghost", "", "db -web1 -web2 -test-web -Mail ?ghost"},
		{"label=w?b", "", "web1 web2 test-web -db -Mail"},
	} {
		job := Job{}
		for _, s := range strings.Split(c.include, ",") {
			if s != "" {
				job.Select.Include = append(job.Select.Include, Selector(s))
			}
		}
		if c.exclude != "" {
			job.Select.Exclude = []Selector{Selector(c.exclude)}
		}
		if got := told(job.Choose(offers, "")); got != c.want {
			t.Errorf("include %s, exclude %s: %s, want %s", c.include, c.exclude, got, c.want)
		}
	}
	job := Job{Select: Select{Include: []Selector{"mail", "db3", "*"}}}
	hints := job.Choose(offers, "").NotFound
	if len(hints) != 2 || hints[0].Hint != "there is Mail: upper and lower case differ" || hints[1].Hint != "did you mean db?" {
		t.Errorf("hints: %q", hints)
	}
	job = Job{Select: Select{Exclude: []Selector{"db"}}}
	reasons := job.Choose(offers, "").Machines
	if reasons[0].Reason != "included by *" || reasons[4].Reason != "excluded by db" {
		t.Errorf("reasons: %q, %q", reasons[0].Reason, reasons[4].Reason)
	}
}

// The same machine in several sources: the newest complete point of all is taken; of two that were made at the same time,
// that of the first source.
func TestNewestCompletePointOfSeveralSources(t *testing.T) {
	broken := offered("web", "pbs", day(4))
	broken.Point.State = backup.StateBroken
	same := offered("web", "pbs", day(3))
	same.Point.ID = backup.PointID{1} // made by the other program, at the same time
	older := offered("web", "pve", day(1), "old")
	for _, c := range []struct {
		offers []Offer
		source string
		day    int
		points int
	}{
		{[]Offer{older, offered("web", "pve", day(2)), offered("web", "pbs", day(3))}, "pbs", 3, 3},
		{[]Offer{offered("web", "pve", day(3)), same}, "pve", 3, 2},
		{[]Offer{same, offered("web", "pve", day(3))}, "pbs", 3, 2},
		{[]Offer{offered("web", "pve", day(3)), offered("web", "pbs", day(3))}, "pve", 3, 1}, // one point, in both
		{[]Offer{older, broken}, "pve", 1, 2},
		{[]Offer{broken, older}, "pve", 1, 2},
	} {
		machines := Job{}.Choose(c.offers, "").Machines
		if len(machines) != 1 {
			t.Fatalf("%d machines", len(machines))
		}
		m := machines[0]
		if !m.Offered || m.Newest.Source != c.source || !m.Newest.Point.Created.Equal(day(c.day)) || m.Points != c.points {
			t.Errorf("of %d offers %s of %s is taken, of %d points", len(c.offers), m.Newest.Point.Created, m.Newest.Source, m.Points)
		}
	}
	// A machine is as its newest complete point has it.
	m := Job{}.Choose([]Offer{older, offered("web", "pve", day(2), "new")}, "").Machines[0]
	if !slices.Equal(m.Machine.Labels, []string{"new"}) {
		t.Errorf("labels %q", m.Machine.Labels)
	}
	m = Job{}.Choose([]Offer{broken}, "").Machines[0]
	if m.Offered || m.Why == "" {
		t.Errorf("of a broken point: %+v", m)
	}
}

func TestFirstOverrideThatMatchesCounts(t *testing.T) {
	rules := func(points int) Retention { return Retention{Points: points} }
	job := Job{Retention: rules(9), Overrides: []Override{
		{Match: []Selector{"db", "label=web"}, Retention: rules(1)}, {Match: []Selector{"web1"}, Retention: rules(2)}, {Match: []Selector{"mail"}, Retention: Retention{}}, {Match: []Selector{"none"}},
	}}
	selection := job.Choose([]Offer{offered("web1", "s", day(1), "web"), offered("web1x", "s", day(1)), offered("db", "s", day(1)), offered("mail", "s", day(1))}, "")
	var got []string
	for _, m := range selection.Machines {
		got = append(got, fmt.Sprintf("%s %d %d", m.Machine.Name, m.Override, m.Retention.Points))
		if again, n := job.RetentionOf(m.Machine); again != m.Retention || n != m.Override {
			t.Errorf("RetentionOf says otherwise of %s", m.Machine.Name)
		}
	}
	if want := []string{"web1 0 1", "web1x -1 9", "db 0 1", "mail 2 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := []string{"override none"}; !slices.Equal(selection.Idle, want) {
		t.Errorf("idle %q", selection.Idle)
	}
}

// TestSelectionAsOneWouldSayIt compares with the rule, said in other words.
func TestSelectionAsOneWouldSayIt(t *testing.T) {
	selectors := rapid.SampledFrom([]Selector{"*", "a", "b", "a*", "label=x", "label=y", "?", "proxmox/1a/aa-a", "1b"})
	names := []string{"a", "b", "ab", "c"}
	rapid.Check(t, func(t *rapid.T) {
		job := Job{Select: Select{Include: rapid.SliceOfN(selectors, 0, 4).Draw(t, "include"), Exclude: rapid.SliceOfN(selectors, 0, 2).Draw(t, "exclude")}}
		var offers []Offer
		for range rapid.IntRange(0, 8).Draw(t, "offers") {
			var labels []string
			if rapid.Bool().Draw(t, "labelled") {
				labels = []string{rapid.SampledFrom([]string{"x", "y"}).Draw(t, "label")}
			}
			offers = append(offers, offered(rapid.SampledFrom(names).Draw(t, "name"), "s", day(rapid.IntRange(1, 3).Draw(t, "day")), labels...))
		}
		chosen := job.Choose(offers, "").Machines
		seen := map[string]bool{}
		lastRank, outYet := 0, false
		for _, m := range chosen {
			if seen[m.Machine.Name] {
				t.Fatalf("%s is there twice", m.Machine.Name)
			}
			seen[m.Machine.Name] = true
			excluded := slices.ContainsFunc(job.Select.Exclude, func(s Selector) bool { return s.Matches(m.Machine) })
			rank := slices.IndexFunc(job.Select.Include, func(s Selector) bool { return s.Matches(m.Machine) })
			if len(job.Select.Include) == 0 {
				rank = 0
			}
			if want := rank >= 0 && !excluded; m.In != want || m.Reason == "" {
				t.Fatalf("%s in: %v, %s", m.Machine.Name, m.In, m.Reason)
			}
			if !m.In {
				outYet = true
				continue
			}
			if outYet || rank < lastRank {
				t.Fatalf("%s is out of order", m.Machine.Name)
			}
			lastRank = rank
		}
		for _, o := range offers {
			if !seen[o.Point.Machine.Name] {
				t.Fatalf("%s is nowhere", o.Point.Machine.Name)
			}
		}
	})
}

// Over three repositories: what has been in one is never copied back to it, by whatever way it comes.
func TestNothingIsCopiedBack(t *testing.T) {
	in := func(via string, hops ...string) Offer {
		o := offered("web", via, day(1))
		o.Via = via
		for _, hop := range hops {
			o.Point.Hops = append(o.Point.Hops, backup.Hop{RepositoryID: hop})
		}
		return o
	}
	for _, c := range []struct {
		offer  Offer
		target string
		back   bool
	}{
		{in(""), "a", false},
		{in("a"), "b", false},
		{in("b", "a"), "c", false},
		{in("b", "a"), "a", true},
		{in("c", "a", "b"), "a", true},
		{in("c", "a", "b"), "b", true},
		{in("a"), "a", true}, // the source is the target
		{in("c", "a", "b"), "d", false},
		{in("c", "a", "b"), "", false}, // not known
	} {
		if got := BeenIn(c.offer.Point, c.offer.Via, c.target); got != c.back {
			t.Errorf("via %q with %d hops to %q: %v", c.offer.Via, len(c.offer.Point.Hops), c.target, got)
		}
		m := Job{}.Choose([]Offer{c.offer}, c.target).Machines[0]
		if m.Offered == c.back || (m.Why != "") != c.back {
			t.Errorf("via %q to %q: offered %v, %s", c.offer.Via, c.target, m.Offered, m.Why)
		}
	}
	// A newer point that came from the target does not stand before an older one that did not.
	newer := in("b", "a")
	newer.Point.Created, newer.Point.ID = day(5), backup.PointID{5}
	m := Job{}.Choose([]Offer{newer, in("")}, "a").Machines[0]
	if !m.Offered || !m.Newest.Point.Created.Equal(day(1)) || m.Why != "" {
		t.Errorf("%+v", m)
	}
}

func TestOrigins(t *testing.T) {
	resources := parse(t, `kind: Repository
name: pve
location: pve
---
kind: Repository
name: near
location: near
---
kind: Repository
name: far
location: far
---
kind: Job
name: local
source: {repositories: [pve]}
target: {repository: near}
---
kind: Job
name: offsite
source: {jobs: [local, pve/old-*], backups: [near/*/db, near/hand/label=x], repositories: []}
target: {repository: far}
`)
	job, ok := resources.Job("offsite")
	if !ok {
		t.Fatal("no job")
	}
	origins := resources.Origins(job)
	if len(origins) != 2 || origins[0].Repository.Name != "near" || origins[1].Repository.Name != "pve" {
		t.Fatalf("%+v", origins)
	}
	near, pve := origins[0], origins[1]
	web, db, labelled := offered("web", "", day(1)).Point, offered("db", "", day(1)).Point, offered("app", "", day(1), "x").Point
	for i, c := range []struct {
		origin Origin
		point  *backup.Brief
		jobs   []string
		want   bool
	}{
		{near, web, []string{"manual", "local"}, true},
		{near, web, []string{"manual"}, false},
		{near, web, nil, false},
		{near, db, nil, true}, // a backup of any job, or none
		{near, db, []string{"other"}, true},
		{near, labelled, []string{"hand"}, true},
		{near, labelled, []string{"other"}, false},
		{pve, web, []string{"old-nightly"}, true},
		{pve, web, []string{"local"}, false},
		{pve, web, nil, false},
	} {
		if got := c.origin.Offers(*c.point.Machine, c.jobs); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	local, _ := resources.Job("local")
	if origins := resources.Origins(local); len(origins) != 1 || !origins[0].Offers(*web.Machine, nil) {
		t.Errorf("%+v", origins)
	}
}

func TestLabelRules(t *testing.T) {
	point := offered("web-1", "", day(1), "prod").Point.AsPoint()
	point.Origin = backup.Origin{Source: "dump", Location: "lab/a/x.vma"}
	point.Objects = []backup.Object{
		{Role: backup.RoleDisk, Size: 30 << 30}, {Role: backup.RoleArchive, Size: 10 << 30}, {Role: backup.RoleConfiguration, Size: 1 << 40}, {Role: backup.RoleDisk, Size: backup.UnknownSize},
	}
	for _, c := range []struct {
		rule LabelRule
		want bool
	}{
		{LabelRule{Name: "web-*"}, true},
		{LabelRule{Name: "Web-*"}, false},
		{LabelRule{Source: "du?p"}, true},
		{LabelRule{Source: "other"}, false},
		{LabelRule{Folder: "lab/*"}, true},
		{LabelRule{Folder: "lab"}, false},
		{LabelRule{Folder: "."}, false},
		{LabelRule{Size: SizeRange{AtLeast: 40 << 30}}, true},
		{LabelRule{Size: SizeRange{AtLeast: 40<<30 + 1}}, false},
		{LabelRule{Size: SizeRange{Below: 40 << 30}}, false},
		{LabelRule{Size: SizeRange{Below: 40<<30 + 1}}, true},
		{LabelRule{Name: "web-*", Source: "other"}, false},
		{LabelRule{Name: "web-*", Source: "dump", Folder: "lab/*", Size: SizeRange{AtLeast: 1}}, true},
	} {
		c.rule.Label = "new"
		labelled := Repository{Labels: []LabelRule{c.rule, {Label: "prod", Name: "*"}}}.Labelled(point)
		want := []string{"prod"}
		if c.want {
			want = []string{"prod", "new"}
		}
		if !slices.Equal(labelled.Machine.Labels, want) {
			t.Errorf("%+v: %q", c.rule, labelled.Machine.Labels)
		}
	}
	if len(point.Machine.Labels) != 1 {
		t.Error("the point itself was changed")
	}
	point.Origin.Location = "x.vma"
	if got := (Repository{Labels: []LabelRule{{Label: "top", Folder: "."}}}).Labelled(point).Machine.Labels; !slices.Equal(got, []string{"prod", "top"}) {
		t.Errorf("in the root: %q", got)
	}
}

func TestRelativePlacesCountFromTheFile(t *testing.T) {
	for _, c := range []struct{ written, want Repository }{
		{
			Repository{Location: "images", Passphrase: SecretRef{File: "../keys/a"}, Identity: SecretRef{Environment: "X"}},
			Repository{Location: "/etc/ferry/images", Passphrase: SecretRef{File: "/etc/keys/a"}, Identity: SecretRef{Environment: "X"}},
		},
		{Repository{Location: "/mnt/x", Passphrase: SecretRef{Command: "cat y"}}, Repository{Location: "/mnt/x", Passphrase: SecretRef{Command: "cat y"}}},
		{Repository{Location: "s3://bucket/x", Credentials: SecretRef{File: "aws"}}, Repository{Location: "s3://bucket/x", Credentials: SecretRef{File: "/etc/ferry/aws"}}},
	} {
		if got := c.written.Located("/etc/ferry"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v", got)
		}
	}
}
