package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bucketOf serves the files of a folder as an S3 server serves a bucket to who only reads, and returns its location.
func bucketOf(t *testing.T, folder string) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Has("versioning") {
			_, _ = io.WriteString(w, "<VersioningConfiguration></VersioningConfiguration>")
			return
		}
		if query.Has("list-type") {
			answer := "<ListBucketResult>"
			_ = filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
				name, _ := filepath.Rel(folder, path)
				if err == nil && !entry.IsDir() && strings.HasPrefix(name, query.Get("prefix")) && name > query.Get("start-after") {
					info, _ := entry.Info()
					answer += fmt.Sprintf("<Contents><Key>%s</Key><Size>%d</Size><LastModified>2026-11-27T03:00:00.000Z</LastModified></Contents>", name, info.Size())
				}
				return err
			})
			_, _ = io.WriteString(w, answer+"</ListBucketResult>")
			return
		}
		content, err := os.ReadFile(filepath.Join(folder, strings.TrimPrefix(r.URL.Path, "/bucket/")))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
			}
			return
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC), bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	return "s3+" + server.URL + "/bucket?region=us-east-1"
}

// A repository in a bucket whose log is damaged is an alarm of the job, and no reason not to copy what its other sources have: as one
// in a folder is.
func TestDamagedRepositoryInABucket(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"web", "db"} {
		if err := os.MkdirAll(in("images"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in("images/"+name+".raw"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, ExitDone, "copy", in("images"), in("bucket"), "--create")
	}
	location := bucketOf(t, in("bucket"))
	jobs := fmt.Sprintf(`{kind: Repository, name: remote, location: "%s"}
---
{kind: Repository, name: images, location: %s}
---
{kind: Repository, name: vault, location: %s}
---
{kind: Job, name: offsite, source: {repositories: [remote, images]}, target: {repository: vault}}
`, location, in("images"), in("vault"))
	if err := os.WriteFile(in("job.yaml"), []byte(jobs), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ExitDone, "points", location)
	run(t, ExitDone, "repo", "init", in("vault"))
	if err := os.Remove(in("bucket/log/000000000002")); err != nil {
		t.Fatal(err)
	}
	_, errOut := run(t, ExitDamaged, "points", location, "--cache-dir", in("fresh"))
	if !strings.Contains(errOut, "log/000000000002 in "+location) {
		t.Errorf("points says %s", errOut)
	}
	out, _ := run(t, ExitSomeFailed, "job", "run", "--once", "-f", in("job.yaml"), "--cache-dir", in("fresh"))
	if !strings.Contains(out, "ALARM  source remote is not listed whole: log/000000000002 in "+location+": corrupt") || !strings.Contains(out, "job offsite: some failed; 2 copied") {
		t.Errorf("the job says %s", out)
	}
}
