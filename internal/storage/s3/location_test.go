package s3

import (
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

func TestParseLocation(t *testing.T) {
	for text, want := range map[string]Location{
		"s3://backups":       {Bucket: "backups"},
		"s3://backups/":      {Bucket: "backups"},
		"s3://backups/a/b/":  {Bucket: "backups", Prefix: "a/b/"},
		"s3+https://h/b/p/q": {Bucket: "b", Prefix: "p/q/", Endpoint: "h"},
		"s3+http://h:9/b":    {Bucket: "b", Endpoint: "h:9", Insecure: true},
		"s3://b/p?endpoint=https://h:9&region=eu&profile=x": {Bucket: "b", Prefix: "p/", Endpoint: "h:9", Region: "eu", Profile: "x"},
		"s3://b/p?endpoint=http://h":                        {Bucket: "b", Prefix: "p/", Endpoint: "h", Insecure: true},
	} {
		want.text = text
		if got, err := ParseLocation(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
		if !IsLocation(text) {
			t.Errorf("%s is taken for a folder", text)
		}
	}
	const secret = "hunter2"
	for _, text := range []string{
		"s3://", "s3:///p", "s3+https://h", "s3+https://h/", "s3+ftp://h/b", "s3://b/../p", "s3://b/p q", "s3://b/tmp", "s3://b#f", "s3://b/" + strings.Repeat("p/", 300) + "p",
		"s3://b?endpoint=h", "s3://b?endpoint=ftp://h", "s3://b?endpoint=https://h/path", "s3+https://h/b?endpoint=https://h", "s3://b?secret=" + secret,
		"s3://key:" + secret + "@b/p", "s3+https://key:" + secret + "@h/b", "s3://b?endpoint=https://key:" + secret + "@h", "s3://b/%zz" + secret,
	} {
		if got, err := ParseLocation(text); err == nil {
			t.Errorf("%s: %+v, want an error", text, got)
		} else if strings.Contains(err.Error()+backup.Hint(err), secret) {
			t.Errorf("the error of a location shows what it must not hold: %v", err)
		}
	}
	for _, folder := range []string{"/mnt/s3", "s3", "s3:/a", "./s3://a", "https://h/b"} {
		if IsLocation(folder) {
			t.Errorf("%s is taken for a bucket", folder)
		}
	}
}

// What another machine needs to find the bucket is all said, whether it was typed or the environment has it.
func TestWhole(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct{ environment, text, want string }{
		{"", "s3://b/p", "s3://b/p"},
		{"AWS_REGION=eu", "s3://b/p/", "s3://b/p?region=eu"},
		{"AWS_ENDPOINT_URL=https://h:9", "s3://b/p/q", "s3://b/p/q?endpoint=https://h:9&region=us-east-1"},
		{"AWS_ENDPOINT_URL_S3=http://h", "s3://b?region=eu", "s3://b?endpoint=http://h&region=eu"},
		{"AWS_ENDPOINT_URL=https://other", "s3+https://h/b/p?profile=x", "s3://b/p?endpoint=https://h&region=us-east-1&profile=x"},
		{"AWS_PROFILE=mine", "s3://b", "s3://b"},
	} {
		t.Run(c.environment+" "+c.text, func(t *testing.T) {
			for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
				t.Setenv(name, "")
			}
			t.Setenv("AWS_CONFIG_FILE", none)
			if name, value, set := strings.Cut(c.environment, "="); set {
				t.Setenv(name, value)
			}
			location, err := ParseLocation(c.text)
			if err != nil {
				t.Fatal(err)
			}
			whole := location.Whole()
			again, err := ParseLocation(whole)
			if whole != c.want || err != nil || again.Bucket != location.Bucket || again.Prefix != location.Prefix {
				t.Errorf("%s, %v, want %s", whole, err, c.want)
			}
		})
	}
}

// What covers another location: the same bucket of the same server, at or above it.
func TestCovers(t *testing.T) {
	for _, c := range []struct {
		place, location string
		want            bool
	}{
		{"s3://b/p", "s3://b/p", true},
		{"s3://b/p", "s3://b/p/q?region=eu&profile=x", true},
		{"s3://b", "s3://b/p", true},
		{"s3://b/p", "s3://b/pq", false},
		{"s3://b/p", "s3://b", false},
		{"s3://b/p", "s3://c/p", false},
		{"s3+https://h/b/p", "s3://b/p?endpoint=https://H", true},
		{"s3+https://h/b/p", "s3+http://h/b/p", false},
		{"s3+https://h/b/p", "s3+https://h:9/b/p", false},
		{"s3+https://h/b/p", "s3://b/p", false},
	} {
		place, err := ParseLocation(c.place)
		if err != nil {
			t.Fatal(err)
		}
		location, err := ParseLocation(c.location)
		if err != nil {
			t.Fatal(err)
		}
		if place.Covers(location) != c.want {
			t.Errorf("%s covers %s: %t", c.place, c.location, !c.want)
		}
	}
}

// TestErrors: what an answer means to callers, whether it is asked again, and what a person is told to do.
func TestErrors(t *testing.T) {
	s := &Store{location: Location{Bucket: "b", text: "s3://b/p"}}
	for _, c := range []struct {
		status      int
		code        string
		want        error
		class       class
		said, hints string
	}{
		{404, "NoSuchKey", storage.ErrNotExist, permanent, "packs/a", ""},
		{404, "", storage.ErrNotExist, permanent, "packs/a", ""}, // to a HEAD
		{404, "NoSuchBucket", storage.ErrNoStorage, permanent, "no bucket b", "make the bucket"},
		{404, "XAdminUserNotFound", nil, permanent, "404 XAdminUserNotFound", "AWS_ACCESS_KEY_ID"},
		{404, "NoSuchUpload", nil, permanent, "404 NoSuchUpload", ""},
		{412, "PreconditionFailed", storage.ErrExists, permanent, "packs/a", ""},
		{403, "QuotaExceeded", storage.ErrFull, permanent, "QuotaExceeded", "quota"},
		{507, "InsufficientStorage", storage.ErrFull, permanent, "507", "quota"},
		{403, "AccessDenied", nil, permanent, "403 AccessDenied", "rights"},
		{403, "RequestTimeTooSkewed", nil, permanent, "403", "clock"},
		{403, "SignatureDoesNotMatch", nil, permanent, "403", "AWS_SECRET_ACCESS_KEY"},
		{400, "ExpiredToken", nil, permanent, "400", "AWS_SESSION_TOKEN"},
		{301, "PermanentRedirect", nil, permanent, "301", "region=eu-1"},
		{503, "SlowDown", nil, temporary, "503", ""},
		{500, "InternalError", nil, temporary, "500", ""},
		{502, "", nil, temporary, "502", ""},
		{429, "", nil, temporary, "429", ""},
		{409, "ConditionalRequestConflict", nil, temporary, "409", ""},
		{400, "XAmzContentSHA256Mismatch", nil, temporary, "400", ""},
	} {
		answer := minio.ErrorResponse{StatusCode: c.status, Code: c.code, Message: "a message", Region: "eu-1"}
		if got := classOf(answer); got != c.class {
			t.Errorf("%d %s: class %d, want %d", c.status, c.code, got, c.class)
		}
		err := s.describe("reading", "packs/a", answer)
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
		for _, not := range []error{storage.ErrNotExist, storage.ErrNoStorage, storage.ErrExists, storage.ErrFull} {
			if not != c.want && errors.Is(err, not) {
				t.Errorf("%d %s: %v is %v", c.status, c.code, err, not)
			}
		}
		if !strings.Contains(err.Error(), c.said) || !strings.Contains(backup.Hint(err), c.hints) {
			t.Errorf("%d %s: %q, hint %q", c.status, c.code, err, backup.Hint(err))
		}
	}
	network := &url.Error{Op: "Put", URL: "http://h", Err: errors.New("connection refused")}
	if classOf(network) != temporary || !strings.Contains(backup.Hint(s.describe("reading", "", network)), "port") {
		t.Errorf("a refused connection: %v", s.describe("reading", "", network))
	}
}

// TestCounting: each request is of the kind that it is billed as, more or less.
func TestCounting(t *testing.T) {
	c := &counter{}
	for text, want := range map[string]any{
		"GET /b/k": &c.get, "HEAD /b/k": &c.head, "DELETE /b/k": &c.remove, "PUT /b/k": &c.put, "POST /b/k?uploads": &c.put, "PUT /b/k?partNumber=1&uploadId=x": &c.put,
		"GET /b?list-type=2": &c.list, "GET /b?versions": &c.list, "PUT /b/k?retention": &c.lock, "GET /b?object-lock": &c.lock, "GET /b?versioning": &c.other,
	} {
		method, path, _ := strings.Cut(text, " ")
		request, err := http.NewRequest(method, "http://h"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.kind(request); any(got) != want {
			t.Errorf("%s is counted as another kind", text)
		}
	}
}
