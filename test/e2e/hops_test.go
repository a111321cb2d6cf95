//go:build integration

package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// A copy of a copy keeps every point's identity, through other hashes, codecs and block sizes, and back again.
func TestCopyOfACopy(t *testing.T) {
	t.Parallel()
	u, folder := newUser(t), t.TempDir()
	a, b, c := filepath.Join(folder, "a"), filepath.Join(folder, "b"), filepath.Join(folder, "c")
	want := append(vzdumpDisks(t), virtnbdbackupDisks(t)...)
	u.copied(golden(t, "vzdump"), a, "--all", "--create")
	u.copied(golden(t, "virtnbdbackup"), a, "--all")
	origin := u.points(a)
	if len(origin) != len(want) {
		t.Fatalf("%d points, not %d", len(origin), len(want))
	}
	for _, hop := range []struct {
		from, to string
		options  []string
	}{
		{a, b, []string{"--create"}},
		{b, c, []string{"--create", "--sha256", "--block-size", "65536", "--codec", "zstd"}},
	} {
		first := u.copied(hop.from, hop.to, append([]string{"--all"}, hop.options...)...)
		if first.Copied != len(want) || first.Failed != 0 || first.StoredBytes == 0 {
			t.Errorf("%s to %s: %+v", hop.from, hop.to, first)
		}
		u.verified(hop.to)
	}
	for i, p := range u.points(c) {
		o := origin[i]
		if p.ID != o.ID || p.Machine != o.Machine || !p.Created.Equal(o.Created) || p.Origin != o.Origin {
			t.Errorf("point %d came as %+v, was %+v", i, p, o)
		}
		// What is stored with the point: a listing adds the repository that it is a listing of.
		to := filepath.Join(folder, "for its hops")
		stored := decode[struct{ Point pointInfo }](t, u.want(0, "restore", c, p.Machine.ID, "--point", p.ID, "--to", to, "--force", "--json")).Point
		var hops []string
		for _, hop := range stored.Hops {
			hops = append(hops, hop.Repository)
		}
		if want := []string{repositoryID(u, a), repositoryID(u, b)}; !slices.Equal(hops, want) {
			t.Errorf("point %d came by %v, not %v", i, hops, want)
		}
	}
	for _, repository := range []string{b, c} {
		for _, p := range u.points(repository) {
			at := slices.Index(ids(origin), p.ID)
			wanted := want[indexByTime(t, origin, at)]
			if got := disks(u.restored(repository, p)); !maps.Equal(got, wanted) {
				t.Errorf("%s from %s: %v, not %v", p.ID, repository, got, wanted)
			}
		}
	}
	// Nothing is copied twice: not forwards, not back to where it came from, not past a station.
	for _, hop := range [][2]string{{a, b}, {b, c}, {c, a}, {b, a}, {a, c}, {golden(t, "vzdump"), c}, {golden(t, "virtnbdbackup"), b}} {
		before := sumTree(t, hop[1])
		again := u.copied(hop[0], hop[1], "--all")
		if again.Copied != 0 || again.StoredBytes != 0 || again.Failed != 0 || again.AlreadyThere == 0 {
			t.Errorf("%s to %s: %+v", hop[0], hop[1], again)
		}
		for _, step := range again.Steps {
			if step.ReadBytes != 0 {
				t.Errorf("%s to %s read %d bytes of %s", hop[0], hop[1], step.ReadBytes, step.Point)
			}
		}
		if !maps.Equal(before, sumTree(t, hop[1])) {
			t.Errorf("%s to %s changed the target", hop[0], hop[1])
		}
	}
}

// indexByTime finds which sample a point is: vzdump's come first in the list of sums, then virtnbdbackup's.
func indexByTime(t *testing.T, origin []pointInfo, at int) int {
	t.Helper()
	platform, rank := origin[at].Machine.Platform, 0
	for _, p := range origin {
		if p.Machine.Platform == platform && p.Created.Before(origin[at].Created) {
			rank++
		}
	}
	if platform == "libvirt" {
		rank += 3
	}
	return rank
}

func repositoryID(u *user, path string) string {
	return decode[struct{ ID string }](u.t, u.want(0, "repo", "info", path, "--json")).ID
}

// A new point in the first repository goes on as an increment: what the next one has is neither read nor sent.
func TestIncrementOfACopy(t *testing.T) {
	t.Parallel()
	u, folder := newUser(t), t.TempDir()
	a, b := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	from := golden(t, "virtnbdbackup")
	u.copied(filepath.Join(from, "plain"), a, "--all", "--create")
	u.copied(a, b, "--all", "--create")
	u.copied(filepath.Join(from, "lz4"), a, "--all")
	before := packBytes(t, b)
	next := u.copied(a, b, "--all")
	if next.Copied != 2 || next.AlreadyThere != 4 {
		t.Errorf("%+v", next)
	}
	if grown := packBytes(t, b) - before; grown > 2*mib {
		t.Errorf("two points that change little took %d bytes", grown)
	}
	for i, p := range u.points(b) {
		if got, want := disks(u.restored(b, p)), virtnbdbackupDisks(t)[i]; !maps.Equal(got, want) {
			t.Errorf("point %d: %v, not %v", i, got, want)
		}
	}
}
