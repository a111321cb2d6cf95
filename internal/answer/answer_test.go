package answer_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
)

// A call that does not return is left behind a while after its context has ended. What waits for it is closed when it returns, in
// order, and what it returns is dropped.
func TestCallLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls answer.Calls
		var did []string
		answers := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := answer.Call(ctx, &calls, func() (string, error) { <-answers; return "late", nil }, func(value string) { did = append(did, "dropped "+value) })
		if !errors.Is(err, answer.ErrNone) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute+answer.Patience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if n, since := calls.Behind(); n != 1 || !since.Equal(time.Now()) {
			t.Errorf("%d left behind since %s", n, since)
		}
		for _, name := range []string{"content", "folder"} {
			if err := calls.WhenBack(func() error { did = append(did, "closed "+name); return nil }); err != nil {
				t.Error(err)
			}
		}
		if len(did) > 0 {
			t.Errorf("while the call has not returned: %q", did)
		}
		close(answers)
		synctest.Wait()
		if want := []string{"dropped late", "closed content", "closed folder"}; !slices.Equal(did, want) {
			t.Errorf("%q, not %q", did, want)
		}
		if n, _ := calls.Behind(); n != 0 {
			t.Errorf("%d left behind", n)
		}
		failed := errors.New("failed")
		if err := calls.WhenBack(func() error { return failed }); !errors.Is(err, failed) {
			t.Errorf("closed at once: %v", err)
		}
	})
}

// A call that returns soon after its context has ended is not left behind, and its answer counts.
func TestCallReturnsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls answer.Calls
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := answer.Call(ctx, &calls, func() (int, error) { time.Sleep(time.Minute + answer.Patience - 1); return 7, nil }, nil)
		if n, _ := calls.Behind(); got != 7 || err != nil || n != 0 {
			t.Errorf("%d %v, %d left behind", got, err, n)
		}
	})
}
