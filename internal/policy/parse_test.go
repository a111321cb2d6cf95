package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func parse(t testing.TB, content string) Resources {
	t.Helper()
	resources, err := Parse(File{Name: "job.yaml", Content: []byte(content)})
	if err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	return resources
}

func sample(t testing.TB) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestParse: every setting arrives where it belongs.
func TestParse(t *testing.T) {
	resources := parse(t, string(sample(t)))
	berlin := zone(t, "Europe/Berlin")
	spans := func(texts ...string) Window {
		w, err := ParseWindow(texts, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	want := Job{
		Name: "offsite",
		Source: Origins{
			Repositories: []string{"pve"},
			Jobs:         []JobRef{{Job: "local"}, {Repository: "near", Job: "old-*"}},
			Backups:      []BackupRef{{Repository: "near", Job: "*", Machine: "proxmox/100/*"}},
		},
		Target:   Target{Repository: "vault", Map: []Mapping{{Machine: "web01", Backup: BackupRef{Job: "manual", Machine: "web-01"}}}},
		Select:   Select{Include: []Selector{"web01", "100", "label=prod*", "*"}, Exclude: []Selector{"test-*"}},
		Schedule: Schedule{Mode: Periodic, Every: Every{Days: 1}, At: 22 * 60, Zone: berlin},
		Lookup:   Lookup{Direction: Backward, WithinInterval: true, Backfill: BackfillAll, StaleLock: 4 * time.Hour},
		Window:   spans("mon-fri 20:00-06:00", "sat,sun 00:00-24:00"),
		Bandwidth: Bandwidth{
			{Rate: 50e6 / 8, When: spans("mon-fri 08:00-18:00")},
			{Rate: 1e9 / 8, When: spans("sat 00:00-24:00", "03:00-04:30")},
		},
		Retention: Retention{Points: 3, Days: 14, Tiers: [tiers]Keep{
			{4, OnWeekday(time.Sunday)}, {Keep: 12}, {4, OnDay(15)}, {Keep: 3},
		}, Zone: berlin},
		Overrides: []Override{
			{Match: []Selector{"label=web"}, Retention: Retention{Days: 7, Zone: berlin}},
			{Match: []Selector{"db", "db-*"}},
		},
		FullFromSource: Schedule{Mode: Periodic, On: []On{OnDay(1), OnWeekday(time.Saturday)}, At: 3 * 60, Zone: berlin},
		HealthCheck:    HealthCheck{Upkeep{Schedule{Mode: Periodic, Every: Every{Days: 30}, Zone: berlin}, 2 * time.Hour}, "blocks"},
		Compact:        Upkeep{Schedule: Schedule{Mode: Periodic, Every: Every{Days: 84}, Zone: berlin}},
		Scripts: Scripts{
			Pre:  Script{[]string{"/usr/local/bin/wake", "vault"}, 5 * time.Minute, FailureWarns},
			Post: Script{Run: []string{"/bin/true"}, OnFailure: FailureIgnored},
		},
		RPO:        26 * time.Hour,
		PurgeAfter: 90 * 24 * time.Hour,
	}
	if got := resources.Jobs[1]; !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	if got, want := resources.Jobs[0], (Job{Name: "local", Source: Origins{Repositories: []string{"pve"}}, Target: Target{Repository: "near"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	wantRepositories := []Repository{
		{
			Name: "pve", Location: "/mnt/pve/dump", Instance: "site-a", SourceName: "dump",
			Labels: []LabelRule{
				{Label: "web", Name: "web-*"},
				{Label: "big", Size: SizeRange{500 << 30, 2e12}},
				{Label: "lab", Source: "dump*", Folder: "lab/*"},
			},
			Bandwidth: Bandwidth{{Rate: 100e6}}, Slots: 4,
		},
		{
			Name: "vault", Location: "s3://backup/ferry?endpoint=https://s3.example.com", ID: "00112233445566778899aabbccddeeff",
			Passphrase: SecretRef{Command: "pass show ferry"}, Identity: SecretRef{File: "keys/admin.key"}, Credentials: SecretRef{File: "/etc/ferry/aws"},
		},
		{Name: "near", Location: "near", Passphrase: SecretRef{Environment: "NEAR_PASSPHRASE"}},
	}
	if !reflect.DeepEqual(resources.Repositories, wantRepositories) {
		t.Errorf("got\n%+v, want\n%+v", resources.Repositories, wantRepositories)
	}
}

// TestFullSampleHasEverySetting: what the other tests do with it they do with every setting that there is.
func TestFullSampleHasEverySetting(t *testing.T) {
	content := string(sample(t))
	for _, path := range append(jobKind.keys(), repositoryKind.keys()...) {
		if key := path[strings.LastIndex(path, ".")+1:]; key != "mode" && key != "after" && !strings.Contains(content, key+":") {
			t.Errorf("%s is not in testdata/full.yaml", path)
		}
	}
}

// TestMistakes: each block is a file and, behind its ---- line, all that is to be said of it.
func TestMistakes(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(strings.TrimSpace(string(content)), "\n====\n")
	for i, block := range blocks {
		source, want, found := strings.Cut(block, "\n----\n")
		if !found {
			t.Fatalf("block %d has no ---- line", i+1)
		}
		_, err := Parse(File{Name: "job.yaml", Content: []byte(source)})
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s\nwas taken: %v", source, err)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), "job.yaml:", ""); got != want {
			t.Errorf("%s\n---- got\n%s\n---- want\n%s", source, got, want)
		}
	}
	if len(blocks) < 25 {
		t.Errorf("only %d files were tried", len(blocks))
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	for _, setting := range []string{
		"passphrase: hunter2", "passphrase: {environment: hun-hunter2}", "password: hunter2", "passphrase: {file: [hunter2]}", "credentials: [hunter2]",
		"passphrase: {value: hunter2}", "identity: {command: hunter2}",
	} {
		_, err := Parse(File{Content: []byte("kind: Repository\nname: a\nlocation: s3://b/c\n" + setting)})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", setting, err)
		}
	}
	_, err := Parse(File{Content: []byte("kind: Repository\nname: a\nlocation: s3://KEY:hunter2@b/c")})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

func TestProblemsOfSeveralFiles(t *testing.T) {
	vault := File{"b.yaml", []byte("kind: Repository\nname: vault\nlocation: vault\n")}
	job := File{"a.yaml", []byte("kind: Job\nname: j\nsource: {repositories: [vault2]}\ntarget: {repository: vault}\n")}
	_, err := Parse(job, vault, File{"c.yaml", []byte("kind: Repository\nname: vault\nlocation: other\n")})
	want := "a.yaml:3:25: source.repositories[0]: there is no repository vault2; did you mean vault?\nc.yaml:2:7: name: there is a repository vault already"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v, want\n%s", err, want)
	}
}

// What a hostile file can do is bounded.
func TestHostileFiles(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ","))
	}
	// Each element of a list is a group with as many members as a list may have, by alias.
	wide := "kind: Job\nname: j\nsource: {repositories: [r]}\ntarget: {repository: r}\noverrides:\n- &o {match: [" +
		strings.Repeat("abc,", 5000) + "x], retention: all}\n" + strings.Repeat("- *o\n", 5000)
	for name, content := range map[string]string{
		"aliases of aliases": bomb,
		"many long aliases":  wide,
		"an alias of itself": "kind: Job\nname: j\nselect: &s {include: *s}\n",
		"deep flow":          "kind: " + strings.Repeat("[", 200_000),
		"deep block":         strings.Repeat("? ", 100_000) + "a",
		"deep lists":         strings.Repeat("- ", 100_000) + "a",
		"large":              "# " + strings.Repeat("x", MaxFile),
		"many mistakes":      "kind: Job\n" + strings.Repeat("x: 1\n", 50_000),
		"many documents":     strings.Repeat("kind: Job\n---\n", 20_000),
		"not UTF-8":          "kind: \xff",
		"empty":              "",
		"only comments":      "# nothing\n---\n---\n",
		"a list":             "- kind: Job\n",
		"an unknown tag":     "kind: Job\nname: !!binary aGVsbG8=\n",
	} {
		_, err := Parse(File{Name: "f", Content: []byte(content)})
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(problems) > 2*maxProblems {
			t.Errorf("%s: %d problems are told", name, len(problems))
		}
	}
}
