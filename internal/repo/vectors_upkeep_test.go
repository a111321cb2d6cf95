package repo_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/parity"
)

// stampLayout is how times stand in the names of points' files.
const stampLayout = "20060102T150405.000000000Z"

// lockVectors say until when a file is locked that is needed at a time.
func lockVectors() []vector {
	var all []vector
	for _, seconds := range []int64{60, 100, 30 * 24 * 3600} {
		for _, at := range []time.Time{
			time.Unix(0, 0), time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 1, 0, 0, 500_000_000, time.UTC),
			time.Date(2026, 11, 22, 1, 0, 20, 0, time.UTC), time.Date(2026, 11, 22, 1, 0, 21, 0, time.UTC),
		} {
			text := at.UTC().Format(time.RFC3339Nano)
			end := format.Lock{Seconds: seconds}.End(at).Format(stampLayout)
			all = append(all, vector{
				Name: fmt.Sprintf("end of a lock of %d seconds that is needed at %s", seconds, text), Function: "lockEnd",
				Input: hexes(strconv.FormatInt(seconds, 10), text), Output: hexes(end)[0],
			})
		}
	}
	return all
}

// domainVectors are logs that announce domains, and say until when all is locked, with what the state is after them.
func domainVectors(t *testing.T) []vector {
	t.Helper()
	repository, sealed, other := format.Name(ramp(16)), format.Name(ramp(32)[16:]), format.Name(ramp(48)[32:])
	early, late := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 11, 0, 0, 0, 0, time.UTC)
	first := commitlog.Payload{Time: early, Writer: repository.String(), Repository: &commitlog.Repository{ID: repository}, Domains: []commitlog.Domain{{ID: repository}}}
	var all []vector
	for _, c := range []struct {
		what  string
		later []commitlog.Payload
	}{
		{"the default one", nil},
		{"a sealed one, and a lock", []commitlog.Payload{{Domains: []commitlog.Domain{{ID: sealed, Sealed: true}}, Locked: &early}}},
		{"two, and a lock that does not move back", []commitlog.Payload{
			{Domains: []commitlog.Domain{{ID: sealed, Sealed: true}}, Locked: &late}, {Domains: []commitlog.Domain{{ID: other}}, Locked: &early},
		}},
	} {
		state := commitlog.NewState()
		var input []string
		for n, payload := range append([]commitlog.Payload{first}, c.later...) {
			payload.Time, payload.Writer = early, repository.String()
			state.Apply(&payload, commitlog.Head{N: uint64(n + 1)})
			raw, err := json.Marshal(payload)
			if err != nil {
				t.Fatal(err)
			}
			input = append(input, hex.EncodeToString(raw))
		}
		ids := map[bool][]string{}
		for id, domain := range state.Domains {
			ids[domain.Sealed] = append(ids[domain.Sealed], id.String())
		}
		slices.Sort(ids[true])
		slices.Sort(ids[false])
		locked := ""
		if !state.Locked.IsZero() {
			locked = state.Locked.Format(stampLayout)
		}
		all = append(all, vector{
			Name: "domains: " + c.what, Function: "domainsAndLock", Input: input,
			Output: hexes(fmt.Sprintf("sealed=%s open=%s locked=%s", strings.Join(ids[true], ","), strings.Join(ids[false], ","), locked))[0],
		})
	}
	return all
}

// parityVectors are whole parity files: of a pack of one shard, and of one of three, in a repository that asks for more.
func parityVectors(t *testing.T) []vector {
	t.Helper()
	var all []vector
	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		coder := parity.NewCoder(format.NewHasher(algorithm, [32]byte{}))
		for _, size := range []int{100, 9000} {
			id, wanted := format.Name(ramp(16)), format.Parity{Data: 4, Parity: 2}
			file, err := coder.Encode(bytes.NewReader(ramp(size)), parity.NewLayout(id, int64(size), wanted))
			if err != nil {
				t.Fatal(err)
			}
			shards := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, uint16(wanted.Data)), uint16(wanted.Parity))
			all = append(all, vector{
				Name: fmt.Sprintf("%s: parity file of a pack of %d bytes", algorithm, size), Function: "parity", Hash: algorithm.String(),
				Input: hexes(string(id[:]), string(ramp(size)), string(shards)), Output: hex.EncodeToString(file),
			})
		}
	}
	return all
}
