//go:build integration

package s3

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

// inUse is the exit code of a reclaim, or a compact, that another one keeps from running.
const inUse = 6 // docs/cli.md

// try runs ferry and returns its exit code and what it said.
func (m *machine) try(args ...string) (int, string) {
	file, err := program()
	if err != nil {
		return -1, err.Error()
	}
	command := exec.CommandContext(m.t.Context(), file, append(args, "--cache-dir", m.cache)...)
	command.Env = append(os.Environ(), m.env...)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	_ = command.Run()
	return command.ProcessState.ExitCode(), said.String()
}

// haltingStore stops at the first listing of packs until it may go on.
type haltingStore struct {
	*s3.Store
	once          sync.Once
	reached, goOn chan struct{}
}

func (h *haltingStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if prefix == "packs/" {
		h.once.Do(func() {
			close(h.reached)
			<-h.goOn
		})
	}
	return h.Store.List(ctx, prefix)
}

// TestSecondReclaim: while one reclaims, another is told who does, and since when, and changes nothing.
func TestSecondReclaim(t *testing.T) {
	m := newMachine(t)
	vault := shared.location(shared.bucket(t, plain))
	m.run(0, "copy", disks(t, 4<<20, "web"), vault, "--create")
	store := &haltingStore{Store: open(t, vault), reached: make(chan struct{}), goOn: make(chan struct{})}
	first, err := repo.Open(t.Context(), store, repo.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := first.Reclaim(t.Context(), repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy()})
		ended <- err
	}()
	select {
	case <-store.reached:
	case err := <-ended:
		t.Fatalf("the first ended before it listed anything: %v", err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"reclaim", "compact"} {
		code, said := newMachine(t).try(command, vault)
		if code != inUse {
			t.Errorf("a %s beside a reclaim ends with %d: %s", command, code, said)
		}
		for _, want := range []string{"reclaim runs already", host, strconv.Itoa(os.Getpid()), "since "} {
			if !strings.Contains(said, want) {
				t.Errorf("a %s beside a reclaim does not say %q: %s", command, want, said)
			}
		}
	}
	close(store.goOn)
	if err := <-ended; err != nil {
		t.Errorf("the first: %v", err)
	}
	newMachine(t).run(0, "reclaim", vault)
}

// TestAllAtOnce: machines copy, each its own, while one reclaims and one compacts. Nothing is lost, whoever is first.
func TestAllAtOnce(t *testing.T) {
	const writers, rounds = 3, 3
	vault := shared.location(shared.bucket(t, plain))
	first := newMachine(t)
	first.run(0, "repo", "init", vault)
	stays := disks(t, 6<<20, "stays")
	for round := range 2 { // the first point of it is given up
		file := filepath.Join(stays, "stays.raw")
		if err := os.WriteFile(file, noise(uint64(500+round), 6<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Now().Add(time.Duration(round-5) * time.Hour)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		first.run(0, "copy", stays, vault)
	}
	first.run(0, "forget", vault, "stays", "--keep-points", "1")

	var copying, upkeep sync.WaitGroup
	folders := make([]string, writers)
	for i := range writers {
		folders[i] = t.TempDir()
		m := newMachine(t)
		copying.Go(func() {
			for round := range rounds {
				name := fmt.Sprintf("m%d-%d", i, round)
				content := append(noise(77, 2<<20), noise(uint64(1000+10*i+round), 1<<20)...) // the beginning is all machines'
				if err := os.WriteFile(filepath.Join(folders[i], name+".raw"), content, 0o600); err != nil {
					t.Error(err)
					return
				}
				if code, said := m.try("copy", folders[i], vault); code != 0 {
					t.Errorf("copying %s ends with %d: %s", name, code, said)
				}
			}
		})
	}
	done := make(chan struct{})
	for _, args := range [][]string{{"reclaim", vault, "--grace", "0"}, {"compact", vault}} {
		m := newMachine(t)
		upkeep.Go(func() {
			for worked := 0; ; {
				code, said := m.try(args...)
				switch {
				case code == 0:
					worked++
				case code != inUse || !strings.Contains(said, "runs already"):
					t.Errorf("%s ends with %d: %s", args[0], code, said)
					return
				}
				select {
				case <-done:
					if worked > 0 {
						return
					}
				default:
				}
			}
		})
	}
	copying.Wait()
	close(done)
	upkeep.Wait()

	fresh := newMachine(t)
	fresh.run(0, "verify", vault)
	kept := t.TempDir()
	fresh.run(0, "restore", vault, "stays", "--to", kept)
	same(t, filepath.Join(stays, "stays.raw"), filepath.Join(kept, "stays.raw"))
	for i := range writers {
		for round := range rounds {
			name := fmt.Sprintf("m%d-%d", i, round)
			restored := t.TempDir()
			fresh.run(0, "restore", vault, name, "--to", restored)
			same(t, filepath.Join(folders[i], name+".raw"), filepath.Join(restored, name+".raw"))
		}
	}
	for range 2 { // and afterwards space can be given back as ever
		fresh.run(0, "reclaim", vault, "--grace", "0")
	}
	fresh.run(0, "verify", vault)
}
