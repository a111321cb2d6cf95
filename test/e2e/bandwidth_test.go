//go:build integration

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The limits of a source and of a target hold in every ten seconds, by the kernel's count of what the process reads and
// writes, also where several machines are copied at once; and a job's limit is for what lies across a network.
func TestBandwidthOfFolders(t *testing.T) {
	t.Parallel()
	const rate = 16 << 20 // bytes a second
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "images"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // two of them at once
		contentFile(t, filepath.Join(folder, "images", fmt.Sprintf("machine%d.raw", i)), uint64(31+i), 80*mib)
	}
	for _, c := range []struct{ name, ofSource, ofTarget, ofJob, count string }{
		{"source", "16MiB/s", "", "1KiB/s", "rchar"},
		{"target", "", "16MiB/s", "1KiB/s", "wchar"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUser(t)
			vault := filepath.Join(t.TempDir(), "vault")
			u.want(0, "repo", "init", vault)
			limits := func(limit string) string {
				if limit == "" {
					return "[]"
				}
				return fmt.Sprintf("[{limit: %s}]", limit)
			}
			file := filepath.Join(t.TempDir(), "job.yaml")
			text := fmt.Sprintf("{kind: Repository, name: images, location: %q, bandwidth: %s}\n---\n{kind: Repository, name: vault, location: %q, bandwidth: %s}\n---\n"+
				"{kind: Job, name: offsite, source: {repositories: [images]}, target: {repository: vault}, bandwidth: %s}\n",
				filepath.Join(folder, "images"), limits(c.ofSource), vault, limits(c.ofTarget), limits(c.ofJob))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			type sample struct {
				before, after time.Time // the count is of a moment between them
				bytes         int64
			}
			var samples []sample
			r := u.start("job", "run", "--once", "-f", file)
			for !zombie(r) {
				before := time.Now()
				if bytes := countOf(r, c.count); bytes >= 0 {
					samples = append(samples, sample{before, time.Now(), bytes})
				}
				time.Sleep(50 * time.Millisecond)
			}
			if done := r.wait(); done.code != 0 {
				t.Fatalf("exit code %d: %s", done.code, done.err)
			}
			most := int64(0)
			for i, first := range samples {
				for _, s := range samples[i:] {
					if s.after.Sub(first.before) <= 10*time.Second {
						most = max(most, s.bytes-first.bytes)
					}
				}
			}
			t.Logf("at most %.2f of the limit in ten seconds", float64(most)/10/rate)
			if most > 10*rate*105/100 || most < 10*rate/2 {
				t.Errorf("%d bytes in ten seconds, the limit is %d", most, 10*rate)
			}
		})
	}
}
