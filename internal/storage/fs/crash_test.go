package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/storage"

	"golang.org/x/sys/unix"
)

// Variables that make the test binary a writer to be killed: the store's folder and the number of the method.
const (
	envFolder = "FERRY_TEST_KILLED_FOLDER"
	envMethod = "FERRY_TEST_KILLED_METHOD"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv(envFolder); folder != "" {
		number, err := strconv.Atoi(os.Getenv(envMethod))
		if err == nil {
			err = writeUntilKilled(folder, method(number))
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled publishes one object, and then writes another for as long as it may, saying "writing" at each piece.
func writeUntilKilled(folder string, how method) error {
	ctx := context.Background()
	store, err := Open(folder)
	if err != nil {
		return err
	}
	if _, err := store.prepare(ctx); err != nil {
		return err
	}
	store.how = how
	if err := store.Put(ctx, "packs/ab/whole", []byte("whole")); err != nil {
		return err
	}
	w, err := store.Create(ctx, "packs/ab/half")
	if err != nil {
		return err
	}
	piece := make([]byte, 1<<20)
	for range 200 {
		if _, err := w.Write(piece); err != nil {
			return err
		}
		fmt.Println("writing")
	}
	return errors.New("was not killed in time")
}

// TestKilledWriter kills a process in the middle of an object: nothing of it is visible, and nothing stays.
func TestKilledWriter(t *testing.T) {
	for _, how := range methods {
		t.Run(how.String(), func(t *testing.T) {
			folder := t.TempDir()
			openStore(t, folder, how)
			command := exec.CommandContext(t.Context(), os.Args[0])
			command.Env = append(os.Environ(), envFolder+"="+folder, fmt.Sprintf("%s=%d", envMethod, how))
			command.Stderr = os.Stderr
			output, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(output)
			for range 10 {
				if !lines.Scan() {
					t.Fatalf("the writer ended early: %v", command.Wait())
				}
			}
			if err := command.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := command.Wait(); command.ProcessState.ExitCode() != -1 {
				t.Fatalf("the writer was not killed: %v", err)
			}

			store, err := Open(folder)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if _, err := store.Stat(t.Context(), "packs/ab/half"); !errors.Is(err, storage.ErrNotExist) {
				t.Errorf("the killed writer's object: %v, want ErrNotExist", err)
			}
			if content, err := storage.ReadAll(t.Context(), store, "packs/ab/whole", 100); err != nil || string(content) != "whole" {
				t.Errorf("the object published before: %q, %v", content, err)
			}
			if got := listed(t, store); got != 1 {
				t.Errorf("%d objects, want 1", got)
			}
			wantDrafts := 1
			if how == unnamed {
				wantDrafts = 0
			}
			if got := drafts(t, folder); len(got) != wantDrafts {
				t.Errorf("drafts %q after the kill, want %d", got, wantDrafts)
			}
			if err := store.Put(t.Context(), "packs/ab/half", []byte("again")); err != nil {
				t.Error(err)
			}
			if got := drafts(t, folder); len(got) != 0 {
				t.Errorf("drafts %q after the next write, want none", got)
			}
		})
	}
}

// mountSmall mounts an empty ext4 of 4 MiB.
func mountSmall(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	maker, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	folder := t.TempDir()
	image, target := filepath.Join(folder, "image"), filepath.Join(folder, "mounted")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command(maker, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, output)
	}
	if output, err := exec.Command("mount", "-o", "loop", image, target).CombinedOutput(); err != nil {
		t.Skipf("loop devices cannot be mounted here: %v: %s", err, output)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Errorf("unmounting %s: %v", target, err)
		}
	})
	return target
}

// TestFull fills a file system: ErrFull with a hint, no half object, and the space of the failed one is free again.
func TestFull(t *testing.T) {
	for _, how := range methods {
		t.Run(how.String(), func(t *testing.T) {
			store := openStore(t, mountSmall(t), how)
			ctx := t.Context()
			if err := store.Overwrite(ctx, "marks/hint", []byte("old")); err != nil {
				t.Fatal(err)
			}
			big := make([]byte, 8<<20)
			w, err := store.Create(ctx, "packs/ab/big")
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(big)
			if err == nil {
				err = w.Commit(ctx)
			} else if committed := w.Commit(ctx); !errors.Is(committed, storage.ErrFull) {
				t.Errorf("commit after a failed write: %v, want the write's error", committed)
			}
			w.Abort()
			for what, err := range map[string]error{
				"create":    err,
				"put":       store.Put(ctx, "packs/ab/put", big),
				"overwrite": store.Overwrite(ctx, "marks/hint", big),
			} {
				if !errors.Is(err, storage.ErrFull) || !errors.Is(err, unix.ENOSPC) || backup.Hint(err) == "" {
					t.Errorf("%s: %v with the hint %q, want ErrFull", what, err, backup.Hint(err))
				}
			}
			if content, err := storage.ReadAll(ctx, store, "marks/hint", 100); err != nil || string(content) != "old" {
				t.Errorf("the hint after a failed overwrite: %.10q, %v", content, err)
			}
			if got := listed(t, store); got != 1 {
				t.Errorf("%d objects, want 1", got)
			}
			if got := drafts(t, store.path); len(got) != 0 {
				t.Errorf("drafts %q are left", got)
			}
			if err := store.Put(ctx, "packs/ab/small", make([]byte, 1<<20)); err != nil {
				t.Errorf("the space was not given back: %v", err)
			}
		})
	}
}
