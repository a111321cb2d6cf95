package server

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ferry/internal/api"
	"ferry/internal/status"
)

// statusKept is how long a look at the status serves for metrics: several that scrape at once cost one look.
const statusKept = 5 * time.Second

// collectTimeout is how long a look for metrics may take.
const collectTimeout = 30 * time.Second

// gauge describes a metric. docs/metrics.md lists all of them, and a test compares the two.
func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ferry_"+name, help, labels, nil)
}

// The metrics. Their number is in proportion to machines in jobs, jobs and repositories; no label has a free text but the
// names that people or sources gave.
var (
	metricInfo = gauge("info", "1, with the version of the server.", "version")
	metricUp   = gauge("catalog_up", "1 if the catalog could be read for these metrics, else 0, and the others of this table and those above are left out.")

	metricCopyAge   = gauge("machine_copy_age_seconds", "Age of the newest good copy that a job has of a machine, from when its source made it. Left out if there is none.", "job", "machine", "name")
	metricTooOld    = gauge("machine_copy_too_old", "1 if the newest copy of a machine is older than its job's rpo allows, or if there is none for that long, else 0.", "job", "machine", "name")
	metricLagPoints = gauge("machine_lag_points", "Complete points of a machine at its sources that are newer than its newest copy. Left out if not known.", "job", "machine", "name")
	metricLagBytes  = gauge("machine_lag_bytes", "What these points hold. Left out if not known.", "job", "machine", "name")
	metricMissing   = gauge("machine_missing_timestamp_seconds", "Since when no source has a machine. Left out if one does.", "job", "machine", "name")

	metricEnabled  = gauge("job_enabled", "1 if the intervals of a job begin by themselves, else 0.", "job")
	metricRunning  = gauge("job_running", "1 if a session of a job has not ended, else 0.", "job")
	metricNext     = gauge("job_next_timestamp_seconds", "When the next interval of a job begins. Left out if none does by itself.", "job")
	metricBegan    = gauge("job_last_session_begin_timestamp_seconds", "When the last session of a job that has ended began.", "job")
	metricEnded    = gauge("job_last_session_end_timestamp_seconds", "When it ended.", "job")
	metricDuration = gauge("job_last_session_duration_seconds", "How long it took.", "job")
	metricState    = gauge("job_last_session_state", "1, with how it ended: done, partial, expired, failed, stopped or not run.", "job", "state")
	metricOutcome  = gauge("job_last_session_points", "Points that it copied, claimed, failed to copy, and gave up.", "job", "outcome")
	metricDamaged  = gauge("job_last_session_damaged_points", "Points of the job that cannot be restored whole, as it found them.", "job")
	metricRead     = gauge("job_last_session_read_bytes", "What it read from sources.", "job")
	metricWritten  = gauge("job_last_session_stored_bytes", "What it added to the target.", "job")
	metricPhase    = gauge("job_last_session_phase_duration_seconds", "How long its phases took.", "job", "phase")

	metricToCopyPoints = gauge("job_to_copy_points", "Points that a job has still to copy. Left out if not known.", "job")
	metricToCopyBytes  = gauge("job_to_copy_bytes", "What these points hold. Left out if not known.", "job")
	metricThroughput   = gauge("job_throughput_bytes_per_second", "Bytes of points that the last sessions of a job copied in a second, while they did. Left out if none has copied yet.", "job")
	metricCatchUp      = gauge("job_catch_up_seconds", "How long it takes at this rate to copy what is still to copy, with what the window leaves. Left out if not known.", "job")

	metricTasksRunning = gauge("tasks_running", "Machines that are worked on now.")
	metricTasksWaiting = gauge("tasks_waiting", "Machines that wait in a session of a job.", "job")

	metricPoints     = gauge("repository_points", "Points in a repository.", "repository")
	metricMachines   = gauge("repository_machines", "Machines that have points in a repository.", "repository")
	metricLogical    = gauge("repository_logical_bytes", "What all points of a repository would take whole.", "repository")
	metricStored     = gauge("repository_stored_bytes", "What a repository takes on its storage.", "repository")
	metricFree       = gauge("repository_free_bytes", "What is left on its storage. Left out if not known.", "repository")
	metricFull       = gauge("repository_full_timestamp_seconds", "When a repository will be full if it goes on like this. Left out if that cannot be said.", "repository")
	metricVerified   = gauge("repository_verification_age_seconds", "How long ago the pack was verified whose last verification is the oldest. Left out if none was.", "repository")
	metricUnverified = gauge("repository_unverified_packs", "Packs that were not verified since they were written.", "repository")
	metricPlace      = gauge("repository_state", "1, with the state in which a session found a repository last, such as ready or offline.", "repository", "state")

	metricAlarms = gauge("alarms", "Alarms that stand, by level and kind.", "level", "kind")
)

