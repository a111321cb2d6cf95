package cli

import (
	"time"

	"ferry/internal/repo"
)

// verifyJSON is the output of verify.
type verifyJSON struct {
	Repository    placeJSON    `json:"repository"`
	Level         string       `json:"level"`
	Locked        bool         `json:"locked"`
	LogEntries    int          `json:"logEntries"`
	Packs         int          `json:"packs"`
	Points        int          `json:"points"`
	Frames        int64        `json:"frames"`
	Bytes         int64        `json:"bytes"`
	FreshPacks    int          `json:"freshPacks"`
	UnreadPacks   int          `json:"unreadPacks"`
	Complete      bool         `json:"complete"`
	Begun         time.Time    `json:"begun,omitzero"`
	PendingPacks  int          `json:"pendingPacks"`
	NotedPlaces   int          `json:"notedPlaces"`
	DamagedPoints int          `json:"damagedPoints"`
	Requests      requestsJSON `json:"storageRequests"`
	Damage        []damageJSON `json:"damage"`
	Healed        []damageJSON `json:"healed"`
	Remade        []string     `json:"remade"`
	Mended        mendedJSON   `json:"mended"`
	Proven        []provenJSON `json:"proven"`
}

type damageJSON struct {
	Machine string `json:"machine"`
	Point   string `json:"point"`
	Object  string `json:"object"`
	Offset  int64  `json:"offset"`
	Length  int64  `json:"length"`
	File    string `json:"file"`
	Reason  string `json:"reason"`
}

// provenJSON says how old the oldest proof of any pack is, in verify and repo info. Oldest is year 1 while a pack was never
// proven.
type provenJSON struct {
	Level      string    `json:"level"`
	Oldest     time.Time `json:"oldest"`
	NeverPacks int       `json:"neverPacks"`
}

func describeDamage(damage []repo.Damage) []damageJSON {
	described := []damageJSON{}
	for _, d := range damage {
		described = append(described, damageJSON{
			Machine: printable(d.Machine), Point: d.Point, Object: printable(d.Object), Offset: d.Offset, Length: d.Length, File: d.File, Reason: readable(d.Reason),
		})
	}
	return described
}

func describeProven(proven []repo.Proven) []provenJSON {
	described := []provenJSON{}
	for _, p := range proven {
		described = append(described, provenJSON{Level: p.Level.String(), Oldest: p.Oldest.UTC(), NeverPacks: p.Never})
	}
	return described
}
