package api

// The paths of the interface. {kind}, {name} and {id} stand for one segment each.
const (
	PathStatus      = "/v1/status"
	PathResources   = "/v1/resources"               // GET ?kind=
	PathResource    = "/v1/resources/{kind}/{name}" // GET, PUT (If-Match or If-None-Match: *), DELETE (If-Match; ?release=true)
	PathApply       = "/v1/apply"                   // POST Apply -> Applied
	PathJobs        = "/v1/jobs"                    // GET -> []Job
	PathJob         = "/v1/jobs/{name}"             // GET -> Job
	PathJobRun      = "/v1/jobs/{name}/run"         // POST Start -> Started, 202
	PathJobStop     = "/v1/jobs/{name}/stop"        // POST Stop, 202
	PathJobEnable   = "/v1/jobs/{name}/enable"      // POST
	PathJobDisable  = "/v1/jobs/{name}/disable"     // POST
	PathJobExplain  = "/v1/jobs/{name}/explain"     // GET: as `ferry job explain --json` prints it
	PathJobSimulate = "/v1/jobs/{name}/simulate"    // GET ?days=: as `ferry job simulate --json` prints it
	PathAdopt       = "/v1/targets/{name}/adopt"    // POST -> Adopted
	PathSessions    = "/v1/sessions"                // GET ?job=&before=&limit= -> []Session, newest first
	PathSession     = "/v1/sessions/{id}"           // GET -> Session
	PathEvents      = "/v1/sessions/{id}/events"    // GET: server-sent events, each an Event, until the session has ended
	PathRebuild     = "/v1/catalog/rebuild"         // POST Rebuild -> Rebuilt
	PathRetire      = "/v1/machines/retire"         // POST Retire -> Retired
	PathBandwidth   = "/v1/bandwidth"               // GET, PUT SetBandwidth, DELETE (both If-Match) -> Bandwidth
	PathLive        = "/health/live"                // GET -> Health
	PathReady       = "/health/ready"               // GET -> Health, 503 if not
	PathMetrics     = "/metrics"                    // GET: Prometheus text format
	PathDescription = "/openapi.json"               // GET: OpenAPI 3.1
)

// MediaProblem is the media type of errors (RFC 9457).
const MediaProblem = "application/problem+json"
