package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"

	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/scheduler"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// week is a server that lives some days with two jobs: a real scheduler and catalog, repositories and sources in memory, and the clock
// of the test's bubble.
type week struct {
	*Server
	t       *testing.T
	targets map[string]*memory.Store

	mu sync.Mutex // guards what follows
	// points are those of each source; away are the targets that are not there.
	points map[string][]*sourcetest.Point
	away   map[string]bool
	// link is taken by whoever reads a point.
	link chan struct{}
}

const (
	mebibyte = 1 << 20
	// listing is how long it takes to list a source, checking a health check at least, and reading one MiB.
	listing, checking, reading = 10 * time.Second, 7 * time.Second, 4 * time.Second
	// room is what the storage of a target has in all.
	room = 1 << 30
)

func (w *week) prepare(_ context.Context, resources policy.Resources, name string) (job.Setup, error) {
	of, _ := resources.Job(name)
	setup := job.Setup{Job: of.Effective(), Document: "kind: Job\n", Checking: func(*repo.VerifyProgress) { time.Sleep(checking) }}
	setup.Copy.Codec = mover.CodecNone
	for _, origin := range resources.Origins(of) {
		setup.Sources = append(setup.Sources, job.Place{Origin: origin, Open: func(context.Context) (*registry.Source, error) {
			time.Sleep(listing)
			w.mu.Lock()
			defer w.mu.Unlock()
			return sourcetest.Open(w.t, w.points[origin.Repository.Name]...), nil
		}})
	}
	into := of.Target.Repository
	setup.Target = job.Goal{Name: into, Slots: 1, Location: "memory", Open: func(ctx context.Context) (*repo.Repository, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.away[into] {
			return nil, fmt.Errorf("%w at /srv/%s", repo.ErrNoRepository, into)
		}
		return repo.Open(ctx, w.targets[into], repo.Environment{})
	}}
	return setup, nil
}

// backs makes a point of a machine in a source, of new random content.
func (w *week) backs(in, machine string, mebibytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data := make([]byte, mebibytes*mebibyte)
	random := rand.NewChaCha8([32]byte{byte(len(w.points[in])), byte(len(machine))})
	_, _ = random.Read(data)
	p := &sourcetest.Point{
		Machine: sourcetest.Machine(machine), Native: machine + time.Now().String(), Created: time.Now(),
		Objects: []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}},
	}
	p.OnRead = func(_ int, _ int64, n int) (int, error) {
		w.link <- struct{}{}
		defer func() { <-w.link }()
		time.Sleep(time.Duration(n) * reading / mebibyte)
		return n, nil
	}
	w.points[in] = append(w.points[in], p)
}

// at waits until the hour of a day, from 1.
func (w *week) at(day, hour int) {
	time.Sleep(time.Until(time.Date(2000, 1, day, hour, 0, 0, 0, time.UTC)))
	synctest.Wait()
}

// scraped are the metrics without those of the process: a line for each, as in the table of TestMetricsOfAWeek. Of figures the test
// knows another way to, only the series are there.
func (w *week) scraped(apart ...string) (metrics map[string]string, values map[string]float64) {
	f := &fixture{Server: w.Server, t: w.t}
	metrics, values = map[string]string{}, map[string]float64{}
	for line := range strings.Lines(f.expect(200, "GET", api.PathMetrics, "").body) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "ferry_go_") || strings.Contains(line, "ferry_process_") {
			continue
		}
		if name, found := strings.CutPrefix(line, "# TYPE "); found && !strings.HasSuffix(name, " gauge") {
			w.t.Errorf("%s is no gauge", name)
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.LastIndex(line, " ") // a phase's name has one too
		series := line[:end]
		value, err := strconv.ParseFloat(line[end+1:], 64)
		must(w.t, err)
		values[series] = value
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		cell := strings.NewReplacer(`"`, "", ",", " ").Replace(labels)
		if !slices.Contains(apart, name) {
			cell += " " + shown(name, value)
		}
		if metrics[name] != "" {
			metrics[name] += " | "
		}
		metrics[name] += strings.TrimSpace(cell)
	}
	return metrics, values
}

// shown is a value as a person checks it: times as such, and bytes in MiB.
func shown(name string, value float64) string {
	switch {
	case strings.Contains(name, "_timestamp_"):
		return time.UnixMilli(int64(value * 1000)).UTC().Format("2T15:04:05")
	case strings.HasSuffix(name, "_bytes") && value >= mebibyte && int64(value)%mebibyte == 0:
		return fmt.Sprintf("%gMiB", value/mebibyte)
	}
	return strconv.FormatFloat(value, 'f', -1, 64)
}

