package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ferry/internal/repo"
)

// parityFlag is the value of --parity: a share such as 5%, or numbers of shards such as 20+2.
type parityFlag struct{ chosen **repo.Parity }

func (f parityFlag) String() string {
	if f.chosen == nil || *f.chosen == nil {
		return ""
	}
	return parityText(*f.chosen)
}

func (parityFlag) Type() string { return "parity" }

func (f parityFlag) Set(text string) error {
	parsed, err := parseParity(text)
	if err == nil {
		err = parsed.Check()
	}
	if err != nil {
		return err
	}
	*f.chosen = &parsed
	return nil
}

var errParity = errors.New("it is neither a share from 1% to 100% nor DATA+PARITY, two numbers of shards such as 20+2")

func parseParity(text string) (repo.Parity, error) {
	if share, percent := strings.CutSuffix(text, "%"); percent {
		value, err := strconv.ParseFloat(share, 64)
		if err != nil || !(value >= 1 && value <= 100) {
			return repo.Parity{}, errParity
		}
		return repo.ParityShare(value / 100), nil
	}
	data, parity, both := strings.Cut(text, "+")
	d, dErr := strconv.Atoi(data)
	p, pErr := strconv.Atoi(parity)
	if !both || dErr != nil || pErr != nil {
		return repo.Parity{}, errParity
	}
	return repo.Parity{Data: d, Parity: p}, nil
}

// parityText is how parity is shown and can be typed; empty for none.
func parityText(p *repo.Parity) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%d+%d", p.Data, p.Parity)
}
