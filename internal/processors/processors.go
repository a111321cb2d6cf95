// Package processors says how many processors there are for work that is shared out among them, and has more threads run Go than
// that. A pool of one worker for each thread would hold a half more memory and do no more.
package processors

import (
	"runtime"
	"sync/atomic"
)

// beyond is how many threads run Go beyond one for each processor.
var beyond atomic.Int32

// Number is how many processors this process may use: its affinity, the limit of its control group and GOMAXPROCS in the environment
// count. At least one.
func Number() int { return max(runtime.GOMAXPROCS(0)-int(beyond.Load()), 1) }

// RunBeyond has this many threads more run Go than there are processors. It is for main, once and first.
//
// Go does not follow the limit of a control group any more after that: a server is started again when that has changed.
func RunBeyond(threads int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + threads)
	beyond.Store(int32(threads))
}
