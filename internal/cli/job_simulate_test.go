package cli

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/pace"
	"ferry/internal/policy"
)

// dailyJob has the job without the settings that a test wants.
const dailyJob = `
kind: Repository
name: images
location: images
---
kind: Repository
name: vault
location: vault
---
kind: Job
name: offsite
source: {repositories: [images]}
target: {repository: vault}
`

// daily is a machine of which an image is made every evening, and the clock of the job that copies it an hour later.
type daily struct {
	t       *testing.T
	app     *app
	job     chosenJob
	setup   job.Setup
	image   string
	content []byte
	random  *rand.ChaCha8
	day     time.Time // an evening, 22:00 in Berlin
}

func newDaily(t *testing.T, settings string) *daily {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var out bytes.Buffer
	d := &daily{
		t: t, app: &app{out: &out, errOut: &out, cacheDir: t.TempDir(), limits: &pace.Limits{}}, image: filepath.Join(folder, "images", "web.raw"),
		content: make([]byte, 4<<20), random: rand.NewChaCha8([32]byte{1}), day: time.Date(2026, 3, 1, 22, 0, 0, 0, zone),
	}
	d.app.keys = &keys{app: d.app}
	d.random.Read(d.content)
	if err := os.Mkdir(filepath.Dir(d.image), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "job.yaml")
	if err := os.WriteFile(file, []byte(dailyJob+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ExitDone, "repo", "init", filepath.Join(folder, "vault"))
	if d.job, err = d.app.readJob(file, nil); err != nil {
		t.Fatal(err)
	}
	if d.setup, err = d.app.setup(d.job); err != nil {
		t.Fatal(err)
	}
	d.setup.Now = func() time.Time { return d.day.Add(time.Hour) }
	return d
}

// live is a day: a part of the image changes, and the job runs.
func (d *daily) live() {
	d.t.Helper()
	d.day = d.day.AddDate(0, 0, 1)
	part := len(d.content) / 16
	d.random.Read(d.content[d.day.YearDay()%16*part:][:part])
	if err := os.WriteFile(d.image, d.content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chtimes(d.image, d.day, d.day); err != nil {
		d.t.Fatal(err)
	}
	if s := job.Run(context.Background(), d.setup); s.Err != nil || s.Result != job.ResultDone {
		d.t.Fatalf("%s: %s, %v %v", d.day, s.Result, s.Err, s.Warnings)
	}
}

// target are the points in the target, and what they need.
func (d *daily) target() (created []string, stored int64) {
	d.t.Helper()
	uses, err := d.app.machineUses(context.Background(), d.setup)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, use := range uses {
		stored += use.Stored
	}
	e, err := job.Explain(context.Background(), d.setup)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, step := range e.Plan.Machines[0].Steps {
		if step.OnTarget {
			created = append(created, step.Point.Created.UTC().Format(time.DateTime))
		}
	}
	return created, stored
}

// Thirty days are simulated, over a clock change, and then lived: the points are the same, the bytes nearly.
func TestSimulatedThenLived(t *testing.T) {
	d := newDaily(t, `
schedule: {every: 1d, at: "23:00", timeZone: Europe/Berlin}
retention: {days: 3, weekly: {keep: 2}, monthly: {keep: 2}}
`)
	for range 6 {
		d.live()
	}
	future, err := d.app.foresee(context.Background(), d.job, d.setup, 30)
	if err != nil {
		t.Fatal(err)
	}
	var foreseen []string
	for _, kept := range future.Machines[0].Kept {
		foreseen = append(foreseen, kept.Created.Format(time.DateTime))
	}
	for range 30 {
		d.live()
	}
	lived, stored := d.target()
	if len(lived) < 6 || !slices.Equal(foreseen, lived) {
		t.Errorf("foreseen %s\nlived    %s", strings.Join(foreseen, ", "), strings.Join(lived, ", "))
	}
	bytes := future.Days[len(future.Days)-1].Bytes
	t.Logf("%d points, %d bytes foreseen, %d lived", len(lived), bytes, stored)
	if off := math.Abs(float64(bytes)/float64(stored) - 1); off > 0.1 {
		t.Errorf("%d bytes foreseen, %d lived", bytes, stored)
	}
}

// What machines need is found in the log, the trees and the index: a pack of data that is lost keeps no one from looking ahead.
func TestSimulateNeedsNoData(t *testing.T) {
	d := newDaily(t, "retention: {points: 3}")
	for range 3 { // so that the packs are in the index
		d.live()
	}
	_, want := d.target()
	var largest string
	var size int64
	vault := filepath.Join(filepath.Dir(filepath.Dir(d.image)), "vault")
	packs, err := filepath.Glob(filepath.Join(vault, "packs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range packs {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			largest, size = name, info.Size()
		}
	}
	if err := os.Remove(largest); err != nil || size < int64(len(d.content)) {
		t.Fatalf("the pack of data has %d bytes: %v", size, err)
	}
	if _, stored := d.target(); stored != want {
		t.Errorf("%d bytes are needed, and without the pack %d", want, stored)
	}
}

// What is to come goes by the limits that sessions keep to: those of repositories, and the job's where one is far away.
func TestFutureIsSlowedByLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "job.yaml")
	for _, c := range []struct {
		source, target string
		slowest        policy.Rate
	}{
		{"images", "vault", 2e6},
		{"images", "s3://backups/vault", 1e6},
		{"s3://backups/images", "vault", 1e6},
		{"s3://backups/images", "s3://backups/vault", 1e6},
	} {
		text := strings.NewReplacer("location: images", "location: "+c.source+"\nbandwidth: [{limit: 2MB/s}]", "location: vault", "location: "+c.target+"\nbandwidth: [{limit: 3MB/s}]").
			Replace(dailyJob) + "bandwidth: [{limit: 1MB/s}]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		chosen, err := (&app{}).readJob(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if limit := chosen.limits().LimitAt(time.Now()); limit != c.slowest {
			t.Errorf("from %s to %s: %v, want %v", c.source, c.target, limit, c.slowest)
		}
	}
}
