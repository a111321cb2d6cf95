package cli

import (
	"testing"

	"ferry/internal/repo"
)

func TestParityFlag(t *testing.T) {
	for text, want := range map[string]repo.Parity{
		"5%": {Data: 244, Parity: 12}, "1%": {Data: 253, Parity: 3}, "100%": {Data: 128, Parity: 128}, "12.5%": {Data: 228, Parity: 28},
		"20+2": {Data: 20, Parity: 2}, "1+1": {Data: 1, Parity: 1},
	} {
		var chosen *repo.Parity
		flag := parityFlag{&chosen}
		if err := flag.Set(text); err != nil || *chosen != want {
			t.Errorf("%s: %v, %v; want %v", text, chosen, err, want)
		}
		var again *repo.Parity
		if err := (parityFlag{&again}).Set(flag.String()); err != nil || *again != want {
			t.Errorf("%s is shown as %s, which is %v, %v", text, flag, again, err)
		}
	}
	for _, text := range []string{"", "5", "0%", "101%", "NaN%", "%", "+", "20+", "0+1", "2+3", "250+7", "-1+1", "20+2%"} {
		var chosen *repo.Parity
		if err := (parityFlag{&chosen}).Set(text); err == nil {
			t.Errorf("%s is taken for %v", text, chosen)
		}
	}
}
