//go:build integration

package s3

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// clock is a time that is put forward by hours at once. It says of every time of the server's what it is on this clock, so
// that the server's own times of its files are those of a server that has run for weeks. The server tells whole seconds:
// the clock is put forward as one begins, so that all of what happened in one second is shifted alike.
type clock struct {
	mu    sync.Mutex
	jumps []jump // by from
}

// jump says what times are put forward by from a second on.
type jump struct {
	from int64
	by   time.Duration
}

// shifted is a time of the server's on the clock.
func (c *clock) shifted(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := time.Duration(0)
	for _, j := range c.jumps {
		if j.from <= t.Unix() {
			by = j.by
		}
	}
	return t.Add(by)
}

func (c *clock) now() time.Time { return c.shifted(time.Now()) }

// forward puts the clock forward when the next second begins, unless it is to be already.
func (c *clock) forward(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, before := time.Now().Unix()+1, time.Duration(0)
	if n := len(c.jumps); n > 0 {
		if c.jumps[n-1].from >= next {
			return
		}
		before = c.jumps[n-1].by
	}
	c.jumps = append(c.jumps, jump{next, before + by})
}

var listedTime = regexp.MustCompile(`<LastModified>[^<]+</LastModified>`)

// shift puts the times in an answer of the server on the clock.
func (c *clock) shift(answer *http.Response) error {
	for _, name := range []string{"Date", "Last-Modified"} {
		if t, err := http.ParseTime(answer.Header.Get(name)); err == nil {
			answer.Header.Set(name, c.shifted(t).UTC().Format(http.TimeFormat))
		}
	}
	if query := answer.Request.URL.Query(); !query.Has("list-type") && !query.Has("versions") {
		return nil
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	answer.Body.Close()
	body = listedTime.ReplaceAllFunc(body, func(element []byte) []byte {
		text := string(element[len("<LastModified>") : len(element)-len("</LastModified>")])
		t, parseErr := time.Parse(time.RFC3339Nano, text)
		if parseErr != nil {
			err = parseErr
		}
		return []byte("<LastModified>" + c.shifted(t).UTC().Format(time.RFC3339Nano) + "</LastModified>")
	})
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return err
}
