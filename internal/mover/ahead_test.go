package mover

import (
	"errors"
	"testing"

	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// A copy of a stream is ahead of the interrupted ones before it once it has stored as much as it has read again. One that goes on where it
// was always is.
func TestAhead(t *testing.T) {
	const pieces = 1024 // what an interruption loses of them is little
	shifting := streamed("tar", noise(7, pieces*source.SinkGrain))
	shifting.Shifting = true
	for name, c := range map[string]struct {
		object  sourcetest.Object
		resumes bool
	}{
		"stream":          {streamed("sda", noise(5, pieces*source.SinkGrain)), false},
		"shifting stream": {shifting, false},
		"random":          {randomDisk("vda", noise(6, pieces*source.SinkGrain)), true},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newRepository(t, 16<<10)
			p := point("p", c.object)
			for attempt, until := range []int64{pieces / 4, 3 * pieces / 8, 7 * pieces / 8} {
				interrupted := errors.New("interrupted")
				p.Read.Store(0)
				p.OnPiece = func(sourcetest.Piece) error {
					if p.Read.Load() >= until*source.SinkGrain {
						return interrupted
					}
					return nil
				}
				p.OnRead = func(_ int, offset int64, n int) (int, error) {
					if attempt < 2 && offset > 0 {
						return 0, interrupted
					}
					return n, nil
				}
				var progress *Progress
				_, err := copyAll(t.Context(), r, Options{Progress: func(_ source.Point, is *Progress) {
					if progress = is; is.Ahead() != (c.resumes || attempt == 0) || is.Gained() {
						t.Errorf("attempt %d begins ahead: %v, gained: %v", attempt, is.Ahead(), is.Gained())
					}
				}}, p)
				if !errors.Is(err, interrupted) && (!c.resumes || attempt < 2) {
					t.Fatal(err)
				}
				if ahead := c.resumes || attempt != 1; progress.Ahead() != ahead || !progress.Gained() && !c.resumes {
					t.Errorf("attempt %d ends ahead: %v; %d blocks are stored, %d again", attempt, progress.Ahead(), progress.gained.Load(), progress.again.Load())
				}
			}
		})
	}
}
