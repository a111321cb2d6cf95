package s3

import (
	"context"
	"errors"
	"testing"
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
