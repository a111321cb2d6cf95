package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/policy"
)

// The words that stand for limits.
const (
	noLimit       = "none"
	limitsAtStart = "default"
)

func (a *app) bandwidthCommand() *cobra.Command {
	var at asked
	command := &cobra.Command{
		Use: "bandwidth [LIMIT]...", Short: "Say or change how much all jobs together may read and write across a network",
		Long: `Print the limits of all jobs of the server together for what crosses a network, or set
others. They hold at once, also for copies in progress, and after the server was started
again. LIMIT is a rate, or a rate and when it holds by the server's clock; of several the
lowest that holds counts. none is no limit, and default what ferry serve --bandwidth says.

Those of single jobs and repositories are in their YAML, and change with ferry apply.`,
		Example: "  ferry bandwidth\n  ferry bandwidth 20MB/s\n  ferry bandwidth 200Mbit/s \"50Mbit/s mon-fri 08:00-18:00\"\n  ferry bandwidth default",
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, noFiles
			}
			return []string{noLimit, limitsAtStart}, noFiles
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.changeBandwidth(cmd.Context(), at, args) },
	}
	at.serverFlags(command)
	return command
}

func (a *app) changeBandwidth(ctx context.Context, at asked, args []string) error {
	bandwidth, err := at.client().Bandwidth(ctx)
	switch {
	case err != nil || len(args) == 0:
	case len(args) == 1 && args[0] == limitsAtStart:
		bandwidth, err = at.client().ResetBandwidth(ctx, bandwidth.Version)
	case len(args) == 1 && args[0] == noLimit:
		bandwidth, err = at.client().SetBandwidth(ctx, []string{}, bandwidth.Version)
	default:
		bandwidth, err = at.client().SetBandwidth(ctx, args, bandwidth.Version)
	}
	if err != nil {
		return at.failed(err)
	}
	if a.json {
		return a.printJSON(bandwidth)
	}
	a.line("%s", describeBandwidth(bandwidth))
	return nil
}

// describeBandwidth says how the limits of all jobs together stand.
func describeBandwidth(b api.Bandwidth) string {
	text := "all jobs together: " + readable(strings.Join(b.Limits, ", "))
	if len(b.Limits) == 0 {
		text = "all jobs together: no limit"
	} else if now := rateNow(b); strings.TrimSpace(b.Limits[0]) != now {
		text += "; now " + now
	}
	if b.Since.IsZero() {
		return text + "; as the server was started"
	}
	return text + "; set " + when(b.Since)
}

// rateNow is what holds now, as it was typed.
func rateNow(b api.Bandwidth) string {
	now := policy.Rate(b.Now)
	for _, limit := range b.Limits {
		typed, _, _ := strings.Cut(strings.TrimSpace(limit), " ")
		if rate, err := policy.ParseRate(typed); err == nil && rate == now {
			return readable(typed)
		}
	}
	return now.String()
}
