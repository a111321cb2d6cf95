//go:build integration

package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// missingReport is what job missing prints.
type missingReport struct {
	NewBytes, StoredBytes, WrittenBytes int64
	Points                              []struct {
		Machine                                     struct{ ID, Name string }
		Point                                       string
		ReadBytes, NewBytes, StoredBytes, NodeBytes int64
		Error                                       string
	}
}

// misses asks a job what is missing, runs it, and compares: what blocks hold to the byte, what they take within 1 % if the
// target knows the machines, and what packs and points' files have grown by within 1 %. Where machines are copied one at a time
// (inTurn), blocks are compared point by point: else either of two machines may bring what they share.
func (u *user) misses(what, file, target string, inTurn bool) missingReport {
	u.t.Helper()
	written := func() int64 {
		return packBytes(u.t, target) + bytesOf(u.t, filepath.Join(target, "points"))
	}
	tree := sumTree(u.t, target)
	missing := decode[missingReport](u.t, u.want(0, "job", "missing", "-f", file, "--json"))
	if after := sumTree(u.t, target); len(after) != len(tree) {
		u.t.Errorf("%s: asking what is missing has written", what)
	}
	before := written()
	session := decode[sessionReport](u.t, u.want(0, "job", "run", "--once", "-f", file, "--json"))
	copies := session.copies()
	if len(copies) != len(missing.Points) {
		u.t.Errorf("%s: %d points copied, %d missing", what, len(copies), len(missing.Points))
	}
	stored, fresh := int64(0), int64(0)
	for _, p := range missing.Points {
		c := copies[p.Point]
		stored += c.StoredBytes
		fresh += c.NewBytes
		if p.Error != "" || inTurn && p.NewBytes != c.NewBytes || p.ReadBytes < c.ReadBytes {
			u.t.Errorf("%s: missing %+v, copied %+v", what, p, c)
		}
	}
	if fresh != missing.NewBytes {
		u.t.Errorf("%s: %d bytes of blocks copied, %d missing", what, fresh, missing.NewBytes)
	}
	grown := written() - before
	within := func(name string, said, did int64) {
		if math.Abs(float64(said-did)) > 0.01*float64(did) {
			u.t.Errorf("%s: %s: said %d, did %d", what, name, said, did)
		}
	}
	within("stored", missing.StoredBytes, stored)
	within("written", missing.WrittenBytes, grown)
	u.t.Logf("%s: %d points, new %d, stored %d (said %d), written %d (said %d)", what, len(copies), missing.NewBytes, stored, missing.StoredBytes, grown, missing.WrittenBytes)
	if again := decode[missingReport](u.t, u.want(0, "job", "missing", "-f", file, "--json")); len(again.Points) > 0 || again.WrittenBytes != 0 {
		u.t.Errorf("%s: something is missing still: %+v", what, again)
	}
	return missing
}

// What is missing equals what the next interval writes: for archives that come one after the other, images that change, and
// chains of increments.
func TestMissingOnRealBackups(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	target := filepath.Join(folder, "vault")
	archives, err := filepath.Glob(filepath.Join(golden(t, "vzdump"), "*.vma.[zgl]*[toz]"))
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(folder, "states")
	unpack(t, filepath.Join(golden(t, "ref"), "ref.tar.zst"), raw)
	text := `{kind: Repository, name: pve, location: dump}
---
{kind: Repository, name: pictures, location: images}
---
{kind: Repository, name: chains, location: %q}
---
{kind: Repository, name: vault, location: vault, slots: 1}
---
kind: Job
name: offsite
source: {repositories: [%s]}
backfill: all
target: {repository: vault}
`
	write := func(name, sources string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, fmt.Appendf(nil, text, golden(t, "virtnbdbackup"), sources), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	two, all := write("two.yaml", "pve, pictures"), write("all.yaml", "pve, pictures, chains")
	u := newUser(t)
	u.want(0, "repo", "init", target)
	at := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for k, archive := range archives {
		copyFile(t, archive, filepath.Join(folder, "dump", filepath.Base(archive)))
		image := filepath.Join(folder, "images", "db.raw")
		copyFile(t, filepath.Join(raw, fmt.Sprintf("disk.%d.raw", k)), image)
		if err := os.Chtimes(image, at, at.AddDate(0, 0, k)); err != nil {
			t.Fatal(err)
		}
		if found := u.misses(fmt.Sprint("state ", k), two, target, true); len(found.Points) != 2 {
			t.Errorf("state %d: %+v", k, found)
		}
	}
	if found := u.misses("chains", all, target, true); len(found.Points) != 6 || !strings.HasPrefix(found.Points[0].Machine.ID, "libvirt/") {
		t.Errorf("chains: %+v", found)
	}
}
