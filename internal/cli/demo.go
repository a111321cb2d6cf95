package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Show the whole story on generated machines, in a temporary folder",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return nil },
	}
}
