package job

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/policy"
)

func shell(text string) policy.Script {
	return policy.Script{Run: []string{"/bin/sh", "-c", text}, Timeout: time.Minute}
}

func TestScriptIsToldWhatItIsFor(t *testing.T) {
	for _, name := range []string{"FERRY_PASSPHRASE", "FERRY_PASSPHRASE_COMMAND", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_SECRET"} {
		t.Setenv(name, "a secret")
	}
	got := runScript(t.Context(), shell(`cat; echo "$FERRY_JOB"; env | grep 'a secret'; true`), map[string]string{"job": "offsite"},
		map[string]string{"FERRY_JOB": "off site"}, []string{"MY_SECRET"})
	if want := "{\"job\":\"offsite\"}\noff site\n"; got.Output != want || got.Exit != 0 || got.Error != "" {
		t.Errorf("%+v, want %q", got, want)
	}
}

func TestScriptExitCodes(t *testing.T) {
	for _, code := range []int{0, 1, 2, 77, 255} {
		got := runScript(t.Context(), shell("exit "+strconv.Itoa(code)), nil, nil, nil)
		if got.Exit != code || (got.Error == "") != (code == 0) || got.TimedOut {
			t.Errorf("exit %d: %+v", code, got)
		}
	}
	if got := runScript(t.Context(), shell("kill -9 $$"), nil, nil, nil); got.Exit != -1 || !strings.Contains(got.Error, "killed") {
		t.Errorf("killed: %+v", got)
	}
}

func TestScriptThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode    os.FileMode
		content string
		want    string
	}{
		"missing":   {0, "", "no such file"},
		"forbidden": {0o644, "#!/bin/sh\n", "permission denied"},
		"nonsense":  {0o755, "\x7fELF", "exec format error"},
		"noshell":   {0o755, "#!/none/such\n", "no such file"},
	} {
		path := filepath.Join(dir, name)
		if c.mode != 0 {
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
		}
		got := runScript(t.Context(), policy.Script{Run: []string{path}}, nil, nil, nil)
		if got.Exit != -1 || !strings.Contains(got.Error, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestVariablesAreCut(t *testing.T) {
	long := strings.Repeat("ä", variableLimit/2)
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"a", "b"}, "a\nb"},
		{[]string{long}, long},
		{[]string{"x" + long}, "x" + long[:variableLimit-2] + " ... and more: see standard input"},
		{[]string{long, "b", "c"}, long + "\n... and 2 more: see standard input"},
		{[]string{"a", long, "c"}, "a\n... and 2 more: see standard input"},
	} {
		if got := cut(c.lines...); got != c.want {
			t.Errorf("%d lines: %d bytes, %.20q … %q", len(c.lines), len(got), got, got[max(0, len(got)-40):])
		}
	}
}

// Its whole process group goes, also what ignores SIGTERM.
func TestScriptTimeout(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := shell(`trap '' TERM; sleep 600 & echo $! >` + pids + `; echo $$ >>` + pids + `; echo begun; wait; wait; sleep 600`)
	script.Timeout = 300 * time.Millisecond
	got := runScript(t.Context(), script, nil, nil, nil)
	for !strings.Contains(got.Output, "begun") && script.Timeout < time.Minute { // a busy machine takes longer to begin it
		script.Timeout *= 2
		got = runScript(t.Context(), script, nil, nil, nil)
	}
	if !got.TimedOut || got.Error == "" || !strings.Contains(got.Output, "begun") {
		t.Errorf("%+v", got)
	}
	content, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Fields(string(content)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}

// alive is true for a process that is there and not just waiting for its parent to take note of its end.
func alive(pid int) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) { // one that is killed ends when it is its turn to run
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") || syscall.Kill(pid, 0) != nil {
			return false
		}
	}
	return true
}

func TestScriptEndsWithItsSession(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := runScript(ctx, shell("echo never"), nil, nil, nil); got.Error == "" || got.TimedOut || got.Output != "" {
		t.Errorf("%+v", got)
	}
}

func TestScriptOutputIsBounded(t *testing.T) {
	got := runScript(t.Context(), shell("head -c 3000000 /dev/zero | tr '\\0' x; echo the end >&2"), nil, nil, nil)
	if len(got.Output) != outputKept || got.Dropped != 3_000_000+8-outputKept || !strings.HasSuffix(got.Output, "xthe end\n") {
		t.Errorf("%d bytes kept, %d dropped, %.20q…", len(got.Output), got.Dropped, got.Output)
	}
	if got := runScript(t.Context(), shell(`printf '\377a'`), nil, nil, nil); got.Output != "?a" {
		t.Errorf("not UTF-8: %q", got.Output)
	}
}

// A script that reads nothing of what it is told is none the worse for it.
func TestScriptThatReadsNothing(t *testing.T) {
	if got := runScript(t.Context(), shell("exec <&-"), strings.Repeat("x", 1<<20), nil, nil); got.Error != "" {
		t.Errorf("%+v", got)
	}
}
