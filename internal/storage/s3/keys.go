package s3

import (
	"crypto/rand"
	"os"
)

// hasRole is true if the environment says that the machine or container has a role whose keys are to be fetched.
func hasRole() bool {
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// randomMark is what a write knows its object by.
func randomMark() string { return rand.Text() }
