package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo"
)

// recordOf is a record of a job that copies from one repository to another, and what it needs.
func recordOf(name, from, to string, at int, needed ...repo.NeededJob) repo.JobRecord {
	return repo.JobRecord{Job: name, Time: time.Unix(int64(at), 0), Document: documentOf(name, from, to), Needed: needed}
}

func documentOf(name, from, to string) string {
	return "kind: Repository\nname: src\nlocation: /srv/src\n---\nkind: Repository\nname: " + to + "\nlocation: /srv/" + to + "\n---\n" +
		"kind: Job\nname: " + name + "\nsource: {" + from + "}\ntarget: {repository: " + to + "}\n"
}

// What the newest record says of a job that has left none itself is taken, whatever the order of names.
func TestNewestRecordSaysWhatIsNeeded(t *testing.T) {
	needs := func(points string) repo.NeededJob {
		return repo.NeededJob{Job: "first", Document: documentOf("first", "repositories: [src]", "near") + "retention: {points: " + points + "}\n"}
	}
	records := []repo.JobRecord{
		recordOf("b", "jobs: [first]", "far", 10, needs("5")), recordOf("c", "jobs: [first]", "far", 30, needs("7")), recordOf("d", "jobs: [first]", "far", 20, needs("6")),
	}
	if text := oneFile(records); strings.Count(text, "name: first") != 1 || !strings.Contains(text, "points: 7") {
		t.Errorf("%s", text)
	}
	own := recordOf("first", "repositories: [src]", "near", 1)
	if text := oneFile(append(records, own)); strings.Count(text, "name: first") != 1 || strings.Contains(text, "points:") {
		t.Errorf("its own record does not count:\n%s", text)
	}
	if problems := problemsOfJobs(oneFile(records)); problems != nil {
		t.Error(problems)
	}
}

// Records that do not have what their jobs need are printed, with a word on what is needed beside them: earlier programs wrote such.
func TestRecordsWithoutWhatTheyNeed(t *testing.T) {
	var out, errOut bytes.Buffer
	a := &app{out: &out, errOut: &errOut}
	records := []repo.JobRecord{recordOf("b", "jobs: [first]", "far", 1), recordOf("c", "jobs: [first]", "far", 2), recordOf("d", "repositories: [src]", "far", 3)}
	if err := a.printJobs(records); err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string]int{"b": 1, "c": 1, "d": 0} {
		if got := strings.Count(errOut.String(), "warning: job "+job+" cannot be applied with what is here alone: "); got != want {
			t.Errorf("%d warnings of job %s:\n%s", got, job, errOut.String())
		}
	}
	if !strings.Contains(out.String(), "name: b\n") || !strings.Contains(out.String(), "name: d\n") {
		t.Errorf("%s", out.String())
	}
}
