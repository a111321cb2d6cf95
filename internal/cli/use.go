package cli

import (
	"context"
	"fmt"
	"time"

	"ferry/internal/repo"
)

// useOf is what of a repository is needed, and how the newest points lie in it: found now, or else by the last reclaim.
func (a *app) useOf(ctx context.Context, repository *repo.Repository, analyze bool) (*repo.RepositoryUse, []repo.Fragmentation, error) {
	if !analyze {
		return repository.LastUse(ctx), nil, nil
	}
	use, lying, err := repository.Analyze(ctx, a.tempDir)
	return &use, lying, err
}

func useRows(use *repo.RepositoryUse, lying []repo.Fragmentation, logical int64) [][]string {
	if use == nil {
		return nil
	}
	rows := [][]string{
		{""},
		{"needed", size(use.Live) + ", as of " + when(use.At)},
		{"not needed", size(use.Dead) + "; ferry reclaim gives back what is worth it"},
		{"given up", size(use.Condemned) + " that waits to be deleted"},
	}
	if use.Content > 0 && use.Data > 0 {
		rows = append(rows,
			[]string{"deduplication", fmt.Sprintf("%.2f: %s of points are %s of different blocks", float64(logical)/float64(use.Content), size(logical), size(use.Content))},
			[]string{"compression", fmt.Sprintf("%.2f: they take %s", float64(use.Content)/float64(use.Data), size(use.Data))})
	}
	for _, f := range lying {
		rows = append(rows, []string{"reads per GiB", fmt.Sprintf("%s for the newest point of machine %s", perGiB(f), f.Machine)})
	}
	return rows
}

type useJSON struct {
	At        time.Time `json:"at"`
	LogEntry  int64     `json:"logEntry"`
	Live      int64     `json:"liveBytes"`
	Dead      int64     `json:"deadBytes"`
	Condemned int64     `json:"condemnedBytes"`
	Content   int64     `json:"contentBytes"`
	Data      int64     `json:"dataBytes"`
}

func describeUse(use *repo.RepositoryUse) *useJSON {
	if use == nil {
		return nil
	}
	return &useJSON{
		At: use.At.UTC(), LogEntry: int64(use.Entry), Live: use.Live, Dead: use.Dead, Condemned: use.Condemned, Content: use.Content, Data: use.Data,
	}
}

type lyingJSON struct {
	Pseudonym string `json:"pseudonym"`
	Point     string `json:"point"`
	Blocks    int    `json:"blocks"`
	Bytes     int64  `json:"bytes"`
	Runs      int    `json:"runs"`
}

func describeLying(lying []repo.Fragmentation) []lyingJSON {
	described := []lyingJSON{}
	for _, f := range lying {
		described = append(described, lyingJSON{Pseudonym: f.Machine.String(), Point: f.Point.String(), Blocks: f.Blocks, Bytes: f.Bytes, Runs: f.Runs})
	}
	return described
}
