package processors

import (
	"runtime"
	"testing"
)

func TestNumberIsWithoutThreadsBeyond(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	defer func() {
		runtime.GOMAXPROCS(threads)
		beyond.Store(0)
	}()
	if n := Number(); n != threads {
		t.Fatalf("%d processors, and Go has %d", n, threads)
	}
	RunBeyond(2)
	if n, running := Number(), runtime.GOMAXPROCS(0); n != threads || running != threads+2 {
		t.Errorf("%d processors and %d threads, with two threads beyond %d", n, running, threads)
	}
	runtime.GOMAXPROCS(1) // less than RunBeyond counted on
	if n := Number(); n != 1 {
		t.Errorf("%d processors with one thread", n)
	}
}
