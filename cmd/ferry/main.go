// Command ferry keeps the second copy of virtual machines' backups.
package main

import (
	"fmt"
	"os"
	"runtime/pprof"

	"ferry/internal/cli"
)

func main() { os.Exit(run()) }

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
