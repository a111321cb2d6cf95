package s3

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// TestProbeRefuses: a server that takes every put, whatever the condition, is refused by name of what it lacks: for single
// puts, and one that heeds those for multipart uploads.
func TestProbeRefuses(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for what, heedsPuts := range map[string]bool{"a put": false, "multipart": true} {
		there := map[string]bool{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			query := r.URL.Query()
			switch {
			case query.Has("object-lock"):
				w.WriteHeader(http.StatusNotImplemented)
			case query.Has("uploads"):
				_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
			case r.Method == http.MethodPost:
				_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
			case r.Method == http.MethodPut && !query.Has("uploadId") && heedsPuts && there[r.URL.Path]:
				w.WriteHeader(http.StatusPreconditionFailed)
			case r.Method == http.MethodPut:
				there[r.URL.Path] = true
				w.Header().Set("ETag", `"1"`)
			case query.Has("versioning"):
				_, _ = io.WriteString(w, `<VersioningConfiguration></VersioningConfiguration>`)
			case r.Method == http.MethodDelete:
				delete(there, r.URL.Path)
				w.WriteHeader(http.StatusNoContent)
			}
		}))
		location, err := ParseLocation("s3+" + server.URL + "/bucket/vault")
		if err != nil {
			t.Fatal(err)
		}
		store, err := Open(location, Options{Pause: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		err = store.Probe(t.Context())
		if !errors.Is(err, storage.ErrUnsuitable) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "If-None-Match") || backup.Hint(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
		store.Close()
		server.Close()
	}
}
