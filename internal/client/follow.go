package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"ferry/internal/api"
)

// eventLimit is the largest event, in bytes: a session with all its tasks.
const eventLimit = 64 << 20

// errSilent: nothing came for that long.
var errSilent = errors.New("the server says nothing any more")

// Follow tells the events of a session until it has ended. The first is of kind api.EventSession and has the whole session, as
// it is again whenever the server has cut the stream and Follow has come back; the last is api.EventEnd.
//
// If the server goes the error wraps ErrNoServer: when it is back, Follow goes on from how the session stands then. An error
// that tell returns ends it.
func (c *Client) Follow(ctx context.Context, id int64, tell func(api.Event) error) error {
	for {
		heard, ended, err := c.stream(ctx, id, tell)
		var final *finalError
		var problem *Error
		switch {
		case ended:
			return nil
		case errors.As(err, &final):
			return final.error
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrNoServer), errors.As(err, &problem):
			return err
		case heard == 0: // what does not even begin will not do better
			return fmt.Errorf("following session %d: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.again):
		}
	}
}

// finalError ends following.
type finalError struct{ error }

// stream follows a session as long as one stream lasts. err says why it did not last until the session had ended.
func (c *Client) stream(ctx context.Context, id int64, tell func(api.Event) error) (heard int, ended bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watch.Stop()
	response, err := c.send(ctx, http.MethodGet, at(api.PathEvents, strconv.FormatInt(id, 10)), nil, nil)
	if err != nil {
		return 0, false, err
	}
	defer response.Body.Close()
	if err := refused(response); err != nil {
		return 0, false, err
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, eventLimit)
	var data []byte
	for lines.Scan() {
		watch.Reset(c.silence)
		if len(lines.Bytes()) > 0 {
			if content, isData := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); isData {
				data = append(data[:0], content...)
			}
			continue // the kind, which is in the data too; a comment
		}
		if len(data) == 0 {
			continue
		}
		var event api.Event // an empty line ends it; without one it was cut
		if err := json.Unmarshal(data, &event); err != nil {
			return heard, false, &finalError{fmt.Errorf("an event of session %d: %w", id, err)}
		}
		data = data[:0]
		heard++
		if err := tell(event); err != nil {
			return heard, false, &finalError{err}
		}
		if event.Kind == api.EventEnd {
			return heard, true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return heard, false, err
	}
	return heard, false, io.ErrUnexpectedEOF
}
