package repo_test

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

// chain is a log that grows.
type chain struct {
	f       *files
	entries [][]byte
	head    commitlog.Head
}

// next makes the bytes of the entry that follows, with a MAC of a generation, or none with 0.
func (c *chain) next(generation uint32, payload commitlog.Payload) []byte {
	c.f.t.Helper()
	if payload.Time.IsZero() {
		payload.Time = time.Date(2026, 11, 22, 1, 0, int(c.head.N), 0, time.UTC)
	}
	payload.Writer = format.Name(ramp(16)).String()
	raw, _, err := commitlog.Encode(c.f.hasherOf(generation), c.head.N+1, c.head.Checksum, &payload)
	if err != nil {
		c.f.t.Fatal(err)
	}
	return raw
}

// append adds it.
func (c *chain) append(generation uint32, payload commitlog.Payload) {
	raw := c.next(generation, payload)
	c.entries = append(c.entries, raw)
	c.head = commitlog.Head{N: c.head.N + 1, Checksum: format.ID(raw[len(raw)-32:])}
}

// with is the log and one more entry.
func (c *chain) with(raw []byte) [][]byte {
	return slices.Concat([][]byte{c.f.rawRing}, c.entries, [][]byte{raw})
}

// Names of what the log of the vectors has.
var (
	packA, packB, packC = format.Name(ramp(17)[1:]), format.Name(ramp(18)[2:]), format.Name(ramp(19)[3:])
	vectorDomain        = format.Name(ramp(32)[16:])
	pointR              = backup.PointID(ramp(59)[27:])
	pointP, pointQ      = backup.PointID(ramp(33)[1:]), backup.PointID(ramp(34)[2:])
	taskOne, taskTwo    = format.Name(ramp(36)[20:]), format.Name(ramp(37)[21:])
	segmentOne          = format.Name(ramp(38)[22:])
)

func point(id backup.PointID) commitlog.Point {
	machine, created := format.Name(ramp(40)[24:]), time.Date(2026, 11, 22, 0, 30, 0, 500_000_000, time.UTC)
	named := commitlog.Point{ID: id, Machine: machine, Created: created, Checksum: format.ID(ramp(48)[16:])}
	return named.WithFile(fmt.Sprintf("points/%s/%s-%s-0011aabb", machine, created.Format(stampLayout), id))
}

// begun is a log of four entries, with everything that an entry can add, and a rotation.
func (f *files) begun() *chain {
	c := &chain{f: f}
	c.append(1, commitlog.Payload{
		Program: "ferry 1", Domains: []commitlog.Domain{{ID: f.ring.Repository}},
		Repository: &commitlog.Repository{ID: f.ring.Repository, Checksum: format.ID(ramp(64)[32:])},
	})
	day, hour := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	made := func(id format.Name, kind string, domain format.Name) commitlog.Pack {
		return commitlog.Pack{ID: id, Kind: kind, Domain: domain, Size: 1000, Frames: 2, Root: format.ID(ramp(50)[18:])}
	}
	c.append(1, commitlog.Payload{
		Domains: []commitlog.Domain{{ID: vectorDomain, Sealed: true}},
		Packs:   []commitlog.Pack{made(packA, "data", f.ring.Repository), made(packB, "nodes", f.ring.Repository), made(packC, "data", vectorDomain)},
		Index:   []commitlog.Segment{{ID: segmentOne, Size: 500, Checksum: format.ID(ramp(52)[20:]), Packs: []format.Name{packA, packB, packC}}},
		Points:  []commitlog.Point{point(pointP), point(pointQ)},
		Claims: []commitlog.Claim{
			{Point: pointP, Job: "nightly", Reason: "first", Flags: []string{"weekly:2026-11-22", "monthly:2026-11-01"}}, {Point: pointP, Job: "manual"}, {Point: pointQ, Job: "nightly"},
		},
		Holds:    []commitlog.Hold{{Point: pointP, ID: "person", Reason: "audit"}, {Point: pointQ, ID: "00112233", Until: &hour}},
		Partials: []commitlog.Partial{{Task: taskOne, Point: pointP, Machine: packA, File: "partials/a", Checksum: format.ID(ramp(53)[21:])}},
		Locked:   &day,
	})
	c.append(2, commitlog.Payload{Rotated: 2})
	c.append(2, commitlog.Payload{
		Claims:  []commitlog.Claim{{Point: pointP, Job: "nightly", Reason: "second", Flags: []string{"none"}}},
		Damaged: []commitlog.Damaged{{Point: pointQ, Places: 1, Bytes: 4096}, {Point: pointR, File: true}},
		Bad:     []commitlog.Bad{{Pack: packA, Offset: 64, Length: 200, ID: format.ID(ramp(54)[22:])}, {Pack: packB}},
		Partials: []commitlog.Partial{
			{Task: taskTwo, Point: pointQ, Machine: packA, File: "partials/b", Checksum: format.ID(ramp(55)[23:])},
			{Task: taskTwo, Point: pointQ, Machine: packA, File: "partials/c", Checksum: format.ID(ramp(56)[24:])},
		},
		Tombstones: []commitlog.Tombstone{{ID: pointR, Machine: packA, Created: hour}, {ID: backup.PointID(ramp(57)[25:]), Machine: packA, Created: hour, Reason: "gone"}, {ID: backup.PointID(ramp(58)[26:]), Machine: packA, Created: hour}},
	})
	return c
}

