package server

import (
	"fmt"
	"strings"
)

// The kinds of resources.
const (
	kindJob        = "Job"
	kindRepository = "Repository"
)

// describe names a resource for a person.
func describe(kind, name string) string { return strings.ToLower(kind) + " " + name }

// etag is a version as an entity tag.
func etag(version int64) string { return fmt.Sprintf("%q", fmt.Sprint(version)) }
