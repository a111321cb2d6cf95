package keyring

import (
	"fmt"

	"filippo.io/age"
)

// Passphrase is a secret that a person knows. It prints as a placeholder.
type Passphrase struct{ secret string }

// NewPassphrase takes a secret, which must not be empty to be of use.
func NewPassphrase(secret string) Passphrase { return Passphrase{secret} }

// Format never tells the passphrase, whatever the verb.
func (Passphrase) Format(state fmt.State, _ rune) { fmt.Fprint(state, "(secret)") }

// Equal is true for the same passphrase.
func (p Passphrase) Equal(other Passphrase) bool { return p.secret == other.secret }

// Length in bytes.
func (p Passphrase) Length() int { return len(p.secret) }

// IsEmpty is true if there is none.
func (p Passphrase) IsEmpty() bool { return p.secret == "" }

// Recipient wraps key rings for the passphrase.
func (p Passphrase) Recipient() (age.Recipient, error) {
	recipient, err := age.NewScryptRecipient(p.secret)
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(workFactor)
	return recipient, nil
}

// Identity opens what Recipient wrapped. It refuses files that would burn memory and time.
func (p Passphrase) Identity() (age.Identity, error) {
	identity, err := age.NewScryptIdentity(p.secret)
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(maxWork)
	return identity, nil
}
