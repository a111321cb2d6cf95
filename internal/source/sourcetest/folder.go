package sourcetest

import (
	"context"
	"testing"

	"ferry/internal/source"
)

// List opens a folder as a source of that name, and lists it. It is closed with the test.
func List(t testing.TB, folder, name string) (*source.Root, *source.Listing) {
	t.Helper()
	root, err := source.OpenRoot(folder, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	listing, err := source.List(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	return root, listing
}
