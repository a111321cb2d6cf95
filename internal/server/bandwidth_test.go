package server

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// bucketYAML is a repository in a bucket.
func bucketYAML(name string) string {
	return strings.Replace(repositoryYAML(name), "/srv/"+name, "s3://backups/"+name, 1)
}

// refused fails unless documents are refused for one mistake, and change nothing.
func (f *fixture) refused(documents string, want api.Mistake) {
	f.t.Helper()
	before := f.stored()
	got := f.expect(422, "POST", api.PathApply, asJSON(api.Apply{Documents: documents}))
	if !reflect.DeepEqual(got.problem.Mistakes, []api.Mistake{want}) || f.stored() != before {
		f.t.Errorf("%s\nis answered %s", documents, got.body)
	}
}

// A limit that a bucket cannot be kept to is refused when it is applied, whichever of job and repository comes second.
func TestLimitsThatNoBucketKeeps(t *testing.T) {
	slow := jobYAML("offsite", "pve", "vault", `bandwidth: [{limit: 8Mbit/s}, {limit: 1Mbit/s, when: "sat 00:00-24:00"}]`+"\n")
	mistake := api.Mistake{
		Line: 5, Column: 31, Path: "bandwidth[1]", Text: "1Mbit/s is lower than a bucket, repository vault, can be kept to", Hint: "at least 4Mbit/s",
	}
	f := newFixture(t)
	f.applied(repositoryYAML("pve") + "---\n" + bucketYAML("vault"))
	f.refused(slow, mistake)
	f.refused(bucketYAML("vault")+"bandwidth: [{limit: 3Mbit/s}]\n", api.Mistake{
		Line: 4, Column: 13, Path: "bandwidth[0]", Text: "3Mbit/s is lower than a bucket can be kept to", Hint: "at least 4Mbit/s",
	})

	f = newFixture(t)
	f.applied(repositoryYAML("pve") + "---\n" + repositoryYAML("vault") + "---\n" + slow)
	mistake.Resource = "job offsite"
	f.refused(bucketYAML("vault"), mistake)
	mistake.Text = strings.Replace(mistake.Text, "vault", "pve", 1) // a source counts as well
	f.refused(bucketYAML("pve"), mistake)
	f.applied(bucketYAML("pve") + "---\n" + jobYAML("offsite", "pve", "vault"))
}

// begin has the limits of all jobs together hold, as when the server starts, and returns what is wrong with them.
func (f *fixture) begin() string {
	f.t.Helper()
	problems, err := f.HoldBandwidth(f.t.Context())
	must(f.t, err)
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.Text)
	}
	return strings.Join(texts, ", ")
}

