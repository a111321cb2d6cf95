package format

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"ferry/internal/repo/blake3x16"
)

var algorithms = []Hash{HashBLAKE3, HashHMACSHA256}

// unkeyed and keyed are U and K as section 3 writes them, one line each.
func unkeyed(algorithm Hash, context string, message []byte) (out ID) {
	if algorithm == HashBLAKE3 {
		blake3.DeriveKey(context, message, out[:])
		return out
	}
	mac := hmac.New(sha256.New, []byte(context))
	mac.Write(message)
	return ID(mac.Sum(nil))
}

func keyed(algorithm Hash, context string, idKey [32]byte, message []byte) ID {
	key := unkeyed(algorithm, context, idKey[:])
	mac := hmac.New(sha256.New, key[:])
	if algorithm == HashBLAKE3 {
		keyed, err := blake3.NewKeyed(key[:])
		if err != nil {
			panic(err)
		}
		keyed.Write(message)
		return ID(keyed.Sum(nil))
	}
	mac.Write(message)
	return ID(mac.Sum(nil))
}

func TestHasherIsTheSpecification(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		algorithm := rapid.SampledFrom(algorithms).Draw(t, "algorithm")
		context := Context(rapid.IntRange(0, int(contexts)-1).Draw(t, "context"))
		idKey := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 2000), 0, 4).Draw(t, "parts")
		if long := rapid.IntRange(0, 300<<10).Draw(t, "long"); len(parts) > 0 && long > 100<<10 {
			parts[len(parts)-1] = bytes.Repeat(append(parts[len(parts)-1], 1), long/2000)
		}
		message := bytes.Join(parts, nil)
		hasher := NewHasher(algorithm, idKey)
		want := unkeyed(algorithm, context.String(), message)
		if context <= ContextValidator {
			want = keyed(algorithm, context.String(), idKey, message)
		}
		for range 2 { // the second time with a used state
			if got := hasher.Sum(context, parts...); got != want {
				t.Fatalf("%s: %s, want %s", context, got, want)
			}
		}
		stream := hasher.Stream(context)
		stream.Write(message)
		if got := ID(stream.Sum(nil)); got != want {
			t.Fatalf("%s as a stream: %s, want %s", context, got, want)
		}
	})
}

func TestContextsDiffer(t *testing.T) {
	for _, algorithm := range algorithms {
		hasher, other := NewHasher(algorithm, [32]byte{}), NewHasher(algorithm, [32]byte{1})
		seen := map[ID]Context{}
		for context := range contexts {
			sum := hasher.Sum(context, []byte("message"))
			if before, twice := seen[sum]; twice {
				t.Errorf("%s: %q and %q hash alike", algorithm, before, context)
			}
			seen[sum] = context
			if keyed, differs := context <= ContextValidator, other.Sum(context, []byte("message")) != sum; keyed != differs {
				t.Errorf("%s: %q depends on the id key: %v, want %v", algorithm, context, differs, keyed)
			}
		}
	}
}

func TestHashNames(t *testing.T) {
	for _, algorithm := range algorithms {
		if parsed, err := ParseHash(algorithm.String()); err != nil || parsed != algorithm || NewHasher(parsed, [32]byte{}).Algorithm() != algorithm {
			t.Errorf("%s parses as %s, %v", algorithm, parsed, err)
		}
	}
	for _, unknown := range []string{"", "sha-256", Hash(3).String()} {
		if _, err := ParseHash(unknown); !errors.Is(err, ErrNewer) {
			t.Errorf("hash %q: %v, want ErrNewer", unknown, err)
		}
	}
}

// Every block, node and frame is hashed: garbage here is garbage everywhere.
func TestSumDoesNotAllocate(t *testing.T) {
	header, content := make([]byte, 80), make([]byte, 128<<10)
	for _, algorithm := range algorithms {
		hasher := NewHasher(algorithm, [32]byte{})
		for _, context := range []Context{ContextBlock, ContextFrame} {
			if allocated := testing.AllocsPerRun(50, func() { hasher.Sum(context, header, content) }); allocated != 0 && !raceEnabled {
				t.Errorf("%s, %s: %v allocations", algorithm, context, allocated)
			}
		}
	}
}

func TestHasherInParallel(t *testing.T) {
	for _, algorithm := range algorithms {
		hasher := NewHasher(algorithm, [32]byte{})
		var workers sync.WaitGroup
		for worker := range 4 {
			content := bytes.Repeat([]byte{byte(worker)}, 3000)
			want := keyed(algorithm, ContextBlock.String(), [32]byte{}, content)
			workers.Go(func() {
				for range 50 {
					if got := hasher.Sum(ContextBlock, content); got != want {
						t.Errorf("%s: %s, want %s", algorithm, got, want)
						return
					}
				}
			})
		}
		workers.Wait()
	}
}

// Where the processor has the faster way it is taken: the check against the library must not be what keeps from it.
func TestFasterHashIsTaken(t *testing.T) {
	if wideAgrees() != blake3x16.Available {
		t.Error("the faster hash does not come to the same as the library")
	}
}