// packed is what the packs of a target take.
func (w *week) packed(target string) (total int64) {
	for _, name := range w.targets[target].Names("packs/") {
		info, err := w.targets[target].Stat(w.t.Context(), name)
		must(w.t, err)
		total += info.Size
	}
	return total
}

func inWeek(t *testing.T, live func(w *week)) {
	warm(t)
	synctest.Test(t, func(t *testing.T) {
		stored, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
		must(t, err)
		defer func() { must(t, stored.Close()) }()
		w := &week{t: t, targets: map[string]*memory.Store{}, points: map[string][]*sourcetest.Point{}, away: map[string]bool{}, link: make(chan struct{}, 1)}
		for _, name := range []string{"vault", "shelf", "usb"} {
			w.targets[name] = memory.New()
			w.targets[name].SetSpace(room)
			r, err := repo.Init(t.Context(), w.targets[name], repo.Environment{}, repo.Options{})
			must(t, err)
			must(t, r.Close())
		}
		log := newLog(&bytes.Buffer{})
		runs := scheduler.New(stored, scheduler.Options{Prepare: w.prepare, Owner: "server", Sole: true, Slots: 1, Log: log})
		w.Server = New(Options{Catalog: stored, Scheduler: runs, Version: "1.2.3", Log: log})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- runs.Run(ctx) }()
		defer func() {
			cancel()
			must(t, <-ended)
		}()
		live(w)
	})
}

// warmed is true once what all repositories of a process share was made: it must not be a bubble's.
var warmed bool

func warm(t *testing.T) {
	if warmed {
		return
	}
	warmed = true
	r, err := repo.Init(t.Context(), memory.New(), repo.Environment{}, repo.Options{})
	must(t, err)
	defer r.Close()
	p := &sourcetest.Point{Machine: sourcetest.Machine("a"), Native: "a", Objects: []sourcetest.Object{{Name: "vda", Data: []byte("a"), Access: source.AccessRandom}}}
	from := sourcetest.Open(t, p)
	_, err = job.Copy(t.Context(), from, r, plan.Plan{Steps: []plan.Step{{Point: from.Points[0].Point, Action: plan.ActionCopy}}}, job.Options{Codec: mover.CodecNone})
	must(t, err)
	_, err = r.Verify(t.Context(), nil)
	must(t, err)
}

// Offsite copies web and db every day, which are backed up at 20:00; near copies mail, and attic what near has copied. Spare's target
// goes away.
const weekYAML = `{kind: Repository, name: pve, location: /srv/pve}
---
{kind: Repository, name: xen, location: /srv/xen}
---
{kind: Repository, name: vault, location: /srv/vault}
---
{kind: Repository, name: shelf, location: /srv/shelf}
---
{kind: Repository, name: usb, location: /srv/usb}
---
kind: Job
name: offsite
source: {repositories: [pve]}
target: {repository: vault}
schedule: {every: 1d, at: "22:00"}
healthCheck: {every: 1d}
rpo: 26h
---
kind: Job
name: near
source: {repositories: [xen]}
target: {repository: shelf}
schedule: {every: 1d, at: "06:00"}
healthCheck: {every: 2d}
retention: {points: 3}
rpo: 48h
---
kind: Job
name: attic
source: {repositories: [xen]}
target: {repository: shelf}
schedule: {after: near}
---
kind: Job
name: spare
source: {repositories: [pve]}
target: {repository: usb}
select: {include: [web]}
schedule: {every: 1d, at: "23:00"}
---
kind: Job
name: never
source: {repositories: [pve]}
target: {repository: usb}
schedule: {mode: manual}
`

