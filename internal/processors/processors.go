// Package processors says how many processors there are for work that is shared out among them, and has more threads run Go than
// that. Pools of one worker for each thread hold up to twice the memory. They are no faster but for a full copy that has the machine to
// itself, which gains four hundredths, and beside other work takes longer (docs/performance.md).
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
