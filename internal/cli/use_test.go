package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// How points lie in all is the sum of the machines', in JSON and in the last line; without --analyze neither is known.
func TestFragmentationInAll(t *testing.T) {
	dir := t.TempDir()
	vault, cache, images := filepath.Join(dir, "vault"), filepath.Join(dir, "cache"), filepath.Join(dir, "images")
	for i, name := range []string{"web.raw", "db.raw"} {
		content := make([]byte, (i+1)<<20)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(content)
		if err := errors.Join(os.MkdirAll(images, 0o700), os.WriteFile(filepath.Join(images, name), content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ExitDone, "copy", images, vault, "--create", "--cache-dir", cache)
	info := func(flags ...string) string {
		t.Helper()
		out, _ := run(t, ExitDone, append([]string{"repo", "info", vault, "--cache-dir", cache}, flags...)...)
		return out
	}
	parsed := func(document string) (found repositoryInfoJSON) {
		t.Helper()
		if err := json.Unmarshal([]byte(document), &found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	found := parsed(info("--analyze", "--json"))
	var sum allLyingJSON
	for _, machine := range found.Fragmentation {
		sum.Blocks += machine.Blocks
		sum.Bytes += machine.Bytes
		sum.Runs += machine.Runs
		sum.RunsInOrder += machine.RunsInOrder
	}
	if all := found.AllFragmentation; len(found.Fragmentation) != 2 || sum.RunsInOrder == 0 || sum.Runs < sum.RunsInOrder || all == nil || *all != sum {
		t.Fatalf("%+v in all, of %+v", all, found.Fragmentation)
	}
	lines := strings.Split(strings.TrimSpace(info("--analyze")), "\n")
	perGiB := func(reads int) float64 { return float64(reads) / (float64(sum.Bytes) / (1 << 30)) }
	if last, want := lines[len(lines)-1], fmt.Sprintf("; %.1f reads per GiB of their newest points, %.1f if they lay in order", perGiB(sum.Runs), perGiB(sum.RunsInOrder)); !strings.HasSuffix(last, want) {
		t.Errorf("the last line %q does not end with %q", last, want)
	}
	if found := parsed(info("--json")); found.AllFragmentation != nil || len(found.Fragmentation) > 0 {
		t.Errorf("without --analyze: %+v, %+v", found.AllFragmentation, found.Fragmentation)
	}
}
