//go:build integration

package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/storage"
	"ferry/internal/storage/storagetest"
)

// fault is what happens to a request.
type fault int

const (
	none fault = iota
	// refused: the server is not asked, and answers 503 SlowDown.
	refused
	// broken: the server is not asked, and answers 500.
	broken
	// lost: the server does what it is asked, and the connection ends before its answer.
	lost
	// cut: the answer ends in the middle of its body.
	cut
)

// proxy stands in front of the server and lets requests go wrong.
type proxy struct {
	*httptest.Server
	// decide says what happens to request number n, counted from 0.
	decide func(n int64, request *http.Request) fault
	count  atomic.Int64
	faults atomic.Int64
}

// newProxy starts a proxy.
func newProxy(t *testing.T, decide func(n int64, request *http.Request) fault) *proxy {
	t.Helper()
	p := &proxy{decide: decide}
	forward := onward()
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := p.decide(p.count.Add(1)-1, r)
		if what != none {
			p.faults.Add(1)
		}
		switch what {
		case refused, broken:
			_, _ = io.Copy(io.Discard, r.Body)
			code, name := http.StatusServiceUnavailable, "SlowDown"
			if what == broken {
				code, name = http.StatusInternalServerError, "InternalError"
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>a test</Message></Error>`, name)
		case lost:
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case cut:
			recorder := httptest.NewRecorder()
			forward.ServeHTTP(recorder, r)
			for name, values := range recorder.Header() {
				w.Header()[name] = values
			}
			w.Header().Set("Content-Length", fmt.Sprint(recorder.Body.Len()))
			w.WriteHeader(recorder.Code)
			_, _ = w.Write(recorder.Body.Bytes()[:recorder.Body.Len()/2])
			panic(http.ErrAbortHandler)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// onward is what hands requests on to the server. They keep the Host that they were signed for: the proxy's own.
func onward() *httputil.ReverseProxy {
	target := &url.URL{Scheme: "http", Host: shared.address}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}

// location of a repository in a bucket, through the proxy.
func (p *proxy) location(bucket string) string {
	return "s3+" + p.URL + "/" + bucket + "/vault"
}

// every makes each n-th request go wrong, each time in another way.
func every(n int64) func(int64, *http.Request) fault {
	kinds := []fault{refused, broken, lost, cut}
	return func(i int64, r *http.Request) fault {
		if i%n != n-1 {
			return none
		}
		what := kinds[i/n%int64(len(kinds))]
		if what == cut && r.Method != http.MethodGet {
			return lost
		}
		return what
	}
}

// TestContractThroughFaults: all promises hold when every third request goes wrong.
func TestContractThroughFaults(t *testing.T) {
	for _, k := range []kind{plain, locking} {
		p := newProxy(t, every(3))
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store { return open(t, p.location(shared.bucket(t, k))) })
		})
		if p.faults.Load() < 100 {
			t.Errorf("only %d faults", p.faults.Load())
		}
	}
}

// TestLostAnswers: of a write whose answers are lost, once or always, nothing is acknowledged that is not there, and nothing
// that is there is refused as somebody else's.
func TestLostAnswers(t *testing.T) {
	for _, size := range []int64{100, 20 << 20} {
		for _, stage := range []string{"", "uploads", "partNumber", "uploadId"} {
			hits := atomic.Int64{}
			p := newProxy(t, func(_ int64, r *http.Request) fault {
				query := r.URL.Query()
				is := (r.Method == http.MethodPut || r.Method == http.MethodPost) &&
					(stage == "" && !query.Has("uploadId") && !query.Has("uploads") || stage != "" && query.Has(stage) && (stage != "uploadId" || !query.Has("partNumber")))
				if is && hits.Add(1) <= 2 {
					return lost
				}
				return none
			})
			store := open(t, p.location(shared.bucket(t, plain)))
			content := noise(3, size)
			w, err := store.Create(t.Context(), "packs/aa/object")
			if err == nil {
				_, err = w.Write(content)
			}
			if err == nil {
				err = w.Commit(t.Context())
			}
			if err != nil {
				t.Errorf("%d bytes, answers lost at %q: %v", size, stage, err)
				continue
			}
			found, err := storage.ReadAll(t.Context(), store, "packs/aa/object", 1<<30)
			if err != nil || !bytes.Equal(found, content) {
				t.Errorf("%d bytes, answers lost at %q: %d bytes are there, %v", size, stage, len(found), err)
			}
			// Another's object is another's, whatever was lost.
			hits.Store(0)
			if err := store.Put(t.Context(), "packs/aa/object", content); !errors.Is(err, storage.ErrExists) {
				t.Errorf("%d bytes, answers lost at %q: a second writer: %v", size, stage, err)
			}
		}
	}
	// When no answer ever comes, the write is not acknowledged.
	p := newProxy(t, func(_ int64, r *http.Request) fault {
		if r.Method == http.MethodPut {
			return lost
		}
		return none
	})
	store := open(t, p.location(shared.bucket(t, plain)))
	if err := store.Put(t.Context(), "log/1", []byte("entry")); err == nil || errors.Is(err, storage.ErrExists) {
		t.Errorf("a put of which every answer was lost: %v", err)
	}
}

// TestShortListing: a page of a listing that fails for good is an error at the end, never a short listing.
func TestShortListing(t *testing.T) {
	bucket := shared.bucket(t, plain)
	direct := open(t, shared.location(bucket))
	for i := range 1100 {
		if err := direct.Put(t.Context(), fmt.Sprintf("log/%012d", i+1), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, fails := range []bool{true, false} {
		pages := atomic.Int64{}
		p := newProxy(t, func(_ int64, r *http.Request) fault {
			if r.URL.Query().Has("list-type") && pages.Add(1) > 1 && (fails || pages.Load() == 2) {
				return []fault{refused, lost, cut}[pages.Load()%3]
			}
			return none
		})
		store := open(t, p.location(bucket))
		seen, failed := map[string]bool{}, error(nil)
		for info, err := range store.ListAfter(t.Context(), "log/", "log/000000000010") {
			if failed = err; err == nil {
				seen[info.Name] = true
			}
		}
		if fails && failed == nil {
			t.Errorf("a listing whose second page fails ended without an error, after %d names", len(seen))
		}
		if !fails && (failed != nil || len(seen) != 1090) {
			t.Errorf("a listing whose second page failed once: %d names, %v", len(seen), failed)
		}
	}
}

// TestProgramThroughFaults: copying, verifying and restoring while every ninth request goes wrong loses nothing.
func TestProgramThroughFaults(t *testing.T) {
	p := newProxy(t, every(9))
	m := newMachine(t)
	source := disks(t, 24<<20, "web", "db")
	vault := p.location(shared.bucket(t, locking))
	m.run(0, "repo", "init", vault, "--lock", "governance", "--lock-for", "1h")
	m.run(0, "copy", source, vault)
	if again := m.counted("copy", source, vault); again.Put > 0 {
		t.Errorf("the second copy wrote: %+v", again)
	}
	m.run(0, "verify", vault)
	restored := t.TempDir()
	newMachine(t).run(0, "restore", vault, "web", "--to", restored)
	same(t, filepath.Join(source, "web.raw"), filepath.Join(restored, "web.raw"))
	if p.faults.Load() < 10 {
		t.Errorf("only %d faults", p.faults.Load())
	}
}

// TestParallelReads: a restore has several reads of data under way at once, so that the way to the server does not bound it.
func TestParallelReads(t *testing.T) {
	bucket := shared.bucket(t, plain)
	m := newMachine(t)
	source := disks(t, 96<<20, "web")
	m.run(0, "copy", source, shared.location(bucket), "--create")

	var mu sync.Mutex
	under, most := 0, 0
	full := make(chan struct{})
	const want = 4
	forward := onward()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" && strings.Contains(r.URL.Path, "/packs/") {
			mu.Lock()
			if under++; under > most {
				if most = under; most == want {
					close(full)
				}
			}
			mu.Unlock()
			if r.Header.Get("X-Ferry-None") == "" && isLarge(r.Header.Get("Range")) {
				select { // answers wait for each other: what asks one after the other never gets there
				case <-full:
				case <-r.Context().Done():
				}
			}
			defer func() { mu.Lock(); under--; mu.Unlock() }()
		}
		forward.ServeHTTP(w, r)
	}))
	defer server.Close()
	restored := t.TempDir()
	newMachine(t).run(0, "restore", "s3+"+server.URL+"/"+bucket+"/vault", "web", "--to", restored)
	same(t, filepath.Join(source, "web.raw"), filepath.Join(restored, "web.raw"))
	if most < want {
		t.Errorf("at most %d reads at once, want %d", most, want)
	}
}

// isLarge is true for ranges of 2 MiB and more.
func isLarge(header string) bool {
	var first, last int64
	n, err := fmt.Sscanf(header, "bytes=%d-%d", &first, &last)
	return err == nil && n == 2 && last-first >= 2<<20
}

// TestMemory: copying 600 MiB that do not compress takes no more memory than the whole program may.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	source := t.TempDir()
	file, err := os.Create(filepath.Join(source, "big.raw"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		if _, err := file.Write(noise(uint64(i+1), 4<<20)); err != nil {
			t.Fatal(err)
		}
	}
	file.Close()
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	peak := filepath.Join(t.TempDir(), "peak")
	command := exec.CommandContext(t.Context(), os.Args[0], program, "copy", source, shared.location(shared.bucket(t, plain)), "--create", "--cache-dir", t.TempDir())
	command.Env = append(os.Environ(), envMeasure+"="+peak)
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	text, err := os.ReadFile(peak)
	if err != nil {
		t.Fatal(err)
	}
	took, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || took < 10<<20 || took > 300<<20 {
		t.Errorf("the copy took %d MiB (%v), want at most 300", took>>20, err)
	}
	t.Logf("the copy took %d MiB", took>>20)
}
