package policy

import (
	"sync"

	"go.yaml.in/yaml/v3"
)

// Memory remembers what files said that were read without a mistake, by their names and text. Of thousands of files of which one
// has changed one is read anew; all of them are checked together each time, as without it. The zero value remembers nothing yet.
// It may be used by several goroutines. What it gives is shared: nobody changes it.
type Memory struct {
	mu    sync.Mutex
	known map[string]remembered
	// read counts the files that were read.
	read int
}

// remembered is what a file of one resource said.
type remembered struct {
	content    string
	name, kind string
	job        Job
	repository Repository
}

// recall is the document of a file that is remembered, added to all.
func (m *Memory) recall(file File, all *Resources) (document, bool) {
	if m == nil {
		return document{}, false
	}
	m.mu.Lock()
	said, known := m.known[file.Name]
	m.mu.Unlock()
	if !known || said.content != string(file.Content) {
		return document{}, false
	}
	d := document{owner: owner{kind: said.kind}, name: said.name, file: file.Name, content: file.Content, good: true}
	if said.kind == kindOfJob {
		d.owner.index = len(all.Jobs)
		all.Jobs = append(all.Jobs, said.job)
	} else {
		d.owner.index = len(all.Repositories)
		all.Repositories = append(all.Repositories, said.repository)
	}
	return d, true
}

// keep remembers what a file said, if it is one resource without a mistake.
func (m *Memory) keep(file File, said []document, problems Problems, all Resources) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read++
	if len(said) != 1 || len(problems) > 0 || !said[0].good {
		return
	}
	d := said[0]
	r := remembered{content: string(file.Content), name: d.name, kind: d.owner.kind}
	if r.kind == kindOfJob {
		r.job = all.Jobs[d.owner.index]
	} else {
		r.repository = all.Repositories[d.owner.index]
	}
	if m.known == nil {
		m.known = map[string]remembered{}
	}
	m.known[file.Name] = r
}

// forgetOthers forgets files that are no longer read, once they are more than those that are.
func (m *Memory) forgetOthers(files []File) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) <= 2*len(files)+100 {
		return
	}
	known := make(map[string]remembered, len(files))
	for _, file := range files {
		if said, is := m.known[file.Name]; is {
			known[file.Name] = said
		}
	}
	m.known = known
}

// placed are the nodes of a document. Of one that was remembered they are read from its text: a mistake is rare.
func (d document) placed() (root *yaml.Node, places map[string]*yaml.Node) {
	if d.root != nil || d.content == nil {
		return d.root, d.places
	}
	r := &reader{file: d.file}
	for _, root := range r.documents(d.content) {
		if read, ok := r.document(root, &Resources{}); ok {
			return read.root, read.places
		}
	}
	return nil, nil // it was read before
}
