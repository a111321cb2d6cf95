// Package idle has work give way to all else that the machine does.
//
// A whole process may be of the least priority, single threads of a process that does other work too only in what they read and write.
// One that got next to no processor would keep all others waiting: Go stops all threads for a moment, again and again, and waits for
// each. On two busy processors that took a second in the middle, where it takes 40 µs.
//
// The package needs Linux.
package idle

import (
	"context"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// ioprioIdle is the class of threads that read and write only while nobody else does.
	ioprioIdle    = 3 << 13
	ioprioProcess = 1
	leastNice     = 19
)

// Process makes all threads of the process give way to everything else until the function that it returns is called. It is a favour: that
// it fails is no error. Threads that begin later have it from those that begin them. Only who may raise priorities gets that of the
// processor back.
func Process() (back func()) {
	nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	class := ioprio(0)
	setAll(leastNice, ioprioIdle)
	return func() { setAll(20-nice, class) } // what the kernel returns is 20 less the nice value
}

func setAll(nice, class int) {
	for range 2 { // some may have begun meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, thread := range threads {
			if id, err := strconv.Atoi(thread.Name()); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
				setIOPrio(id, class)
			}
		}
	}
}

func ioprio(thread int) int {
	class, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioProcess, uintptr(thread), 0)
	return int(class)
}

func setIOPrio(thread, class int) {
	if class>>13 == 0 { // none was set. Kernels before 5.18 say so with a priority all the same, and none of them takes that back
		class = 0
	}
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(thread), uintptr(class))
}

type accessKey struct{}

// Access is ctx for work that reads and writes only while nobody else does.
func Access(ctx context.Context) context.Context { return context.WithValue(ctx, accessKey{}, true) }

// IsAccess is true of such a context.
func IsAccess(ctx context.Context) bool { return ctx.Value(accessKey{}) != nil }

// Begin begins a call that reads or writes, in its own goroutine, which calls end after it.
func Begin(ctx context.Context) (end func()) {
	if !IsAccess(ctx) {
		return func() {}
	}
	runtime.LockOSThread()
	class := ioprio(0)
	setIOPrio(0, ioprioIdle)
	return func() {
		setIOPrio(0, class)
		runtime.UnlockOSThread()
	}
}
