// Command ferry keeps the second copy of virtual machines' backups.
package main

import (
	"os"

	"ferry/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
