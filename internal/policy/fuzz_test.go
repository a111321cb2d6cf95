package policy

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse: whatever a file holds, it is read or refused with a place; what is read is read back the same,
// also document by document.
func FuzzParse(f *testing.F) {
	f.Add(sample(f))
	content, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, block := range strings.Split(string(content), "\n====\n") {
		source, _, _ := strings.Cut(block, "\n----\n")
		f.Add([]byte(source))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		resources, err := Parse(File{Name: "f", Content: content})
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || len(problems) > 2*maxProblems {
				t.Fatalf("%d problems: %v", len(problems), err)
			}
			for _, p := range problems {
				if p.Line < 1 || p.Column < 1 || p.Text == "" || strings.ContainsAny(p.String(), "\n\r\x1b") {
					t.Fatalf("%+v", p)
				}
			}
			return
		}
		var printed []byte
		for _, r := range resources.Repositories {
			printed = append(append(printed, "---\n"...), r.YAML()...)
		}
		for _, j := range resources.Jobs {
			printed = append(append(printed, "---\n"...), j.YAML()...)
		}
		again, err := Parse(File{Name: "f", Content: printed})
		if err != nil || !reflect.DeepEqual(again, resources) {
			t.Fatalf("%v\n%s", err, printed)
		}
		var files []File
		for _, d := range Split(content) {
			if d.Name == "" {
				return // only documents that are told apart are taken apart
			}
			files = append(files, File{Name: d.Name, Content: []byte(d.Text)})
		}
		if again, err := Parse(files...); err != nil || !reflect.DeepEqual(again, resources) {
			t.Fatalf("taken apart: %v\n%q", err, files)
		}
	})
}