// fifthNight are all metrics at one in the morning of the 6th.
//
//   - Listing takes 10 s, checking 7 s, reading 4 s a MiB. A session that has copied something lists once more: near takes 10 + 4 + 10 s,
//     attic, which finds in the target what it is to copy, 10 s. Offsite checks, and then tries db again for two minutes.
//   - Points are made at 2:00 in xen, and at 20:00 in pve. Mail's last has one MiB, those before have three; old was made once.
//     What near gives up attic keeps: five of mail and one of old are 3 + 3 + 3 + 3 + 1 + 1 MiB.
//   - Old was found missing at the end of near's session of the 3rd, which read three MiB: 10 + 12 + 10 s.
//   - Near's target was checked on the 2nd and the 4th, 43 hours ago but for 7 s; offsite's at 22:00:07, 3 hours ago but for 7 s. Each
//     session writes one pack of blocks and one of nodes.
const fifthNight = `
ferry_alarms: kind=failed level=warning 1 | kind=rpo level=critical 2 | kind=target level=warning 1
ferry_catalog_up: 1
ferry_info: version=1.2.3 1
ferry_job_catch_up_seconds: job=attic 0 | job=near 0 | job=offsite 8 | job=spare 4
ferry_job_enabled: job=attic 1 | job=near 1 | job=never 0 | job=offsite 1 | job=spare 1
ferry_job_last_session_begin_timestamp_seconds: job=attic 5T06:00:24 | job=near 5T06:00:00 | job=offsite 5T22:00:00 | job=spare 4T23:00:00
ferry_job_last_session_damaged_points: job=attic 0 | job=near 0 | job=offsite 0 | job=spare 0
ferry_job_last_session_duration_seconds: job=attic 10 | job=near 24 | job=offsite 126 | job=spare 24
ferry_job_last_session_end_timestamp_seconds: job=attic 5T06:00:34 | job=near 5T06:00:24 | job=offsite 5T22:02:06 | job=spare 4T23:00:24
ferry_job_last_session_phase_duration_seconds: job=attic phase=compact 0 | job=attic phase=health check 0 | job=attic phase=report 0 | job=attic phase=synchronize 10 | job=attic phase=transform 0 |
    job=near phase=compact 0 | job=near phase=health check 0 | job=near phase=report 0 | job=near phase=synchronize 24 | job=near phase=transform 0 |
    job=offsite phase=compact 0 | job=offsite phase=health check 7 | job=offsite phase=report 0 | job=offsite phase=synchronize 119 | job=offsite phase=transform 0 |
    job=spare phase=compact 0 | job=spare phase=health check 0 | job=spare phase=report 0 | job=spare phase=synchronize 24 | job=spare phase=transform 0
ferry_job_last_session_points: job=attic outcome=claimed 1 | job=attic outcome=copied 0 | job=attic outcome=failed 0 | job=attic outcome=removed 0 |
    job=near outcome=claimed 0 | job=near outcome=copied 1 | job=near outcome=failed 0 | job=near outcome=removed 1 | job=offsite outcome=claimed 0 |
    job=offsite outcome=copied 1 | job=offsite outcome=failed 1 | job=offsite outcome=removed 0 | job=spare outcome=claimed 0 |
    job=spare outcome=copied 1 | job=spare outcome=failed 0 | job=spare outcome=removed 0
ferry_job_last_session_read_bytes: job=attic 0 | job=near 1MiB | job=offsite 1MiB | job=spare 1MiB
ferry_job_last_session_state: job=attic state=done 1 | job=near state=done 1 | job=offsite state=partial 1 | job=spare state=done 1
ferry_job_last_session_stored_bytes: job=attic | job=near | job=offsite | job=spare
ferry_job_next_timestamp_seconds: job=near 6T06:00:00 | job=offsite 6T22:00:00 | job=spare 6T23:00:00
ferry_job_running: job=attic 0 | job=near 0 | job=never 0 | job=offsite 0 | job=spare 1
ferry_job_throughput_bytes_per_second: job=near 262144 | job=offsite 262144 | job=spare 262144
ferry_job_to_copy_bytes: job=attic 0 | job=near 0 | job=offsite 2MiB | job=spare 1MiB
ferry_job_to_copy_points: job=attic 0 | job=near 0 | job=offsite 1 | job=spare 1
ferry_machine_copy_age_seconds: job=attic machine=image/fake/mail name=mail 82800 | job=attic machine=image/fake/old name=old 428400 |
    job=near machine=image/fake/mail name=mail 82800 | job=near machine=image/fake/old name=old 428400 |
    job=offsite machine=image/fake/db name=db 104400 | job=offsite machine=image/fake/web name=web 18000 |
    job=spare machine=image/fake/web name=web 104400
ferry_machine_copy_too_old: job=attic machine=image/fake/mail name=mail 0 | job=attic machine=image/fake/old name=old 0 |
    job=near machine=image/fake/mail name=mail 0 | job=near machine=image/fake/old name=old 1 | job=offsite machine=image/fake/db name=db 1 |
    job=offsite machine=image/fake/web name=web 0 | job=spare machine=image/fake/web name=web 0
ferry_machine_lag_bytes: job=attic machine=image/fake/mail name=mail 0 | job=attic machine=image/fake/old name=old 0 |
    job=near machine=image/fake/mail name=mail 0 | job=near machine=image/fake/old name=old 0 | job=offsite machine=image/fake/db name=db 2MiB |
    job=offsite machine=image/fake/web name=web 0 | job=spare machine=image/fake/web name=web 1MiB
ferry_machine_lag_points: job=attic machine=image/fake/mail name=mail 0 | job=attic machine=image/fake/old name=old 0 |
    job=near machine=image/fake/mail name=mail 0 | job=near machine=image/fake/old name=old 0 | job=offsite machine=image/fake/db name=db 1 |
    job=offsite machine=image/fake/web name=web 0 | job=spare machine=image/fake/web name=web 1
ferry_machine_missing_timestamp_seconds: job=attic machine=image/fake/old name=old 3T06:00:32 | job=near machine=image/fake/old name=old 3T06:00:32
ferry_repository_free_bytes: repository=shelf | repository=usb | repository=vault
ferry_repository_full_timestamp_seconds: repository=shelf | repository=usb | repository=vault
ferry_repository_logical_bytes: repository=shelf 14MiB | repository=usb 4MiB | repository=vault 13MiB
ferry_repository_machines: repository=shelf 2 | repository=usb 1 | repository=vault 2
ferry_repository_points: repository=shelf 6 | repository=usb 4 | repository=vault 9
ferry_repository_state: repository=pve state=ready 1 | repository=shelf state=ready 1 | repository=usb state=offline 1 |
    repository=vault state=ready 1 | repository=xen state=ready 1
ferry_repository_stored_bytes: repository=shelf | repository=usb | repository=vault
ferry_repository_unverified_packs: repository=shelf 2 | repository=usb 8 | repository=vault 2
ferry_repository_verification_age_seconds: repository=shelf 154793 | repository=vault 10793
ferry_tasks_running: 0
`

