package policy

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// store are many resources as a server has them: a file for each, by name.
func store(jobs int) []File {
	files := []File{
		{Name: "repository pve", Content: []byte("kind: Repository\nname: pve\nlocation: /pve\n")},
		{Name: "repository vault", Content: []byte("kind: Repository\nname: vault\nlocation: /vault\n")},
	}
	for n := range jobs {
		name := fmt.Sprintf("job%d", n)
		files = append(files, File{Name: "job " + name, Content: fmt.Appendf(nil,
			"kind: Job\nname: %s\nsource: {repositories: [pve]}\ntarget: {repository: vault}\nselect: {include: [\"%s*\"]}\nretention: {days: 14}\n", name, name)})
	}
	return files
}

// Of many files of which one has changed one is read.
func TestWhatHasNotChangedIsNotReadAgain(t *testing.T) {
	var m Memory
	files := store(50)
	for _, want := range []int{52, 0, 1} {
		before := m.read
		if want == 1 {
			files[7].Content = append(files[7].Content, "rpo: 26h\n"...)
		}
		all, err := Rules{Memory: &m}.Parse(files...)
		if err != nil || len(all.Jobs) != 50 || m.read-before != want {
			t.Errorf("%d jobs, %v; %d files were read, want %d", len(all.Jobs), err, m.read-before, want)
		}
	}
	if _, err := (Rules{Memory: &m}).Parse(files[:3]...); err != nil || len(m.known) != 52 {
		t.Errorf("%d are remembered, %v", len(m.known), err)
	}
	for n := range 200 {
		file := File{Name: fmt.Sprint("document ", n), Content: files[0].Content}
		if _, err := (Rules{Memory: &m}).Parse(file); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.known) > 103 {
		t.Errorf("%d are remembered of one file", len(m.known))
	}
}

// With a memory the same is read, and the same is told of mistakes at the same places, whatever was read before.
func TestMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		edits := []string{"", "rpo: 26h\n", "rpo: 1m\n", "sorce: x\n", "target: {repository: nowhere}\n", "retention: {days: 3}\n", "---\nkind: Job\n", "schedule: {after: job1}\n", "\t"}
		for range rapid.IntRange(1, 6).Draw(t, "times") {
			files := store(4)
			if rapid.Bool().Draw(t, "no vault") {
				files = files[:1:1]
				files = append(files, store(4)[2:]...)
			}
			for i := range files {
				files[i].Content = append(files[i].Content, rapid.SampledFrom(edits).Draw(t, "edit")...)
			}
			want, wantErr := Parse(files...)
			got, err := Rules{Memory: &m}.Parse(files...)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
				t.Fatalf("%+v, %v; want %+v, %v", got, err, want, wantErr)
			}
		}
	})
}

func BenchmarkParseAgain(b *testing.B) {
	files := store(15_000)
	for name, rules := range map[string]Rules{"without": {}, "remembered": {Memory: &Memory{}}} {
		b.Run(name, func(b *testing.B) {
			if _, err := rules.Parse(files...); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := rules.Parse(files...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