// later is the log with what a writer without the key may say, and all that an entry can take away.
func (f *files) later() *chain {
	c := f.begun()
	until := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	c.append(0, commitlog.Payload{
		Time: until, ClaimsWithdrawn: []commitlog.Claim{{Point: pointQ, Job: "nightly"}}, PointsRemoved: []backup.PointID{pointQ},
		Condemned: []format.Name{packC}, CondemnedFiles: []string{point(pointQ).File(), "index/x"}, PartialsEnded: []format.Name{taskOne},
		Bad: []commitlog.Bad{{Pack: packC, Offset: 64, Length: 100, ID: format.ID(ramp(54)[22:])}}, Damaged: []commitlog.Damaged{{Point: pointP, File: true}},
	})
	c.append(2, commitlog.Payload{
		Points:           []commitlog.Point{point(pointQ), point(pointR)}, // what a tombstone and a damage were said of
		TombstonesLifted: []backup.PointID{backup.PointID(ramp(57)[25:])}, HoldsReleased: []commitlog.Hold{{Point: pointP, ID: "person"}},
		BadHealed: []commitlog.Bad{{Pack: packB}}, DamagedHealed: []backup.PointID{pointP}, Condemned: []format.Name{packA, packC},
	})
	c.append(0, commitlog.Payload{Deleted: []format.Name{packC}, DeletedFiles: []string{"index/x"}, IndexRemoved: []format.Name{segmentOne}})
	early := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	c.append(2, commitlog.Payload{Locked: &early, Holds: []commitlog.Hold{{Point: pointP, ID: "44556677", Until: &until}}})
	return c
}

func (f *files) logs() {
	c := f.later()
	input := slices.Concat([][]byte{f.rawRing}, c.entries)
	f.says("log with a rotation, and entries without MAC", "openEntries", fmt.Sprintf("head=%s keyless=5,7", c.head.Checksum), input...)
	f.refusedEntries()
	f.checkpoints(c)
}

