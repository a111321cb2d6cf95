package cli

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/repo"
)

// inUTC runs tests by a clock in UTC: texts that they compare have times. The programs of scripts have their own zone.
type inUTC struct{ *testing.M }

func (m inUTC) Run() int {
	time.Local = time.UTC
	return m.M.Run()
}

// TestMain makes the test's own binary the ferry that scripts run.
func TestMain(m *testing.M) {
	repo.SetPassphraseWork(2)
	testscript.Main(inUTC{m}, map[string]func(){
		"ferry": func() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// vzdumpSamples are three real backups of one machine, web01.
const vzdumpSamples = "../source/vzdump/testdata/golden"

// TestScripts runs testdata/script. Beside testscript's own commands there are:
//
//	exits CODE PROGRAM ARGUMENT...  run a program that must end with the code
//	raw FILE SIZE SEED [DAYS]       make a raw image of random bytes, DAYS after 1 January 2026
//	damage GLOB OFFSET              change one byte of the largest file that matches
//	keyid REPOSITORY IDENTITY KIND  set $KEYID to the id of the key of that kind
//	mode FILE MODE                  compare a file's mode
func TestScripts(t *testing.T) {
	samples, err := filepath.Abs(vzdumpSamples)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("VZDUMP", samples)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			env.Setenv("TZ", "UTC")
			env.Setenv("FERRY_SOCKET", filepath.Join(env.WorkDir, "no-server"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "raw": makeRaw, "damage": damage, "keyid": keyID, "pointid": pointID, "mode": mode,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENT...")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d instead of %s", code, args[0])
	}
}

func makeRaw(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: raw FILE SIZE SEED [DAYS]")
	}
	number := func(i int) int {
		if i >= len(args) {
			return 0
		}
		n, err := strconv.Atoi(args[i])
		ts.Check(err)
		return n
	}
	var seed [32]byte
	seed[0] = byte(number(2))
	content := make([]byte, number(1))
	_, _ = rand.NewChaCha8(seed).Read(content) // it never fails
	file := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o755))
	ts.Check(os.WriteFile(file, content, 0o644))
	made := time.Date(2026, 1, 1+number(3), 12, 0, 0, 0, time.UTC)
	ts.Check(os.Chtimes(file, made, made))
}

func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage GLOB OFFSET")
	}
	matches, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	largest, most := "", int64(-1)
	for _, match := range matches {
		info, err := os.Stat(match)
		ts.Check(err)
		if info.Size() > most {
			largest, most = match, info.Size()
		}
	}
	offset, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	content, err := os.ReadFile(largest)
	ts.Check(err)
	content[offset] ^= 0xff
	ts.Check(os.WriteFile(largest, content, 0o600))
}

func keyID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: keyid REPOSITORY IDENTITY KIND")
	}
	ts.Check(ts.Exec("ferry", "key", "list", args[0], "--identity", args[1], "--json"))
	var listed keysJSON
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &listed))
	for _, key := range listed.Keys {
		if key.Kind == args[2] {
			ts.Setenv("KEYID", key.ID)
			return
		}
	}
	ts.Fatalf("no key of kind %s in %+v", args[2], listed.Keys)
}

// pointID keeps the id of the point of a machine, by its name, that was made on a day.
func pointID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: pointid REPOSITORY MACHINE DAY")
	}
	ts.Check(ts.Exec("ferry", "points", args[0], "--json"))
	var listed pointsJSON
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &listed))
	for _, point := range listed.Points {
		if point.Machine.Name == args[1] && point.Created.UTC().Format(time.DateOnly) == args[2] {
			ts.Setenv("POINTID", point.ID)
			return
		}
	}
	ts.Fatalf("no point of %s of %s", args[1], args[2])
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode().String() != args[1] {
		ts.Fatalf("%s has mode %s", args[0], info.Mode())
	}
}
