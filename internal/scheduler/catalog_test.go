package scheduler

import (
	"path/filepath"
	"testing"

	"ferry/internal/catalog"
)

// offsite are the settings of a job that copies from pve to vault, which fewResources makes.
const offsite = "source: {repositories: [pve]}\ntarget: {repository: vault}\nschedule: {every: 1h}\n"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// emptyCatalog is one of the test's own.
func emptyCatalog(t *testing.T) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// fewResources is a catalog with two repositories.
func fewResources(t *testing.T) *catalog.Catalog {
	t.Helper()
	c := emptyCatalog(t)
	for _, name := range []string{"pve", "vault"} {
		put(t, c, "Repository", name, "location: /mnt/"+name+"\n", 0)
	}
	return c
}

// put makes a resource, or changes one of a version.
func put(t *testing.T, c *catalog.Catalog, kind, name, settings string, version int64) catalog.Resource {
	t.Helper()
	made, err := c.Resources.Put(t.Context(), kind, name, "kind: "+kind+"\nname: "+name+"\n"+settings, version)
	must(t, err)
	return made
}