// metricsOperation serves what is known of everything, and of this process, to Prometheus.
func (s *Server) metricsOperation(router chi.Router, described huma.API) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{look: s.look})
	// With names of our own: where they are handed on by another program, that has the usual ones itself.
	prometheus.WrapRegistererWithPrefix("ferry_", registry).
		MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	router.Method(http.MethodGet, api.PathMetrics, promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	described.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "metrics", Method: http.MethodGet, Path: api.PathMetrics, Summary: "Metrics in the text format of Prometheus", Tags: []string{"server"},
		Responses: map[string]*huma.Response{
			"200": {Description: "The metrics", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}},
			"503": {Description: "Too many ask at once"},
		},
	})
}

// standing is what metrics are made of.
type standing struct {
	api.Status
	// phases are those of each job's last session.
	phases map[string][]api.Phase
}

// look reads what metrics are made of.
func (s *Server) look(ctx context.Context) (standing, error) {
	seen, err := s.status(ctx, -1)
	if err != nil {
		s.Log.Error("metrics have nothing to tell", "error", err)
		return standing{}, err
	}
	phases := map[string][]api.Phase{}
	for _, j := range seen.Jobs {
		if j.Last == nil {
			continue
		}
		of, err := s.Catalog.Sessions.Phases(ctx, j.Last.ID)
		if err != nil {
			s.Log.Error("metrics have nothing to tell", "error", err)
			return standing{}, err
		}
		for _, phase := range of {
			phases[j.Name] = append(phases[j.Name], status.Phase(phase))
		}
	}
	return standing{seen, phases}, nil
}

// collector makes metrics of a look that is at most some seconds old.
type collector struct {
	look func(context.Context) (standing, error)
	mu   sync.Mutex
	kept standing
	at   time.Time
}

// Describe says nothing: what there is, differs from look to look.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect makes the metrics.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	seen, err := c.current()
	m := metrics{to}
	if err != nil {
		m.gauge(metricUp, 0)
		return
	}
	m.gauge(metricUp, 1)
	m.gauge(metricInfo, 1, seen.Version)
	for _, of := range seen.Machines {
		m.machine(of, seen.At)
	}
	for _, j := range seen.Jobs {
		m.job(j, seen.phases[j.Name])
	}
	m.gauge(metricTasksRunning, float64(len(seen.Running)))
	m.waiting(seen.Waiting)
	for _, r := range seen.Repositories {
		m.repository(r, seen.At)
	}
	m.alarms(seen.Alarms)
}

func (c *collector) current() (standing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < statusKept {
		return c.kept, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	seen, err := c.look(ctx)
	if err == nil {
		c.kept, c.at = seen, time.Now()
	}
	return seen, err
}

// metrics is where metrics go.
type metrics struct{ to chan<- prometheus.Metric }

func (m metrics) gauge(of *prometheus.Desc, value float64, labels ...string) {
	m.to <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, value, labels...)
}

// known is gauge for a figure that may be api.Unknown.
func (m metrics) known(of *prometheus.Desc, value int64, labels ...string) {
	if value != api.Unknown {
		m.gauge(of, float64(value), labels...)
	}
}

