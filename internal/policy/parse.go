package policy

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// File is a file of resources: YAML, or JSON, which is YAML too. It may have several documents.
type File struct {
	// Name is for messages.
	Name    string
	Content []byte
}

// The kinds of resources.
const (
	kindOfJob        = "Job"
	kindOfRepository = "Repository"
)

var resourceKinds = []string{kindOfJob, kindOfRepository}

// document is one resource as it stands in a file.
type document struct {
	owner owner
	name  string
	file  string
	root  *yaml.Node
	// places are the nodes of its settings, by path. Of a document that was remembered root and places are nil, and content is
	// its text.
	places  map[string]*yaml.Node
	content []byte
	// good: it was read without a mistake.
	good bool
}

// owner is whose problem a problem is: the resource of a kind with an index in Resources.
type owner struct {
	kind  string
	index int
}

// owned is a problem of a resource.
type owned struct {
	Problem
	owner owner
}

// Parse reads resources and checks each and all of them together, strictly: what is not known, contradicts itself or
// cannot be is a mistake. The error is of type Problems and has all of them, up to a hundred for each file and as many that
// concern several resources.
//
// A document with mistakes is read to its end, and checked no further; the others may refer to it.
func Parse(files ...File) (Resources, error) { return Rules{}.Parse(files...) }

// Rules are what a place demands of resources beside what holds everywhere, such as a server of the files that they name.
// Each finds the mistakes of one resource, by their Path; where they stand in the files is filled in. Nil demands nothing.
type Rules struct {
	Repository func(Repository) []Problem
	Job        func(Job) []Problem
	// Memory remembers what files said; nil: nothing is.
	Memory *Memory
}

// Parse is [Parse] under rules.
func (rules Rules) Parse(files ...File) (Resources, error) {
	var all Resources
	var documents []document
	var problems Problems
	for _, file := range files {
		if d, known := rules.Memory.recall(file, &all); known {
			documents = append(documents, d)
			continue
		}
		r := &reader{file: file.Name}
		before := len(documents)
		for _, root := range r.documents(file.Content) {
			if d, ok := r.document(root, &all); ok {
				documents = append(documents, d)
			}
		}
		rules.Memory.keep(file, documents[before:], r.problems, all)
		problems = append(problems, r.problems...)
	}
	rules.Memory.forgetOthers(files)
	problems = append(problems, located(all.check(documents, rules), documents)...)
	if len(problems) > 0 {
		problems.sort(files)
		return Resources{}, problems
	}
	return all, nil
}

// Alone reads the job of a document by itself: what it refers to may be gone. It is false unless there is one, without mistakes.
func Alone(document []byte) (Job, bool) {
	var all Resources
	r := &reader{}
	for _, root := range r.documents(document) {
		r.document(root, &all)
	}
	if len(r.problems) > 0 || len(all.Jobs) != 1 {
		return Job{}, false
	}
	return all.Jobs[0], true
}

// lineOf is how the YAML library names the place of a mistake.
var lineOf = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// documents splits a file. What is not YAML ends it.
func (r *reader) documents(content []byte) []*yaml.Node {
	top := &yaml.Node{Line: 1, Column: 1}
	if len(content) > MaxFile {
		r.wrong(top, "", "the file is larger than %d bytes", MaxFile)
		return nil
	}
	var roots []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			parts := lineOf.FindStringSubmatch(err.Error())
			line, hint := 1, ""
			if len(parts) == 2 && parts[1] != "" {
				line, _ = strconv.Atoi(parts[1]) // digits
			}
			if strings.Contains(err.Error(), "cannot start any token") {
				hint = "is there a tab? YAML is indented by spaces"
			}
			r.wrong(&yaml.Node{Line: line, Column: 1}, hint, "this is not YAML: %s", strings.TrimPrefix(err.Error(), parts[0]))
			return roots
		}
		if len(node.Content) == 1 && node.Content[0].ShortTag() != "!!null" {
			roots = append(roots, node.Content[0])
		}
	}
	if len(roots) == 0 {
		r.wrong(top, "it begins with kind: Job or kind: Repository", "there is no resource in the file")
	}
	return roots
}

// document reads one resource into all.
func (r *reader) document(root *yaml.Node, all *Resources) (document, bool) {
	r.places = map[string]*yaml.Node{}
	kind, rest, ok := r.kind(root)
	if !ok {
		return document{}, false
	}
	d := document{owner: owner{kind: kind}, file: r.file, root: root, places: r.places}
	switch kind {
	case kindOfJob:
		job, good := jobKind.read(r, rest)
		job.setZone(job.Schedule.Zone)
		d.owner.index, d.name, d.good = len(all.Jobs), job.Name, good
		all.Jobs = append(all.Jobs, job)
	case kindOfRepository:
		repository, good := repositoryKind.read(r, rest)
		d.owner.index, d.name, d.good = len(all.Repositories), repository.Name, good
		all.Repositories = append(all.Repositories, repository)
	}
	return d, true
}

// kind takes the kind of a resource from its settings.
func (r *reader) kind(root *yaml.Node) (kind string, rest *yaml.Node, ok bool) {
	if root.Kind != yaml.MappingNode {
		r.wrong(root, "it begins with kind: Job or kind: Repository", "a resource is expected here, not %s", kindOf(root))
		return "", nil, false
	}
	copied := *root
	copied.Content = nil
	var at *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch key := root.Content[i]; {
		case key.Kind != yaml.ScalarNode || key.Value != "kind":
			copied.Content = append(copied.Content, key, root.Content[i+1])
		case at != nil:
			r.wrong(key, "several resources in a file are parted by ---", "\"kind\" is there twice")
			return "", nil, false
		default:
			at = root.Content[i+1]
		}
	}
	if at == nil {
		r.wrong(root, "it is Job or Repository", "kind is missing")
		return "", nil, false
	}
	r.at("kind", at, func(at *yaml.Node) {
		if kind, ok = r.text(at, "Job or Repository"); !ok {
			return
		}
		for _, known := range resourceKinds {
			if kind == known {
				return
			}
		}
		ok = false
		r.wrong(at, meant(kind, resourceKinds), "there is no kind %q", kind)
	})
	return kind, &copied, ok
}

// located puts problems to the places in the files that their settings stand at.
func located(problems []owned, documents []document) Problems {
	of := map[owner]document{}
	for _, d := range documents {
		of[d.owner] = d
	}
	var all Problems
	for _, p := range problems {
		d := of[p.owner]
		root, places := d.placed()
		at := nearestPlace(places, p.Path, root)
		p.File, p.Line, p.Column = d.file, at.Line, at.Column
		all = append(all, p.Problem)
	}
	return all
}

// describeResource names a resource for a person.
func describeResource(kind, name string) string { return strings.ToLower(kind) + " " + name }
