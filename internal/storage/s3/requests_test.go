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
)

// What the server has done counts, also if its caller gave up while the answer was on its way: else a log entry that is there
// would be said not to be. What failed then has failed because of that.
func TestRetryWhenTheCallerGivesUp(t *testing.T) {
	broken := errors.New("connection reset")
	for what, c := range map[string]struct{ answer, want error }{
		"success": {nil, nil},
		"failure": {broken, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		err := new(Store).retry(ctx, 0, func(context.Context) error {
			calls++
			cancel()
			return c.answer
		})
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || calls != 1 {
			t.Errorf("%s: %v after %d calls, want %v after one", what, err, calls, c.want)
		}
		if err := new(Store).retry(ctx, 0, func(context.Context) error { calls++; return nil }); !errors.Is(err, context.Canceled) || calls != 1 {
			t.Errorf("%s: begun after the end: %v, %d calls", what, err, calls)
		}
	}
}

// A request whose process was stopped between signing and sending is signed anew; of one with a wrong clock the person is told.
// A HEAD is answered without a reason.
func TestRequestTooOld(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, late := range []int{1, 2, 1000} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if asked++; asked <= late {
				w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `<Error><Code>RequestTimeTooSkewed</Code><Message>too far off</Message></Error>`)
				return
			}
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		}))
		location, err := ParseLocation("s3+" + server.URL + "/bucket/vault")
		if err != nil {
			t.Fatal(err)
		}
		store, err := Open(location, Options{Pause: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func() error{
			"put":  func() error { return store.Put(t.Context(), "log/1", []byte("entry")) },
			"stat": func() error { _, err := store.Stat(t.Context(), "log/1"); return err },
		} {
			asked = 0
			err := do()
			switch {
			case late < 1000 && (err != nil || asked != late+1):
				t.Errorf("%s, %d times too late: %v after %d requests", what, late, err, asked)
			case late == 1000 && (asked != 1+signedAgain || err == nil || !strings.Contains(backup.Hint(err), "clock")):
				t.Errorf("%s with a wrong clock: %v (%s) after %d requests", what, err, backup.Hint(err), asked)
			}
		}
		store.Close()
		server.Close()
	}
}
