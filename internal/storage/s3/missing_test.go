package s3

import (
	"context"
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

// What says 404 and is no S3 server, such as a proxy whose server is being started, says nothing of an object: it is asked again, and has
// removed and locked nothing. Nor has a server that does not know the keys, or the bucket.
func TestNotMissing(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	xml := func(code string) string { return "<Error><Code>" + code + "</Code><Message>a test</Message></Error>" }
	for what, c := range map[string]struct {
		body    string
		answers int // of this kind, before the server itself answers
		asked   int
		want    error
		hint    string
	}{
		"the object is missing":     {xml("NoSuchKey"), 100, 1, storage.ErrNotExist, ""},
		"a proxy for a moment":      {"404 page not found\n", 2, 3, nil, ""},
		"a proxy that says nothing": {"", 1, 2, nil, ""},
		"a proxy for good":          {"404 page not found\n", 100, firstAttempts, errNoServer, "endpoint"},
		"the bucket":                {xml("NoSuchBucket"), 100, 1, storage.ErrNoStorage, "bucket"},
		"the keys":                  {xml("XAdminUserNotFound"), 100, 1, nil, "AWS_ACCESS_KEY_ID"},
	} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead && asked < c.answers {
				w.WriteHeader(http.StatusNotFound) // and no more: what it means, a GET is asked
				return
			}
			if r.Method != http.MethodHead {
				asked++
			}
			if asked <= c.answers && r.Method != http.MethodHead {
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, c.body)
				return
			}
			if r.Method == http.MethodDelete {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Last-Modified", "Fri, 27 Nov 2026 03:00:00 GMT")
			if r.URL.Query().Has("list-type") {
				_, _ = io.WriteString(w, "<ListBucketResult></ListBucketResult>")
				return
			}
			w.Header().Set("Content-Range", "bytes 0-3/4")
			_, _ = io.WriteString(w, "pack")
		}))
		location, err := ParseLocation("s3+" + server.URL + "/bucket/vault?region=us-east-1")
		if err != nil {
			t.Fatal(err)
		}
		for how, do := range map[string]func(*Store) error{
			"whole":  func(s *Store) error { _, err := s.ReadAll(t.Context(), "packs/a", 100); return err },
			"range":  func(s *Store) error { return readSome(t.Context(), s) },
			"stat":   func(s *Store) error { _, err := s.Stat(t.Context(), "packs/a"); return err },
			"list":   func(s *Store) error { return listed(t.Context(), s) },
			"put":    func(s *Store) error { return s.Put(t.Context(), "packs/a", []byte("pack")) },
			"delete": func(s *Store) error { return s.Delete(t.Context(), "packs/a") },
			"lock":   func(s *Store) error { return s.Lock(t.Context(), "packs/a", storage.Compliance, time.Now()) },
		} {
			if c.want == storage.ErrNotExist && (how == "list" || how == "put" || how == "delete") {
				continue
			}
			store, err := Open(location, Options{Pause: 1})
			if err != nil {
				t.Fatal(err)
			}
			store.counter.told.Store(true)
			asked = 0
			err = do(store)
			want := c.asked
			if how == "stat" && c.answers < c.asked {
				want-- // the last is a HEAD
			}
			if (err == nil) != (c.answers < c.asked) || c.want != nil && !errors.Is(err, c.want) || c.want != storage.ErrNotExist && errors.Is(err, storage.ErrNotExist) ||
				asked != want || !strings.Contains(backup.Hint(err), c.hint) {
				t.Errorf("%s, %s: %v (%s) after %d requests, want %v after %d", what, how, err, backup.Hint(err), asked, c.want, want)
			}
			store.Close()
		}
		server.Close()
	}
}

func readSome(ctx context.Context, s *Store) error {
	reader, err := s.OpenSized(ctx, "packs/a", 4)
	if err != nil {
		return err
	}
	_, err = reader.ReadAt(make([]byte, 4), 0)
	return err
}

func listed(ctx context.Context, s *Store) error {
	for _, err := range s.List(ctx, "packs/") {
		if err != nil {
			return err
		}
	}
	return nil
}