// sixthEvening are some of the metrics while offsite copies web, on the 6th at 22:00:19. Near has found what was spoiled, 7 s, and healed
// what xen still has, 10 + 4 s: two of the points that it keeps are lost, and those of attic with them,
// which had no session after it, since near stored nothing: both are told.
const sixthEvening = `
ferry_alarms: kind=damage level=critical 2 | kind=failed level=warning 1 | kind=rpo level=critical 3 | kind=target level=warning 1
ferry_job_catch_up_seconds: job=attic 0 | job=near 0 | job=offsite 12 | job=spare 4
ferry_job_last_session_damaged_points: job=attic 0 | job=near 2 | job=offsite 0 | job=spare 0
ferry_job_running: job=attic 0 | job=near 0 | job=never 0 | job=offsite 1 | job=spare 1
ferry_job_to_copy_bytes: job=attic 0 | job=near 0 | job=offsite 3MiB | job=spare 1MiB
ferry_job_to_copy_points: job=attic 0 | job=near 0 | job=offsite 2 | job=spare 1
ferry_repository_unverified_packs: repository=shelf 0 | repository=usb 8 | repository=vault 2
ferry_repository_verification_age_seconds: repository=shelf 57612 | repository=vault 86412
ferry_tasks_running: 1
ferry_tasks_waiting: job=offsite 1
`

// table reads lines of metrics; one that ends with a bar goes on.
func table(text string) map[string]string {
	metrics := map[string]string{}
	for line := range strings.Lines(regexp.MustCompile(`\|\n *`).ReplaceAllString(strings.TrimSpace(text), "| ")) {
		name, cells, _ := strings.Cut(strings.TrimSpace(line), ": ")
		metrics[name] = cells
	}
	return metrics
}

