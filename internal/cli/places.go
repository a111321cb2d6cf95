package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/cachefile"
)

// placesKept is how many places of a repository are remembered.
const placesKept = 8

// placesFile has the places at which this machine has seen a repository, one on each line, the last one first.
func (a *app) placesFile(id string) string { return filepath.Join(a.cacheDir, id, "places") }

// placesOf are the places at which this machine has seen a repository.
func (a *app) placesOf(id string) []string {
	if a.cacheDir == "" {
		return nil
	}
	content, err := os.ReadFile(a.placesFile(id))
	if err != nil {
		return nil
	}
	return strings.FieldsFunc(string(content), func(r rune) bool { return r == '\n' })
}

// rememberPlace notes where a repository was seen. What cannot be noted is not asked about later.
func (a *app) rememberPlace(id, path string) {
	path = wherever(path)
	known := a.placesOf(id)
	if a.cacheDir == "" || len(known) > 0 && known[0] == path || strings.Contains(path, "\n") {
		return
	}
	places := append([]string{path}, slices.DeleteFunc(known, func(place string) bool { return place == path })...)
	_ = cachefile.Write(a.placesFile(id), []byte(strings.Join(places[:min(len(places), placesKept)], "\n")+"\n"))
}