// Where the limit in all is one that a bucket cannot be kept to, none is taken; where a bucket is, such a limit is refused, and the
// server says so as it starts.
func TestLimitInAllThatNoBucketKeeps(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Bandwidth = []string{"8Mbit/s", "1Mbit/s sat,sun 00:00-24:00"} })
	f.applied(repositoryYAML("pve"))
	if got := f.begin(); got != "" {
		t.Errorf("of folders: %s", got)
	}
	f.refused(bucketYAML("vault"), api.Mistake{
		Line: 3, Column: 11, Path: "location", Text: "of the limits of all jobs together, 1Mbit/s is lower than a bucket can be kept to", Hint: "ferry bandwidth sets them: at least 4Mbit/s",
	})
	f.expect(200, "PUT", api.PathBandwidth, `{"limits": ["4Mbit/s"]}`, "If-Match", `"0"`)
	f.applied(bucketYAML("vault"))
	for method, body := range map[string]string{"PUT": `{"limits": ["4Mbit/s", "3Mbit/s"]}`, "DELETE": ""} {
		got := f.expect(422, method, api.PathBandwidth, body, "If-Match", "*")
		if len(got.problem.Mistakes) != 1 || got.problem.Mistakes[0].Path != "limits[1]" || !strings.Contains(got.problem.Mistakes[0].Text, "repository vault") {
			t.Errorf("%s: %s", method, got.body)
		}
	}
	must(t, f.Catalog.Resources.Delete(t.Context(), kindBandwidth, allJobs, 2))
	if got := f.begin(); got != "1Mbit/s is lower than a bucket, repository vault, can be kept to" {
		t.Errorf("of a bucket: %s", got)
	}

	// Whether a bucket can be kept to a limit is not known while resources have mistakes: none is stored, and the server starts.
	old, err := f.Catalog.Resources.Put(t.Context(), kindJob, "old", jobYAML("old", "pve", "vault", "gone: 1\n"), 0)
	must(t, err)
	for method, body := range map[string]string{"PUT": `{"limits": ["1Mbit/s"]}`, "DELETE": ""} {
		got := f.expect(500, method, api.PathBandwidth, body, "If-Match", "*")
		if got.problem.Detail != "resources that are stored have mistakes: job old" || got.problem.Hint != "apply them anew, or delete them" {
			t.Errorf("%s with mistakes: %s", method, got.body)
		}
	}
	if _, err := f.Catalog.Resources.Get(t.Context(), kindBandwidth, allJobs); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("with mistakes: %v", err)
	}
	for _, body := range []string{`{"limits": []}`, `{"limits": ["4Mbit/s"]}`} { // what any bucket can be kept to can be set all the same
		f.expect(200, "PUT", api.PathBandwidth, body, "If-Match", "*")
	}
	set, err := f.Catalog.Resources.Get(t.Context(), kindBandwidth, allJobs)
	must(t, err)
	must(t, f.Catalog.Resources.Delete(t.Context(), kindBandwidth, allJobs, set.Version))
	if got := f.begin(); got != "" {
		t.Errorf("with mistakes: %s", got)
	}
	must(t, f.Catalog.Resources.Delete(t.Context(), kindJob, "old", old.Version))
}

// A limit that somebody has set holds, also where a bucket cannot be kept to it: only a server that has started can be told another.
func TestStoredLimitInAllThatNoBucketKeeps(t *testing.T) {
	var held policy.Bandwidth
	f := newFixture(t, func(o *Options) { o.Limit = func(b policy.Bandwidth) { held = b } })
	f.applied(bucketYAML("vault"))
	_, err := f.Catalog.Resources.Put(t.Context(), kindBandwidth, allJobs, "1Mbit/s", 0) // by a program that was less strict
	must(t, err)
	if got := f.begin(); got != "" || len(held) != 1 || held[0].Rate != 1e6/8 {
		t.Errorf("%s; %v holds", got, held)
	}
	if log := f.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "1Mbit/s is lower than a bucket, repository vault, can be kept to") ||
		!strings.Contains(log, "ferry bandwidth sets another: at least 4Mbit/s") {
		t.Errorf("the log has %s", log)
	}
	f.expect(200, "PUT", api.PathBandwidth, `{"limits": ["4Mbit/s"]}`, "If-Match", "*")
	f.log.Reset()
	if got := f.begin(); got != "" || len(held) != 1 || held[0].Rate != policy.BucketRate || strings.Contains(f.log.String(), "WARN") {
		t.Errorf("once another is set: %s; %v holds; the log has %s", got, held, f.log)
	}
}

// A server starts also where the limits that somebody has set cannot be read, with those of the options, says so, and can be told others.
func TestStoredLimitThatCannotBeRead(t *testing.T) {
	for _, method := range []string{"PUT", "DELETE"} {
		var held policy.Bandwidth
		f := newFixture(t, func(o *Options) { o.Bandwidth, o.Limit = []string{"80MB/s"}, func(b policy.Bandwidth) { held = b } })
		stored, err := f.Catalog.Resources.Put(t.Context(), kindBandwidth, allJobs, "40MB/s\n1MB/s at night", 0) // by another version
		must(t, err)
		if got := f.begin(); got != "" || len(held) != 1 || held[0].Rate != 80e6 {
			t.Errorf("%s; %v holds", got, held)
		}
		if log := f.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "at night") || !strings.Contains(log, "ferry bandwidth sets another") {
			t.Errorf("the log has %s", log)
		}
		var now api.Bandwidth
		f.read(f.expect(200, "GET", api.PathBandwidth, ""), &now)
		if !slices.Equal(now.Limits, []string{"80MB/s"}) || !now.Since.IsZero() || now.Version != stored.Version {
			t.Errorf("%+v", now)
		}
		f.expect(200, method, api.PathBandwidth, map[string]string{"PUT": `{"limits": ["20MB/s"]}`}[method], "If-Match", etag(stored.Version))
		f.log.Reset()
		want := map[string]policy.Rate{"PUT": 20e6, "DELETE": 80e6}[method]
		if got := f.begin(); got != "" || len(held) != 1 || held[0].Rate != want || strings.Contains(f.log.String(), "cannot be read") {
			t.Errorf("after %s: %s; %v holds; the log has %s", method, got, held, f.log)
		}
	}
}

