//go:build integration

package s3

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// entry is what a log entry names (docs/format.md section 4), in a repository that is not encrypted.
type entry struct {
	Packs, Index                 []struct{ ID string }
	Points, Partials             []struct{ File string }
	Condemned, Deleted           []string
	CondemnedFiles, DeletedFiles []string
	modified                     time.Time
}

// history reads the log as it is in the bucket.
func (s *stage) history() []entry {
	s.t.Helper()
	var entries []entry
	for n := 1; ; n++ {
		object, err := shared.client.GetObject(s.t.Context(), s.bucket, fmt.Sprintf("vault/log/%012d", n), minio.GetObjectOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		raw, err := io.ReadAll(object)
		if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
			return entries
		}
		info, statErr := object.Stat()
		if err != nil || statErr != nil || len(raw) < 68 {
			s.t.Fatalf("log entry %d: %d bytes, %v, %v", n, len(raw), err, statErr)
		}
		object.Close()
		e := entry{modified: s.clock.shifted(info.LastModified)}
		payload := raw[68:]
		if err := json.Unmarshal(payload[:binary.LittleEndian.Uint32(raw[64:])], &e); err != nil {
			s.t.Fatalf("log entry %d: %v", n, err)
		}
		entries = append(entries, e)
	}
}

func packFile(id string) string { return "packs/" + id[:2] + "/" + id }

// names are the files that the entry adds.
func (e entry) names() []string {
	var names []string
	for _, p := range e.Packs {
		names = append(names, packFile(p.ID))
	}
	for _, segment := range e.Index {
		names = append(names, "index/"+segment.ID)
	}
	for _, file := range append(e.Points, e.Partials...) {
		names = append(names, file.File)
	}
	return names
}

// checkHistory fails the test where the log, and what was deleted, break the rules of docs/format.md section 14: nothing names
// what was condemned before, and nothing is deleted before the grace has passed. It returns how many packs were condemned that nobody had
// named, and the files of packs that are left.
func (s *stage) checkHistory(grace time.Duration) (garbage int, left map[string]bool) {
	s.t.Helper()
	condemned, named, gone := map[string]time.Time{}, map[string]bool{}, map[string]bool{}
	left = map[string]bool{}
	for i, e := range s.history() {
		for _, name := range e.names() {
			if _, is := condemned[name]; is {
				s.t.Errorf("log entry %d names %s, which was given up before", i+1, name)
			}
			named[name] = true
			if strings.HasPrefix(name, "packs/") {
				left[name] = true
			}
		}
		files, deleted := e.CondemnedFiles, e.DeletedFiles
		for _, id := range e.Condemned {
			files = append(files, packFile(id))
			if !left[packFile(id)] {
				garbage++
			}
		}
		for _, id := range e.Deleted {
			deleted = append(deleted, packFile(id))
		}
		for _, name := range files {
			if _, again := condemned[name]; !again {
				condemned[name] = e.modified
			}
		}
		for _, name := range deleted {
			if _, is := condemned[name]; !is {
				s.t.Errorf("log entry %d says that %s is deleted, which nobody gave up", i+1, name)
			}
			gone[name] = true
			delete(left, name)
		}
	}
	for name, d := range s.deleted {
		since, is := condemned[name]
		switch {
		case !strings.HasPrefix(name, "packs/") && !strings.HasPrefix(name, "points/"):
			// the others go at once when an entry ends or replaces them
		case !named[name] && d.who == s.made[name]:
			// what it could not name its own writer removes
		case !is:
			s.t.Errorf("%s deleted %s, which nobody gave up", d.who, name)
		case d.at.Sub(since) < grace:
			s.t.Errorf("%s deleted %s %s after it was given up", d.who, name, d.at.Sub(since))
		}
	}
	for name := range gone {
		if _, is := s.deleted[name]; !is {
			s.t.Errorf("the log says that %s is deleted, and nobody did", name)
		}
	}
	return garbage, left
}

// packFiles are the files of packs in the bucket.
func (s *stage) packFiles(t *testing.T) map[string]bool {
	t.Helper()
	files := map[string]bool{}
	for object := range shared.client.ListObjects(t.Context(), s.bucket, minio.ListObjectsOptions{Prefix: "vault/packs/", Recursive: true}) {
		if object.Err != nil {
			t.Fatal(object.Err)
		}
		files[strings.TrimPrefix(object.Key, "vault/")] = true
	}
	return files
}
