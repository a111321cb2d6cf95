package server

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
)

// lived has a job with some machines, all but the last with a copy, and a session that has ended.
func lived(t *testing.T, f *fixture, machines int) {
	t.Helper()
	ctx := context.Background()
	f.applied(threeYAML() + "rpo: 26h\n")
	must(t, f.Catalog.Jobs.Enable(ctx, "offsite"))
	var selected []backup.Machine
	for i := range machines {
		native := itoa(100 + i)
		selected = append(selected, backup.Machine{Key: backup.NewMachineKey(backup.PlatformProxmox, native, "", ""), Name: "vm" + native})
	}
	must(t, f.Catalog.Jobs.Select(ctx, "offsite", selected))
	head := catalog.Head{RepositoryID: "00112233445566778899aabbccddeeff", Number: 1, Checksum: "x"}
	must(t, f.Catalog.Mirror.Replace(ctx, "vault", head, func(yield func(catalog.MirrorPoint, error) bool) {
		for i, m := range selected[:machines-1] {
			p := catalog.MirrorPoint{
				ID: backup.NewPointID(m.Key, "1"), Machine: &selected[i], Created: time.Now().Add(-time.Duration(i+1) * time.Hour), State: backup.StateComplete, Size: 10,
				Claims: []catalog.MirrorClaim{{Job: "offsite", Reason: "short-term"}},
			}
			if !yield(p, nil) {
				return
			}
		}
	}))
	must(t, f.Catalog.Figures.Record(ctx, "vault", catalog.Figure{
		At: time.Now(), Points: int64(machines - 1), Machines: int64(machines - 1), LogicalBytes: 1000, StoredBytes: 500, FreeBytes: catalog.Unknown,
	}))
	_, end := sessionOf(t, f)
	end()
}

// series are the lines of an answer that are no comments.
func series(body string) []string {
	return slices.DeleteFunc(strings.Split(body, "\n"), func(line string) bool { return line == "" || strings.HasPrefix(line, "#") })
}

func TestMetrics(t *testing.T) {
	f := newFixture(t)
	lived(t, f, 3)
	a := f.expect(200, "GET", api.PathMetrics, "")
	age := regexp.MustCompile(`ferry_machine_copy_age_seconds\{job="offsite",machine="[^"]+",name="vm101"\} 72\d\d`)
	if !age.MatchString(a.body) {
		t.Error("the age of vm101's copy is not two hours")
	}
	for _, want := range []string{
		"ferry_catalog_up 1",
		`ferry_info{version="test"} 1`,
		`ferry_job_enabled{job="offsite"} 1`,
		`ferry_job_running{job="offsite"} 0`,
		`ferry_job_last_session_state{job="offsite",state="done"} 1`,
		`ferry_job_last_session_points{job="offsite",outcome="copied"} 1`,
		`ferry_job_last_session_read_bytes{job="offsite"} 4096`,
		`ferry_job_last_session_stored_bytes{job="offsite"} 0`,
		`ferry_repository_points{repository="vault"} 2`,
		`ferry_repository_machines{repository="vault"} 2`,
		`ferry_repository_logical_bytes{repository="vault"} 1000`,
		`ferry_repository_stored_bytes{repository="vault"} 500`,
		`ferry_repository_unverified_packs{repository="vault"} 3`,
		`ferry_repository_verification_age_seconds{repository="vault"} `,
		"ferry_tasks_running 0",
		"ferry_go_goroutines ", "ferry_process_open_fds ",
	} {
		if !slices.ContainsFunc(series(a.body), func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("%q is not there", want)
		}
	}
	for pattern, want := range map[string]int{
		"ferry_machine_copy_age_seconds{": 2, "ferry_machine_copy_too_old{": 3, "ferry_job_last_session_phase_duration_seconds{": 1,
		"ferry_repository_free_bytes{": 0, "ferry_repository_full_timestamp_seconds{": 0, // not known
	} {
		if got := strings.Count(a.body, "\n"+pattern); got != want {
			t.Errorf("%s %d times, not %d", pattern, got, want)
		}
	}
	if to := os.Getenv("FERRY_METRICS"); to != "" { // for promtool check metrics
		must(t, os.WriteFile(to, []byte(a.body), 0o644))
	}
	if t.Failed() {
		t.Log(strings.Join(series(a.body), "\n"))
	}
}

// Without an end of history the number of series is in proportion to machines, and to nothing else.
func TestMetricsAreInProportionToMachines(t *testing.T) {
	count := func(machines, sessions int) int {
		f := newFixture(t)
		lived(t, f, machines)
		for range sessions {
			_, end := sessionOf(t, f)
			end()
		}
		body := f.expect(200, "GET", api.PathMetrics, "").body
		return len(slices.DeleteFunc(series(body), func(line string) bool {
			return strings.HasPrefix(line, "ferry_go_") || strings.HasPrefix(line, "ferry_process_")
		}))
	}
	few, more, later := count(3, 0), count(13, 0), count(3, 10)
	if each := (more - few) / 10; each < 2 || each > 5 || (more-few)%10 != 0 {
		t.Errorf("%d series with 3 machines, %d with 13", few, more)
	}
	if few != later {
		t.Errorf("%d series after one session, %d after eleven", few, later)
	}
}

// Names and help texts are as Prometheus wants them.
func TestMetricsAreWellFormed(t *testing.T) {
	f := newFixture(t)
	lived(t, f, 3)
	problems, err := testutil.CollectAndLint(&collector{look: f.look})
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// Several that scrape within seconds cost one look, and a failure is not kept.
func TestMetricsLookOnce(t *testing.T) {
	looks, failure := 0, errors.New("no catalog")
	c := &collector{look: func(context.Context) (standing, error) {
		looks++
		return standing{Status: api.Status{Version: itoa(looks)}}, failure
	}}
	if got := testutil.CollectAndCount(c); got != 1 { // ferry_catalog_up 0
		t.Errorf("%d series of a catalog that cannot be read", got)
	}
	if got := testutil.CollectAndCount(c); got != 1 || looks != 2 {
		t.Errorf("%d series, %d looks", got, looks)
	}
	failure = nil
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { testutil.CollectAndCount(c) })
	}
	wait.Wait()
	if looks != 3 {
		t.Errorf("%d looks", looks)
	}
	c.at = c.at.Add(-statusKept)
	if testutil.CollectAndCount(c); looks != 4 {
		t.Errorf("%d looks", looks)
	}
}

// docs/metrics.md has each metric with its labels and its help, word by word.
func TestMetricsAreDocumented(t *testing.T) {
	code, err := os.ReadFile("metrics.go")
	must(t, err)
	page, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	found := regexp.MustCompile(`= gauge\("([a-z_]+)", "([^"]+)"((?:, "[a-z]+")*)\)`).FindAllStringSubmatch(string(code), -1)
	if len(found) < 20 {
		t.Fatalf("%d metrics were found in the code", len(found))
	}
	for _, m := range found {
		labels := strings.Trim(strings.ReplaceAll(m[3], `"`, "`"), ", ")
		if row := "| `ferry_" + m[1] + "` | " + labels + " | " + m[2] + " |"; !strings.Contains(string(page), row) {
			t.Errorf("docs/metrics.md lacks\n%s", row)
		}
	}
	if got := strings.Count(string(page), "| `ferry_"); got != len(found) {
		t.Errorf("docs/metrics.md has %d metrics, the code %d", got, len(found))
	}
}