// time is gauge for a time, which may be zero.
func (m metrics) time(of *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		m.gauge(of, float64(at.UnixMilli())/1000, labels...)
	}
}

// flag is gauge for yes and no.
func (m metrics) flag(of *prometheus.Desc, yes bool, labels ...string) {
	m.gauge(of, map[bool]float64{true: 1}[yes], labels...)
}

func (m metrics) machine(of api.Copy, now time.Time) {
	labels := []string{of.Job, of.Machine.ID, of.Machine.Name}
	if of.Point != "" {
		m.gauge(metricCopyAge, now.Sub(of.Created).Seconds(), labels...)
	}
	m.flag(metricTooOld, of.TooOld, labels...)
	m.known(metricLagPoints, of.LagPoints, labels...)
	m.known(metricLagBytes, of.LagBytes, labels...)
	m.time(metricMissing, of.Missing, labels...)
}

func (m metrics) job(j api.Job, phases []api.Phase) {
	m.flag(metricEnabled, j.Enabled, j.Name)
	m.flag(metricRunning, j.Running != 0, j.Name)
	m.time(metricNext, j.Next, j.Name)
	if j.Lag != nil {
		m.known(metricToCopyPoints, j.Lag.Points, j.Name)
		m.known(metricToCopyBytes, j.Lag.Bytes, j.Name)
		m.known(metricThroughput, j.Lag.Rate, j.Name)
		m.known(metricCatchUp, j.Lag.CatchUp, j.Name)
	}
	if j.Last == nil {
		return
	}
	m.time(metricBegan, j.Last.Began, j.Name)
	m.time(metricEnded, j.Last.Ended, j.Name)
	m.gauge(metricDuration, j.Last.Ended.Sub(j.Last.Began).Seconds(), j.Name)
	m.gauge(metricState, 1, j.Name, j.Last.State)
	for _, outcome := range []string{"copied", "claimed", "failed", "removed"} {
		m.gauge(metricOutcome, float64(j.Last.Counts[outcome]), j.Name, outcome)
	}
	m.gauge(metricDamaged, float64(j.Last.Counts["damagedPoints"]), j.Name)
	m.gauge(metricRead, float64(j.Last.Counts["readBytes"]), j.Name)
	m.gauge(metricWritten, float64(j.Last.Counts["storedBytes"]), j.Name)
	took := map[string]time.Duration{} // a phase that was interrupted and entered again is there twice
	for _, phase := range phases {
		if !phase.Ended.IsZero() {
			took[phase.Name] += phase.Ended.Sub(phase.Began)
		}
	}
	for name, length := range took {
		m.gauge(metricPhase, length.Seconds(), j.Name, name)
	}
}

func (m metrics) waiting(waits []api.Wait) {
	tasks := map[string]int64{}
	for _, wait := range waits {
		tasks[wait.Job] += wait.Tasks
	}
	for job, n := range tasks {
		m.gauge(metricTasksWaiting, float64(n), job)
	}
}

func (m metrics) repository(r api.Repository, now time.Time) {
	m.known(metricPoints, r.Points, r.Name)
	m.known(metricMachines, r.Machines, r.Name)
	m.known(metricLogical, r.Logical, r.Name)
	m.known(metricStored, r.Stored, r.Name)
	m.known(metricFree, r.Free, r.Name)
	m.time(metricFull, r.Full, r.Name)
	if !r.Verified.IsZero() {
		m.gauge(metricVerified, now.Sub(r.Verified).Seconds(), r.Name)
	}
	m.known(metricUnverified, r.Unverified, r.Name)
	if r.State != "" {
		m.gauge(metricPlace, 1, r.Name, r.State)
	}
}

func (m metrics) alarms(list []api.Alarm) {
	standing := map[[2]string]int{}
	for _, alarm := range list {
		standing[[2]string{alarm.Level, alarm.Kind}]++
	}
	for of, n := range standing {
		m.gauge(metricAlarms, float64(n), of[0], of[1])
	}
}
