// Package client asks a Ferry server on its Unix socket: a method for each operation of its interface (docs/api.md).
//
// An error is an [*Error] if the server refused, wraps [ErrNoServer] if none is there, and is whatever else went wrong on
// the way otherwise.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ferry/internal/api"
)

// ErrNoServer: nothing listens on the socket.
var ErrNoServer = errors.New("no server runs there")

// Error is why the server did not do what it was asked for.
type Error struct{ api.Problem }

func (e *Error) Error() string { return e.Detail }

const (
	// dialTimeout is how long a server may take to take a connection.
	dialTimeout = 10 * time.Second
	// liveTimeout is how long a server may take to say that it lives.
	liveTimeout = 10 * time.Second
	// answerLimit is the largest answer that is read, in bytes: a session with its report.
	answerLimit = 256 << 20
	// problemLimit is the largest problem, in bytes.
	problemLimit = 1 << 20
)

// Client asks one server. It may be used by several goroutines, and holds nothing that has to be closed.
type Client struct {
	http *http.Client
	// again is how long Follow waits before it asks anew, silence how long a server may say nothing meanwhile: it sends something
	// every 15 seconds.
	again, silence time.Duration
}

// New makes a client of the server on a socket, which need not be there yet.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		connection, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("%w: %w", ErrNoServer, err)
		}
		return connection, err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: &http.Client{Transport: transport, CheckRedirect: noRedirects}, again: time.Second, silence: time.Minute}
}

// Running is true if a server answers on the socket.
func (c *Client) Running(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return c.ask(ctx, http.MethodGet, api.PathLive, nil, nil) == nil
}

// Ready returns what keeps the server from working; OK is true if nothing does.
func (c *Client) Ready(ctx context.Context) (health api.Health, err error) {
	response, err := c.send(ctx, http.MethodGet, api.PathReady, nil, nil)
	if err != nil {
		return health, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Content-Type") == api.MediaProblem {
		if err := refused(response); err != nil {
			return health, err
		}
	}
	return health, decode(response, &health)
}

// Status says how everything stands, with at most so many machines; those whose copy is too old always are there.
func (c *Client) Status(ctx context.Context, machines int) (status api.Status, err error) {
	err = c.ask(ctx, http.MethodGet, api.PathStatus+query("machines", strconv.Itoa(machines)), nil, &status)
	return status, err
}

// Apply makes and changes resources, all of them or none.
func (c *Client) Apply(ctx context.Context, apply api.Apply) (applied api.Applied, err error) {
	err = c.ask(ctx, http.MethodPost, api.PathApply, apply, &applied)
	return applied, err
}

// Resources returns the resources of a kind, or without one all.
func (c *Client) Resources(ctx context.Context, kind string) (list []api.Resource, err error) {
	err = c.ask(ctx, http.MethodGet, api.PathResources+query("kind", kind), nil, &list)
	return list, err
}

// Resource returns one resource.
func (c *Client) Resource(ctx context.Context, kind, name string) (resource api.Resource, err error) {
	err = c.ask(ctx, http.MethodGet, at(api.PathResource, kind, name), nil, &resource)
	return resource, err
}

// Put makes a resource (version 0), or changes the one that is at a version.
func (c *Client) Put(ctx context.Context, kind, name, document string, version int64) (resource api.Resource, err error) {
	condition := ifMatch(version)
	if version == 0 {
		condition = http.Header{"If-None-Match": {"*"}}
	}
	err = c.askIf(ctx, condition, http.MethodPut, at(api.PathResource, kind, name), api.Document{Document: document}, &resource)
	return resource, err
}

// Delete deletes the resource that is at a version. With release the claims of a job are withdrawn.
func (c *Client) Delete(ctx context.Context, kind, name string, version int64, release bool) error {
	path := at(api.PathResource, kind, name)
	if release {
		path += query("release", "true")
	}
	return c.askIf(ctx, ifMatch(version), http.MethodDelete, path, nil, nil)
}

// Retire says that a machine has gone for good, or that it is back.
func (c *Client) Retire(ctx context.Context, retire api.Retire) (retired api.Retired, err error) {
	err = c.ask(ctx, http.MethodPost, api.PathRetire, retire, &retired)
	return retired, err
}

// Bandwidth is how much all jobs together may read and write across a network.
func (c *Client) Bandwidth(ctx context.Context) (bandwidth api.Bandwidth, err error) {
	err = c.ask(ctx, http.MethodGet, api.PathBandwidth, nil, &bandwidth)
	return bandwidth, err
}

// SetBandwidth has all jobs together keep to other limits than those of a version.
func (c *Client) SetBandwidth(ctx context.Context, limits []string, version int64) (bandwidth api.Bandwidth, err error) {
	err = c.askIf(ctx, ifMatch(version), http.MethodPut, api.PathBandwidth, api.SetBandwidth{Limits: limits}, &bandwidth)
	return bandwidth, err
}

// ResetBandwidth has the limits be those again that the server was started with.
func (c *Client) ResetBandwidth(ctx context.Context, version int64) (bandwidth api.Bandwidth, err error) {
	err = c.askIf(ctx, ifMatch(version), http.MethodDelete, api.PathBandwidth, nil, &bandwidth)
	return bandwidth, err
}

