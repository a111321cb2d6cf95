package cli

import (
	"errors"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// Keys that a rotation could not give the new data key to are named, and what helps.
func TestKeysWithoutTheNewDataKey(t *testing.T) {
	keys := []repo.Key{{ID: "0123456789abcdef0123456789abcdef", Kind: repo.KeyPassphrase, Label: "the safe"}, {ID: "fedcba9876543210fedcba9876543210", Kind: repo.KeyX25519}}
	for hint, err := range map[string]error{"--passphrase-file": &repo.CannotRotateError{Keys: keys}, "ferry key add": &repo.LateKeysError{Keys: keys}} {
		err := keyError(err)
		var told *backup.Error
		var exit *exitError
		if !errors.As(err, &told) || !strings.Contains(told.Hint, hint) || !errors.As(err, &exit) || exit.code != ExitKey {
			t.Errorf("%v", err)
		}
		if text := err.Error(); !strings.Contains(text, "0123456789ab (passphrase) the safe, fedcba987654 (age key (X25519))") {
			t.Errorf("%s", text)
		}
	}
	if err := keyError(nil); err != nil {
		t.Errorf("nothing is wrong, and: %v", err)
	}
}
