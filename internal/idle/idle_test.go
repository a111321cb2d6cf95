package idle

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// What was begun for work that gives way is of the idle class, and its thread is what it was when that has ended.
func TestCallsGiveWayWhileTheyLast(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := ioprio(0)
	end := Begin(t.Context())
	if class := ioprio(0); class != was {
		t.Errorf("a call of other work has %#x, and had %#x", class, was)
	}
	end()
	end = Begin(Access(t.Context()))
	if class := ioprio(0); class != ioprioIdle {
		t.Errorf("its class is %#x", class)
	}
	end()
	if class := ioprio(0); class != was {
		t.Errorf("it has %#x afterwards, and had %#x", class, was)
	}
}

// Of a thread whose class was never set, kernels before 5.18 say that it has none, with the priority 4; they refuse to set that.
func TestThreadsWithoutClassGetThatBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := ioprio(0)
	defer setIOPrio(0, was)
	setIOPrio(0, ioprioIdle)
	setIOPrio(0, 4)
	if class := ioprio(0); class>>13 == ioprioIdle>>13 {
		t.Errorf("it has %#x still", class)
	}
}

func TestTheProcessGivesWay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gets the priority back")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	threads := func() map[int][2]int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		all := map[int][2]int{}
		for _, entry := range entries {
			id, _ := strconv.Atoi(entry.Name())
			if nice, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil { // else it has just ended
				all[id] = [2]int{20 - nice, ioprio(id)}
			}
		}
		return all
	}
	own := unix.Gettid()
	was := threads()[own]
	back := Process()
	for id, has := range threads() {
		if has != [2]int{leastNice, ioprioIdle} {
			t.Errorf("thread %d has %v", id, has)
		}
	}
	back()
	for id, has := range threads() {
		if has != was {
			t.Errorf("thread %d has %v afterwards, and %d had %v", id, has, own, was)
		}
	}
}