// Jobs returns where all jobs stand.
func (c *Client) Jobs(ctx context.Context) (list []api.Job, err error) {
	err = c.ask(ctx, http.MethodGet, api.PathJobs, nil, &list)
	return list, err
}

// Job returns where a job stands.
func (c *Client) Job(ctx context.Context, name string) (job api.Job, err error) {
	err = c.ask(ctx, http.MethodGet, at(api.PathJob, name), nil, &job)
	return job, err
}

// Run begins a session of a job.
func (c *Client) Run(ctx context.Context, job string, how api.Start) (started api.Started, err error) {
	err = c.ask(ctx, http.MethodPost, at(api.PathJobRun, job), how, &started)
	return started, err
}

// Stop asks the session of a job to end: after a checkpoint, or at once. It does not wait until it has.
func (c *Client) Stop(ctx context.Context, job string, now bool) error {
	return c.ask(ctx, http.MethodPost, at(api.PathJobStop, job), api.Stop{Now: now}, nil)
}

// Enable has a job's intervals begin by themselves.
func (c *Client) Enable(ctx context.Context, job string) error {
	return c.ask(ctx, http.MethodPost, at(api.PathJobEnable, job), nil, nil)
}

// Disable lets nothing of a job begin by itself.
func (c *Client) Disable(ctx context.Context, job string) error {
	return c.ask(ctx, http.MethodPost, at(api.PathJobDisable, job), nil, nil)
}

// Explain returns what a session of a job would do now, in the form of ferry job explain --json.
func (c *Client) Explain(ctx context.Context, job string) (document json.RawMessage, err error) {
	err = c.ask(ctx, http.MethodGet, at(api.PathJobExplain, job), nil, &document)
	return document, err
}

// Simulate returns what a job will keep in so many days to come, in the form of ferry job simulate --json.
func (c *Client) Simulate(ctx context.Context, job string, days int) (document json.RawMessage, err error) {
	err = c.ask(ctx, http.MethodGet, at(api.PathJobSimulate, job)+query("days", strconv.Itoa(days)), nil, &document)
	return document, err
}

// Sessions returns sessions of a job, or without one of all jobs, newest first: at most limit, and only those before a
// session if that is not 0.
func (c *Client) Sessions(ctx context.Context, job string, before int64, limit int) (list []api.Session, err error) {
	err = c.ask(ctx, http.MethodGet, api.PathSessions+query("job", job, "before", number(before), "limit", strconv.Itoa(limit)), nil, &list)
	return list, err
}

// Session returns a session with its phases and tasks, and its report if it has ended.
func (c *Client) Session(ctx context.Context, id int64) (session api.Session, err error) {
	err = c.ask(ctx, http.MethodGet, at(api.PathSession, strconv.FormatInt(id, 10)), nil, &session)
	return session, err
}

// Rebuild has the points of a repository, or without a name of all targets, read into the catalog anew.
func (c *Client) Rebuild(ctx context.Context, repository string) (rebuilt api.Rebuilt, err error) {
	err = c.ask(ctx, http.MethodPost, api.PathRebuild, api.Rebuild{Repository: repository}, &rebuilt)
	return rebuilt, err
}

// Adopt has the server go on with a repository as it is, whatever history it had seen before.
func (c *Client) Adopt(ctx context.Context, repository string) (adopted api.Adopted, err error) {
	err = c.ask(ctx, http.MethodPost, at(api.PathAdopt, repository), nil, &adopted)
	return adopted, err
}

// ask sends a request, with a body as JSON unless it is nil, and reads the answer into a value unless that is nil.
func (c *Client) ask(ctx context.Context, method, path string, body, into any) error {
	return c.askIf(ctx, nil, method, path, body, into)
}

// askIf is ask under a condition.
func (c *Client) askIf(ctx context.Context, condition http.Header, method, path string, body, into any) error {
	response, err := c.send(ctx, method, path, condition, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := refused(response); err != nil || into == nil {
		return err
	}
	return decode(response, into)
}

func (c *Client) send(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://ferry"+path, content) // a socket has no name
	if err != nil {
		return nil, err
	}
	if header != nil {
		request.Header = header
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	var address *url.Error
	if errors.As(err, &address) { // its text has an address that there is not
		err = address.Err
	}
	return response, err
}

// refused is the error of an answer that is not what was asked for.
func refused(response *http.Response) error {
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return nil
	}
	problem := &Error{}
	content, err := io.ReadAll(io.LimitReader(response.Body, problemLimit))
	if err != nil || json.Unmarshal(content, &problem.Problem) != nil || problem.Detail == "" {
		return fmt.Errorf("the server answers %s, and not why", response.Status)
	}
	return problem
}

func decode(response *http.Response, into any) error {
	if err := json.NewDecoder(io.LimitReader(response.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}

// at puts values into the path of an operation.
func at(path string, values ...string) string {
	for _, value := range values {
		begin, end := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:begin] + url.PathEscape(value) + path[end+1:]
	}
	return path
}

// query makes names and values into a query, those without a value left out.
func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// number is empty for 0.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func ifMatch(version int64) http.Header {
	return http.Header{"If-Match": {`"` + strconv.FormatInt(version, 10) + `"`}}
}
