package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/cli"
)

func ferry(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := cli.Main(append(args, "--json", "--cache-dir", t.TempDir()), &out, &errOut); code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, errOut.String())
	}
	return out.Bytes()
}

// The folder is one that Ferry reads as a chain: of the second point it reads what changed and nothing else.
func TestChainIsReadAsOne(t *testing.T) {
	work := t.TempDir()
	at := func(name string) string { return filepath.Join(work, name) }
	base := make([]byte, 40*cluster)
	for i := range base[:30*cluster] {
		base[i] = byte(i>>12) | 1
	}
	next := bytes.Clone(base)
	next[3*cluster+7], next[4*cluster], next[20*cluster] = 0, 0, 0
	for name, content := range map[string][]byte{"base": base, "next": next} {
		if err := os.WriteFile(at(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := run(at("chain"), at("base"), ""); err != nil || data < 30*cluster {
		t.Fatalf("%d bytes in the full backup, %v", data, err)
	}
	ferry(t, "copy", at("chain"), at("vault"), "--create")
	data, err := run(at("chain"), at("base"), at("next"))
	if err != nil || data != 3*cluster {
		t.Fatalf("%d bytes in the increment, %v", data, err)
	}
	var report struct{ SourceBytesRead int64 }
	if err := json.Unmarshal(ferry(t, "copy", at("chain"), at("vault")), &report); err != nil || report.SourceBytesRead > 8*cluster {
		t.Fatalf("%d bytes of the source were read, %v", report.SourceBytesRead, err)
	}
	ferry(t, "restore", at("vault"), "bench", "--to", at("restored"))
	restored, err := os.ReadFile(at("restored/vda.raw"))
	if err != nil || !bytes.Equal(restored, next) {
		t.Fatalf("the restored disk differs, %v", err)
	}
}
