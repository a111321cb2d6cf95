package s3

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// answeringLock is a server fit for a repository, which answers the question for object lock in a given way.
func answeringLock(t *testing.T, status int, answer string) *Store {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	var mu sync.Mutex
	there := map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		content, _ := io.ReadAll(r.Body)
		query := r.URL.Query()
		_, taken := there[r.URL.Path]
		switch {
		case query.Has("object-lock"):
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		case query.Has("versioning"):
			_, _ = io.WriteString(w, `<VersioningConfiguration></VersioningConfiguration>`)
		case query.Has("uploads"):
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
		case r.Method == http.MethodDelete:
			if !query.Has("uploadId") {
				delete(there, r.URL.Path)
			}
			w.WriteHeader(http.StatusNoContent)
		case query.Has("uploadId") && r.Method == http.MethodPut:
			w.Header().Set("ETag", `"1"`)
		case taken && (r.Method == http.MethodPut || r.Method == http.MethodPost):
			w.WriteHeader(http.StatusPreconditionFailed)
		case r.Method == http.MethodPut:
			there[r.URL.Path] = content
			w.Header().Set("ETag", `"1"`)
		case taken:
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			_, _ = w.Write(there[r.URL.Path])
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	location, err := ParseLocation("s3+" + server.URL + "/bucket/vault")
	if err != nil {
		t.Fatal(err)
	}
	store, err := Open(location, Options{Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if len(there) > 0 {
			t.Errorf("left behind: %d objects", len(there))
		}
	})
	return store
}

// A bucket that locks everything by itself is refused, and one that may do so because the keys may not ask: with the right that they
// lack. A server that knows nothing of locks has none.
func TestRetentionIsAskedFor(t *testing.T) {
	refusal := func(code string) string { return `<Error><Code>` + code + `</Code><Message>no</Message></Error>` }
	for what, c := range map[string]struct {
		status int
		answer string
		// want is in the error, and hint in its hint; no error without.
		want, hint string
		unsuitable bool
	}{
		"default retention": {
			http.StatusOK, `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>`,
			"bucket bucket has a default retention", "put-object-lock-configuration", true,
		},
		"object lock alone": {http.StatusOK, `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>`, "", "", false},
		"no object lock":    {http.StatusNotFound, refusal("ObjectLockConfigurationNotFoundError"), "", "", false},
		"keys without the right": {
			http.StatusForbidden, refusal("AccessDenied"), "may not ask whether bucket bucket has a default retention: the server answered 403 AccessDenied", "s3:GetBucketObjectLockConfiguration", false,
		},
		"wrong keys":            {http.StatusForbidden, refusal("SignatureDoesNotMatch"), "asking for the object lock", "not those of this server", false},
		"overload":              {http.StatusServiceUnavailable, refusal("SlowDown"), "asking for the object lock", "", false},
		"not implemented":       {http.StatusNotImplemented, refusal("NotImplemented"), "", "", false},
		"not a known parameter": {http.StatusBadRequest, refusal("InvalidArgument"), "", "", false},
		"a listing instead":     {http.StatusOK, `<ListBucketResult><Name>bucket</Name></ListBucketResult>`, "", "", false},
	} {
		t.Run(what, func(t *testing.T) {
			store := answeringLock(t, c.status, c.answer)
			for question, err := range map[string]error{"probe": store.Probe(t.Context()), "retention": store.CheckRetention(t.Context())} {
				if c.want == "" && err == nil {
					continue
				}
				if c.want == "" || err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(backup.Hint(err), c.hint) || errors.Is(err, storage.ErrUnsuitable) != c.unsuitable {
					t.Errorf("%s: %v; %s", question, err, backup.Hint(err))
				}
			}
		})
	}
	store := answeringLock(t, http.StatusForbidden, refusal("AccessDenied"))
	for what, err := range map[string]error{
		"making a repository": store.CheckLock(t.Context(), storage.Host),
		"opening one":         store.LockNew(storage.Host, func(string) time.Time { return time.Now().Add(time.Hour) }),
	} {
		if !errors.Is(err, storage.ErrUnsuitable) || !strings.Contains(err.Error(), `cannot lock in the way "host"`) || backup.Hint(err) == "" {
			t.Errorf("%s with the attribute of a file system: %v", what, err)
		}
	}
	err := store.CheckLock(t.Context(), storage.Compliance)
	if hint := backup.Hint(err); err == nil || !strings.Contains(err.Error(), "may not ask whether bucket bucket has object lock: the server") || !strings.Contains(hint, "s3:GetBucketObjectLockConfiguration") || strings.Contains(hint, "retention") {
		t.Errorf("a repository with locks: %v; %s", err, hint)
	}
}