// The limits of all jobs together are changed while the server runs, hold after a restart in place of those of the options, and are
// these again when somebody says so. Who changes them says which he knows.
func TestBandwidthIsChanged(t *testing.T) {
	var held []policy.Bandwidth
	options := func(o *Options) {
		o.Bandwidth, o.Limit = []string{"80MB/s"}, func(b policy.Bandwidth) { held = append(held, b) }
	}
	f := newFixture(t, options)
	rates := func() (list []policy.Rate) {
		for _, limits := range held {
			for _, limit := range limits {
				list = append(list, limit.Rate)
			}
			list = append(list, 0)
		}
		held = nil
		return list
	}
	ask := func(status int, method, body string, header ...string) (b api.Bandwidth) {
		t.Helper()
		got := f.expect(status, method, api.PathBandwidth, body, header...)
		if status == 200 {
			f.read(got, &b)
			if got.header.Get("ETag") != etag(b.Version) {
				t.Errorf("%s has the ETag %s", got.body, got.header.Get("ETag"))
			}
		}
		return b
	}
	want := func(what string, got api.Bandwidth, limits []string, now int64, set bool, told ...policy.Rate) {
		t.Helper()
		if !slices.Equal(got.Limits, limits) || got.Now != now || got.Since.IsZero() == set {
			t.Errorf("%s: %+v", what, got)
		}
		if rates := rates(); !slices.Equal(rates, told) {
			t.Errorf("%s: %v were to hold, not %v", what, rates, told)
		}
	}
	f.begin()
	want("at first", ask(200, "GET", ""), []string{"80MB/s"}, 80e6, false, 80e6, 0)
	ask(428, "PUT", `{"limits": []}`)
	ask(412, "PUT", `{"limits": []}`, "If-Match", `"7"`)
	ask(422, "PUT", `{"limits": ["fast"]}`, "If-Match", "*")
	ask(422, "PUT", `{"limits": ["1MB/s\nsun 00:00-24:00 mon"]}`, "If-Match", "*")
	ask(422, "PUT", `{}`, "If-Match", "*")
	set := ask(200, "PUT", `{"limits": [" 20MB/s ", "10MB/s  mon-sun\n00:00-24:00"]}`, "If-Match", `"0"`)
	want("set", set, []string{"20MB/s", "10MB/s mon-sun 00:00-24:00"}, 10e6, true, 20e6, 10e6, 0)
	if f.stored() != "" || f.expect(200, "GET", api.PathResources, "").body != "[]\n" {
		t.Error("it is among the resources")
	}
	f.Server = New(f.Options)
	f.begin()
	want("after a restart", ask(200, "GET", ""), set.Limits, 10e6, true, 20e6, 10e6, 0)
	ask(412, "DELETE", "", "If-Match", `"0"`)
	want("none", ask(200, "PUT", `{"limits": []}`, "If-Match", etag(set.Version)), []string{}, 0, true, 0)
	want("as at first", ask(200, "DELETE", "", "If-Match", "*"), []string{"80MB/s"}, 80e6, false, 80e6, 0)
	want("and again", ask(200, "DELETE", "", "If-Match", `"0"`), []string{"80MB/s"}, 80e6, false, 80e6, 0)
	want("set once more", ask(200, "PUT", `{"limits": ["30MB/s"]}`, "If-Match", `"0"`), []string{"30MB/s"}, 30e6, true, 30e6, 0)
}
