package cli

import (
	"time"

	"ferry/internal/repo"
)

// keysJSON is the output of key list, add, remove and rotate. Public keys and labels are in it: it is for those who have a key.
type keysJSON struct {
	Repository placeJSON `json:"repository"`
	// Generation of the data key for what is written from now on; 0 without a key.
	Generation  uint32    `json:"generation"`
	PostQuantum bool      `json:"postQuantum"`
	Keys        []keyJSON `json:"keys"`
}

type keyJSON struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Generation uint32 `json:"generation"`
	Label      string `json:"label"`
	PublicKey  string `json:"publicKey"`
	// Added is empty if it is not known.
	Added string `json:"added"`
	// Damaged is true if nobody opens the repository by it any more.
	Damaged bool `json:"damaged"`
}

// kitJSON is the output of key export.
type kitJSON struct {
	Repository placeJSON `json:"repository"`
	File       string    `json:"file"`
	Encrypted  bool      `json:"encrypted"`
}

// generatedJSON is the output of key generate.
type generatedJSON struct {
	File      string `json:"file"`
	PublicKey string `json:"publicKey"`
}

func describeKeys(repository *repo.Repository, list []repo.Key) keysJSON {
	described := keysJSON{Repository: describePlace(repository), Generation: repository.KeyGeneration(), PostQuantum: repo.PostQuantum(list), Keys: []keyJSON{}}
	for _, key := range list {
		out := keyJSON{ID: key.ID, Kind: string(key.Kind), Generation: key.Generation, Label: printable(key.Label), PublicKey: key.PublicKey, Damaged: key.Damaged}
		if key.Known {
			out.Added = key.Added.UTC().Format(time.RFC3339)
		}
		described.Keys = append(described.Keys, out)
	}
	return described
}
