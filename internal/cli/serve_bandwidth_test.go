package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/pace"
	"ferry/internal/policy"
)

// The limit of the server holds for all that crosses a network together, at the times that it names, and for nothing near.
func TestBandwidthInAll(t *testing.T) {
	zone := time.Local
	time.Local = time.UTC
	defer func() { time.Local = zone }()
	var f bandwidthFlag
	for _, text := range []string{"8MB/s", "1MB/s sat,sun 00:00-24:00"} {
		if err := f.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "fast", "1MB/s at night"} {
		if (&bandwidthFlag{}).Set(text) == nil {
			t.Errorf("%q was taken for a limit", text)
		}
	}
	folder := t.TempDir()
	var limits policy.Bandwidth
	synctest.Test(t, func(t *testing.T) { // begins on a Saturday
		a := &app{limits: &pace.Limits{}}
		for _, text := range f {
			limit, err := policy.ParseLimit(text, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			limits = append(limits, limit)
		}
		a.limits.Set(inAll, limits)
		took := func(locations ...string) time.Duration {
			start := time.Now()
			for _, location := range locations {
				r := a.asResource(policy.Repository{Name: location, Location: location})
				r.ofJob = a.limits.Limit("job of "+location, nil)
				for range 10 {
					if err := r.pace()(t.Context(), 1e6); err != nil {
						t.Fatal(err)
					}
				}
			}
			return time.Since(start)
		}
		if got := took(folder); got != 0 {
			t.Errorf("a local folder waited %s", got)
		}
		if got := took("s3://one/vault", "s3://two/vault"); got < 19*time.Second || got > 20*time.Second {
			t.Errorf("20 MB took %s on a Saturday", got)
		}
		time.Sleep(3 * 24 * time.Hour)
		if got := took("s3://one/vault", "s3://two/vault"); got < 2*time.Second || got > 2500*time.Millisecond {
			t.Errorf("20 MB took %s on a Tuesday", got)
		}
	})
}

// A server that has a bucket does not start with a limit that no bucket can be kept to.
func TestServeRefusesALimitThatNoBucketKeeps(t *testing.T) {
	dir := t.TempDir()
	known, err := catalog.Open(t.Context(), filepath.Join(dir, "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = known.Resources.Put(t.Context(), kindRepository, "vault", "kind: Repository\nname: vault\nlocation: s3://backups/vault\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := known.Close(); err != nil {
		t.Fatal(err)
	}
	_, errOut := run(t, ExitUsage, "serve", "--state", dir, "--socket", filepath.Join(dir, "s"), "--bandwidth", "8Mbit/s", "--bandwidth", "1Mbit/s mon-fri 08:00-18:00")
	if !strings.Contains(errOut, "1Mbit/s is lower than a bucket, repository vault, can be kept to") || !strings.Contains(errOut, "at least 4Mbit/s") {
		t.Errorf("%s", errOut)
	}
}
