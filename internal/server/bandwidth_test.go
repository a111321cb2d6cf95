package server

import (
	"reflect"
	"strings"
	"testing"

	"ferry/internal/api"
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

// Where the limit in all is one that a bucket cannot be kept to, none is taken; and where a bucket is, the server says so as it starts.
func TestLimitInAllThatNoBucketKeeps(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Bandwidth = policy.Bandwidth{{Rate: 8e6 / 8}, {Rate: 1e6 / 8}} })
	f.applied(repositoryYAML("pve"))
	if problems, err := f.CheckBandwidth(t.Context()); err != nil || problems != nil {
		t.Errorf("of folders: %v, %v", problems, err)
	}
	f.refused(bucketYAML("vault"), api.Mistake{
		Line: 3, Column: 11, Path: "location", Text: "of the limits of all jobs together, 1Mbit/s is lower than a bucket can be kept to", Hint: "ferry serve --bandwidth sets them: at least 4Mbit/s",
	})
	limits := f.Bandwidth
	f.Bandwidth = nil
	f.applied(bucketYAML("vault"))
	f.Bandwidth = limits
	problems, err := f.CheckBandwidth(t.Context())
	if err != nil || len(problems) != 1 || problems[0].Text != "1Mbit/s is lower than a bucket, repository vault, can be kept to" {
		t.Errorf("of a bucket: %v, %v", problems, err)
	}
}
