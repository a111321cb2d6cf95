// Command ferry keeps the second copy of virtual machines' backups.
package main

import (
	"fmt"
	"os"
	"runtime/pprof"

	"ferry/internal/cli"
	"ferry/internal/processors"
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" {
		processors.RunBeyond(inKernel)
	}
	os.Exit(run())
}

// inKernel is how many threads may run Go beyond one for each processor. A thread that stands in the kernel, as all do that write past
// the page cache, keeps its place among those for some milliseconds, and a processor would idle for as long: 12 hundredths of a full
// copy on two.
const inKernel = 2

// run is the program. With FERRY_CPUPROFILE=FILE it writes there where its time went, for go tool pprof.
func run() int {
	if path := os.Getenv("FERRY_CPUPROFILE"); path != "" {
		file, err := os.Create(path)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "ferry: FERRY_CPUPROFILE:", err)
			return cli.ExitUsage
		}
		defer file.Close()
		defer pprof.StopCPUProfile()
	}
	return cli.Main(os.Args[1:], os.Stdout, os.Stderr)
}