// Jobs copy for some days; every metric is what was lived, and no other is there.
func TestMetricsOfAWeek(t *testing.T) {
	inWeek(t, func(w *week) {
		t := w.t
		f := &fixture{Server: w.Server, t: t}
		f.applied(weekYAML)
		must(t, w.Scheduler.Disable(t.Context(), "never"))
		free := map[int]int64{} // of vault, behind each day's session
		for day := 1; day <= 5; day++ {
			w.aDay(day)
			free[day], _, _ = w.targets["vault"].Free(t.Context())
		}
		w.at(6, 1)
		apart := []string{"ferry_job_last_session_stored_bytes", "ferry_repository_free_bytes", "ferry_repository_full_timestamp_seconds", "ferry_repository_stored_bytes"}
		served, values := w.scraped(apart...)
		want := table(fifthNight)
		for name := range maps.Keys(served) {
			if served[name] != want[name] {
				t.Errorf("%s: %s\nwant %s", name, served[name], want[name])
			}
			delete(want, name)
		}
		if len(want) > 0 {
			t.Errorf("not served: %v", want)
		}
		for job, logical := range map[string]float64{"near": mebibyte, "attic": 0, "offsite": mebibyte, "spare": mebibyte} {
			if got := values[`ferry_job_last_session_stored_bytes{job="`+job+`"}`]; got < logical || got > logical*1.001 {
				t.Errorf("%s stored %.f bytes", job, got)
			}
		}
		for name := range w.targets {
			if got, want := values[`ferry_repository_stored_bytes{repository="`+name+`"}`], float64(w.packed(name)); got != want {
				t.Errorf("%s: %.f bytes stored, want %.f", name, got, want)
			}
		}
		if got := values[`ferry_repository_free_bytes{repository="vault"}`]; got != float64(free[5]) {
			t.Errorf("%.f bytes are free, want %d", got, free[5])
		}
		// On each of the first four days vault took as much; the fifth was half a one, which the median passes over.
		days := float64(free[5]) / (float64(free[1]-free[4]) / 3)
		full := time.Unix(int64(values[`ferry_repository_full_timestamp_seconds{repository="vault"}`]), 0)
		if got := time.Until(full).Hours() / 24; got < days*0.99 || got > days*1.01 {
			t.Errorf("full in %.1f days, want %.1f", got, days)
		}
		w.spoilShelf()
		w.at(6, 20)
		w.backs("pve", "web", 1)
		w.backs("pve", "db", 2)
		w.at(6, 22)
		time.Sleep(checking + listing + reading/2)
		later, _ := w.scraped()
		for name, want := range table(sixthEvening) {
			if later[name] != want {
				t.Errorf("later %s: %s\nwant %s", name, later[name], want)
			}
		}
		maps.Copy(served, later)
		checkNames(t, served)
	})
}

// aDay passes until 23:00 of a day.
func (w *week) aDay(day int) {
	w.at(day, 2)
	mailMebibytes := 3
	if day == 5 {
		mailMebibytes = 1
	}
	w.backs("xen", "mail", mailMebibytes)
	switch day {
	case 1:
		w.backs("xen", "old", 1)
	case 3: // it has gone
		w.mu.Lock()
		w.points["xen"] = slices.DeleteFunc(w.points["xen"], func(p *sourcetest.Point) bool { return p.Machine.Name == "old" })
		w.mu.Unlock()
	}
	w.at(day, 20)
	w.backs("pve", "web", 1)
	w.backs("pve", "db", 2)
	if day == 5 {
		w.mu.Lock()
		db := w.points["pve"][len(w.points["pve"])-1]
		db.OnRead = func(int, int64, int) (int, error) { return 0, errors.New("the disk is gone") }
		w.away["usb"] = true
		w.mu.Unlock()
	}
	w.at(day, 23)
}

// spoilShelf flips a bit of every pack of shelf, of whose points xen keeps the newest.
func (w *week) spoilShelf() {
	w.mu.Lock()
	w.points["xen"] = w.points["xen"][len(w.points["xen"])-1:]
	w.mu.Unlock()
	for _, name := range w.targets["shelf"].Names("packs/") {
		must(w.t, w.targets["shelf"].Tamper(name, func(content []byte) []byte {
			content[len(content)/2] ^= 1
			return content
		}))
	}
}

// checkNames wants docs/metrics.md to have what is served and nothing else, and no page to speak of a metric that is not.
func checkNames(t *testing.T, served map[string]string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(ferry_[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = true
		if served[row[1]] == "" {
			t.Errorf("docs/metrics.md has %s, which is not served", row[1])
		}
	}
	for name := range served {
		if !documented[name] {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
	pages, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	for _, name := range append(pages, "../../README.md") {
		page, err := os.ReadFile(name)
		must(t, err)
		for _, named := range regexp.MustCompile(`\bferry_[a-z_]+`).FindAllString(string(page), -1) {
			if served[named] == "" && !strings.HasPrefix(named, "ferry_go_") && !strings.HasPrefix(named, "ferry_process_") {
				t.Errorf("%s speaks of %s, which is not served", name, named)
			}
		}
	}
}