// refusedEntries are logs with an entry that no reader may believe.
func (f *files) refusedEntries() {
	c := f.begun()
	sealed := c.next(2, commitlog.Payload{})
	context := format.ContextLogEntry
	damaged := func(name, class string, raw []byte) { f.refused(name, "openEntries", class, c.with(raw)...) }
	damaged("an entry with a damaged byte", "corrupt", flipped(sealed, 80))
	damaged("an entry of another number", "corrupt", c.entries[3])
	damaged("an entry that does not follow the one before", "corrupt", (&chain{f: f, head: commitlog.Head{N: 4, Checksum: format.ID(ramp(32))}}).next(2, commitlog.Payload{}))
	damaged("an entry whose payload is shorter than it says", "corrupt", f.changed(sealed, context, func(raw []byte) { raw[64]++ }))
	damaged("an entry of version 2", "newer", f.changed(sealed, context, func(raw []byte) { raw[8] = 2 }))
	damaged("an entry with a required bit that no entry has", "newer", f.changed(sealed, context, func(raw []byte) { raw[12] = 1 }))
	damaged("an entry that was changed", "forged", f.changed(sealed, context, func(raw []byte) { raw[bytes.Index(raw, []byte("2026"))+3]++ }))
	damaged("an entry with a MAC of no generation", "forged", f.changed(sealed, context, func(raw []byte) { raw[20] = 0 }))
	damaged("an entry of a generation that the ring lacks", "key", f.changed(sealed, context, func(raw []byte) { raw[20] = 9 }))
	damaged("an entry of the generation before the last MAC's", "forged", c.next(1, commitlog.Payload{}))
	f.refused("an entry with a MAC in a repository that is not encrypted", "openEntries", "forged", nil, f.begun().entries[0])

	keyless := func(name string, payload commitlog.Payload) {
		f.refused("an entry without MAC "+name, "openEntries", "forged", c.with(c.next(0, payload))...)
	}
	late := time.Date(2026, 11, 22, 1, 59, 59, 0, time.UTC)
	keyless("that claims", commitlog.Payload{Claims: []commitlog.Claim{{Point: pointP, Job: "manual"}}})
	keyless("that ends a rotation", commitlog.Payload{Rotated: 2})
	keyless("that names a pack", commitlog.Payload{Packs: []commitlog.Pack{{ID: packA, Kind: "data", Domain: f.ring.Repository}}})
	keyless("that heals", commitlog.Payload{DamagedHealed: []backup.PointID{pointQ}})
	keyless("that removes a point with a claim", commitlog.Payload{ClaimsWithdrawn: []commitlog.Claim{{Point: pointP, Job: "manual"}}, PointsRemoved: []backup.PointID{pointP}})
	keyless("that removes a point that is held", commitlog.Payload{Time: late, ClaimsWithdrawn: []commitlog.Claim{{Point: pointQ, Job: "nightly"}}, PointsRemoved: []backup.PointID{pointQ}})
	keyless("that deletes a pack which was not condemned before", commitlog.Payload{Condemned: []format.Name{packA}, Deleted: []format.Name{packA}})
	keyless("that deletes a file which was not condemned before", commitlog.Payload{DeletedFiles: []string{"index/x"}})

	// Two generations that were made after the same one: neither follows the other.
	both := newFiles(f.t, f.algorithm)
	both.ring = f.united()
	both.rawRing = both.ring.Encode()
	f.refused("an entry of a generation that does not follow the last MAC's", "openEntries", "forged",
		slices.Concat([][]byte{both.rawRing}, c.entries, [][]byte{(&chain{f: both, head: c.head}).next(3, commitlog.Payload{})})...)
}

// checkpoint of the state after a log, with a MAC of a generation.
func (c *chain) checkpoint(generation uint32) []byte {
	c.f.t.Helper()
	state := commitlog.NewState()
	for n, raw := range c.entries {
		payload, _, head, err := commitlog.Decode(c.f.hasher, uint64(n+1), raw)
		if err != nil {
			c.f.t.Fatal(err)
		}
		state.Apply(&payload, head)
	}
	return must(commitlog.EncodeCheckpoint(c.f.hasherOf(generation), c.head, state.Payload()))(c.f.t)
}

func (f *files) checkpoints(c *chain) {
	input := func(c *chain, raw []byte) [][]byte { return slices.Concat([][]byte{f.rawRing, raw}, c.entries) }
	raw := c.checkpoint(2)
	f.says("checkpoint", "openCheckpoint", string(raw[68:len(raw)-64]), input(c, raw)...)

	begun := func(generation uint32) *chain {
		c := &chain{f: f}
		c.append(generation, commitlog.Payload{
			Domains: []commitlog.Domain{{ID: f.ring.Repository}}, Repository: &commitlog.Repository{ID: f.ring.Repository}, Claims: []commitlog.Claim{{Point: pointP, Job: "manual"}},
		})
		return c
	}
	c = begun(2)
	raw = c.checkpoint(2)
	context := format.ContextCheckpoint
	refused := func(name, class string, raw []byte) { f.refused(name, "openCheckpoint", class, input(c, raw)...) }
	refused("a checkpoint with a damaged byte", "corrupt", flipped(raw, 100))
	refused("a checkpoint that was changed", "forged", f.changed(raw, context, func(raw []byte) { raw[bytes.Index(raw, []byte("manual"))]++ }))
	refused("a checkpoint without MAC", "forged", c.checkpoint(0))
	other := begun(2)
	other.head.Checksum = format.ID(ramp(32))
	refused("a checkpoint after another entry of the same number", "corrupt", other.checkpoint(2))
	refused("a log entry for a checkpoint", "corrupt", c.entries[0])
	older := begun(1)
	f.refused("a checkpoint of an earlier generation than the current one", "openCheckpoint", "olderKey", input(older, older.checkpoint(1))...)
	f.refused("a checkpoint, where two generations follow the same one", "openCheckpoint", "olderKey", slices.Concat([][]byte{f.united().Encode(), raw}, c.entries)...)
}
